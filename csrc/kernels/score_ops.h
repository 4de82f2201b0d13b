/* Score operations on a tile (included once per real type): one function per row of score_ops.def. They touch the
 * columns in use of every group of rows and keep NaN. A new variant is one more function of ten lines here. */

AK_INLINE void R(row_columns)(const ak_tile *tile, int r, int *c0, int *c1)
{
    const int g = r / AK_GROUP_ROWS;
    *c0 = tile->group_first[g] / VL * VL;
    *c1 = tile->group_last[g] > tile->group_first[g] ? ak_ceil_div(tile->group_last[g], VL) * VL : *c0;
}

AK_INLINE uint32_t R(lane_bits)(const uint64_t *bits, int c)
{
    return (uint32_t)(bits[c / 64] >> (c % 64)) & ((1u << VL) - 1u);
}

/* s <- unit * cap * tanh(s); the queries were scaled by scale / cap. */
static void R(softcap)(const ak_bound_step *step, ak_tile *tile)
{
    const vreal cap = V(set1)((real)(step->value * step->unit));
    for (int r = 0; r < tile->n_rows; r++) {
        real *s = (real *)tile->s + r * AK_TILE;
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        for (int c = c0; c < c1; c += VL) V(store)(s + c, V(mul)(cap, V(tanh)(V(load)(s + c))));
    }
}

/* s <- s + unit * bias; a bias of -inf forbids the key. */
static void R(bias)(const ak_bound_step *step, ak_tile *tile)
{
    const vreal unit = V(set1)((real)step->unit), minus_inf = V(set1)((real)-INFINITY);
    real row[AK_TILE];
    for (int r = 0; r < tile->n_rows; r++) {
        real *s = (real *)tile->s + r * AK_TILE;
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        const int n = ak_min_int(c1, tile->n_keys) - c0;
        if (n <= 0) continue;
        const char *from = step->row_data[r] + (tile->key0 + c0) * step->col_stride;
        const real *b = row;
        if (step->dtype == AK_REAL_DTYPE && step->col_stride == (ptrdiff_t)sizeof(real) && (uintptr_t)from % sizeof(real) == 0 && n % VL == 0)
            b = (const real *)(const void *)from;
        else {
            R(load_run)(from, step->col_stride, step->dtype, n, row);
            for (int i = n; i < c1 - c0; i++) row[i] = 0;
        }
        uint64_t word = 0; /* forbidden keys among the 64 around c */
        for (int c = c0; c < c1; c += VL) {
            const vreal x = V(load)(b + (c - c0));
            V(store)(s + c, V(fma)(x, unit, V(load)(s + c)));
            word |= (uint64_t)M(bits)(V(eq)(x, minus_inf)) << (c % 64);
            if (word && ((c + VL) % 64 == 0 || c + VL == c1)) {
                tile->bits[r][c / 64] &= ~word;
                tile->forbidden = 1;
                word = 0;
            }
        }
    }
}

/* s <- s - unit * slope * |position - key|. */
static void R(alibi)(const ak_bound_step *step, ak_tile *tile)
{
    const vreal steps = V(iota)();
    for (int r = 0; r < tile->n_rows; r++) {
        real *s = (real *)tile->s + r * AK_TILE;
        const vreal slope = V(set1)((real)(-step->row_value[r] * step->unit));
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        for (int c = c0; c < c1; c += VL) {
            const vreal delta = V(sub)(V(set1)((real)(tile->rows->position[r] - tile->key0 - c)), steps);
            V(store)(s + c, V(fma)(slope, V(abs)(delta), V(load)(s + c)));
        }
    }
}

static void R(mask)(ak_tile *tile)
{
    const vreal minus_inf = V(set1)((real)-INFINITY);
    const int tail = tile->n_keys / VL * VL;
    if (!tile->has_bits && tail == tile->n_keys) return;
    for (int r = 0; r < tile->n_rows; r++) {
        real *s = (real *)tile->s + r * AK_TILE;
        if (!tile->has_bits) {
            const mreal keep = M(from_bits)((1u << (tile->n_keys - tail)) - 1u);
            V(store)(s + tail, V(select)(keep, V(load)(s + tail), minus_inf));
            continue;
        }
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        for (int c = c0; c < c1; c += VL)
            V(store)(s + c, V(select)(M(from_bits)(R(lane_bits)(tile->bits[r], c)), V(load)(s + c), minus_inf));
    }
}
