/* The map once its rows are normalised: p = 16^(s - m) * inv with the final m and 1 / l of each row (included once per
 * real type). Used for windows of the map, received attention and block mass. */

static void R(probabilities)(ak_tile *tile, const void *m_, const void *inv_)
{
    const real *m = m_, *inv = inv_;
    /* A caller's own normaliser may lie below a score; the exponent then saturates instead of wrapping. */
    const vreal highest = V(set1)((real)(AK_REAL_IS_FLOAT ? 31.75 : 255.75)), minus_inf = V(set1)((real)-INFINITY);
    for (int r = 0; r < tile->n_rows; r++) {
        real *s = (real *)tile->s + r * AK_TILE;
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        if (m[r] == (real)INFINITY) R(infinite_row)(s + c0, c1 - c0);
        const vreal base = V(set1)(m[r] == (real)INFINITY || m[r] == (real)-INFINITY ? 0 : m[r]), by = V(set1)(inv[r]);
        for (int c = c0; c < c1; c += VL) {
            /* A forbidden key has weight 0 also in a row that is NaN. */
            const vreal x = V(load)(s + c), p = V(mul)(V(exp16_neg)(V(min)(highest, V(sub)(x, base))), by);
            V(store)(s + c, V(and_mask)(V(ne)(x, minus_inf), p));
        }
    }
}

/* Rows in order, so that a column's sum does not depend on how rows are blocked. A NaN weight makes the sum NaN; the
 * maximum leaves NaN out (the caller looks at the sum). */
static void R(columns)(const ak_tile *tile, const void *row_weight_, void *sum_, void *max_)
{
    const real *row_weight = row_weight_;
    real *sum = sum_, *max = max_;
    for (int r = 0; r < tile->n_rows; r++) {
        const real *p = (const real *)tile->s + r * AK_TILE;
        const vreal w = V(set1)(row_weight[r]);
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        /* Weight 0 at a key that the row may not see must stay out of a product with infinity or NaN. */
        const int guarded = tile->has_bits && !(row_weight[r] - row_weight[r] == 0);
        for (int c = c0; c < c1; c += VL) {
            const vreal x = V(load)(p + c), before = V(load)(sum + c), after = V(fma)(w, x, before);
            V(store)(sum + c, guarded ? V(select)(M(from_bits)(R(lane_bits)(tile->bits[r], c)), after, before) : after);
            V(store)(max + c, V(max)(x, V(load)(max + c)));
        }
    }
}
