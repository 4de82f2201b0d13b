/* Online softmax: scores of a tile to weights, and the row statistics that ride along (included once per real type).
 *
 * Per row: m' = max(m, max s), alpha = 16^(m - m') (1 when m' = m, 0 when m = -inf), p = 16^(s - m'). Lanes then take
 *   l  <- alpha l + sum p                       (lane by lane, columns in order)
 *   t  <- alpha (t + (m' - m) l) + sum p (m' - s)
 *   u  <- the same sum as l without the terms at the maximum, c <- how many those are: l - 1 loses them, u does not
 *   r2 <- alpha^2 r2 + sum p^2
 * A +inf maximum takes the limit: weight 1 on every +inf score, 0 elsewhere. NaN scores are ignored by the maximum and
 * make l NaN. A row without allowed key so far keeps m = -inf, l = 0. */

/* What a single key row of lanes adds, one vector at a time; `flags` is a constant. */
AK_INLINE void R(weigh_columns)(const int flags, const int count, real *s, vreal base, vreal position, vreal *l, vreal *t, vreal *u,
                                vreal *c, vreal *r2, vreal *d1, vreal *d2, vreal *da)
{
    const vreal zero = V(zero)(), lowest = V(set1)((real)(AK_REAL_IS_FLOAT ? -31.75 : -255.75));
    vreal x[4], p[4];
    AK_UNROLL
    for (int i = 0; i < count; i++) {
        x[i] = V(max)(lowest, V(sub)(V(load)(s + i * VL), base));
        p[i] = V(exp16_neg_clamped)(x[i]);
    }
    AK_UNROLL
    for (int i = 0; i < count; i++) {
        V(store)(s + i * VL, p[i]);
        *l = V(add)(*l, p[i]);
        if (flags & AK_STAT_ENTROPY) {
            const mreal top = V(eq)(x[i], zero);
            *t = V(fnma)(p[i], x[i], *t);
            *c = V(add)(*c, V(and_mask)(top, p[i]));
            *u = V(add)(*u, V(and_mask)(M(not)(top), p[i]));
        }
        if (flags & AK_STAT_PURITY) *r2 = V(fma)(p[i], p[i], *r2);
        if (flags & AK_STAT_DISTANCE) {
            const vreal delta = V(sub)(position, V(set1)((real)(i * VL))), pd = V(mul)(p[i], delta);
            *d1 = V(add)(*d1, pd);
            *d2 = V(fma)(pd, delta, *d2);
            *da = V(add)(*da, V(abs)(pd));
        }
    }
}

AK_INLINE real R(row_max)(const real *s, int n)
{
    const vreal minus_inf = V(set1)((real)-INFINITY);
    vreal top0 = minus_inf, top1 = minus_inf;
    int c = 0;
    for (; c + 2 * VL <= n; c += 2 * VL) {
        top0 = V(max)(V(load)(s + c), top0);
        top1 = V(max)(V(load)(s + c + VL), top1);
    }
    if (c < n) top0 = V(max)(V(load)(s + c), top0);
    return V(hmax)(V(max)(top0, top1));
}

/* Rows whose maximum is +inf: relative to 0, a +inf score becomes 0 and a finite one too low to weigh. -inf and NaN stay. */
static void R(infinite_row)(real *s, int n)
{
    const vreal limit = V(set1)((real)AK_MAX_FINITE), inf = V(set1)((real)INFINITY), zero = V(zero)();
    for (int c = 0; c < n; c += VL) {
        const vreal x = V(load)(s + c), low = V(select)(V(le)(V(abs)(x), limit), V(neg)(limit), x);
        V(store)(s + c, V(select)(V(eq)(x, inf), zero, low));
    }
}

AK_INLINE real R(exp16_one)(real x)
{
    real lanes[VL];
    V(store)(lanes, V(exp16_neg)(V(set1)(x)));
    return lanes[0];
}

AK_INLINE void R(weigh_rows)(const int flags, ak_tile *tile, const ak_row_lanes *lanes)
{
    real *m = lanes->m, *alpha = lanes->alpha;
    for (int r = 0; r < tile->n_rows; r++) {
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        alpha[r] = 1;
        if (c0 == c1) continue;
        real *s = (real *)tile->s + r * AK_TILE + c0;
        const int n = c1 - c0;
        const real old = m[r], top = R(row_max)(s, n), now = top > old ? top : old;
        real shift = 0; /* m' - m where both are numbers */
        if (now != old) {
            m[r] = now;
            alpha[r] = old == (real)-INFINITY ? 0 : R(exp16_one)(old - now);
            if (old != (real)-INFINITY && now != (real)INFINITY) shift = now - old;
            if (lanes->argmax) {
                int at = 0;
                while (s[at] != now) at++;
                lanes->argmax[r] = tile->key0 + c0 + at;
            }
        }
        real base_one = now;
        if (now == (real)INFINITY) R(infinite_row)(s, n);
        if (now == (real)INFINITY || now == (real)-INFINITY) base_one = 0;
        const vreal base = V(set1)(base_one), zero = V(zero)();
        vreal l = zero, t = zero, u = zero, k = zero, r2 = zero, d1 = zero, d2 = zero, da = zero;
        vreal position = zero;
        if (flags & AK_STAT_DISTANCE)
            position = V(sub)(V(set1)((real)(tile->rows->position[r] - tile->key0 - c0)), V(iota)());
        int c = 0;
        for (; c + 4 * VL <= n; c += 4 * VL) {
            R(weigh_columns)(flags, 4, s + c, base, position, &l, &t, &u, &k, &r2, &d1, &d2, &da);
            if (flags & AK_STAT_DISTANCE) position = V(sub)(position, V(set1)((real)(4 * VL)));
        }
        for (; c < n; c += VL) {
            R(weigh_columns)(flags, 1, s + c, base, position, &l, &t, &u, &k, &r2, &d1, &d2, &da);
            if (flags & AK_STAT_DISTANCE) position = V(sub)(position, V(set1)((real)VL));
        }
        const vreal scale = V(set1)(alpha[r]);
        real *to = (real *)lanes->l + r * VL;
        const vreal l_old = V(load)(to);
        V(store)(to, V(fma)(l_old, scale, l));
        if (flags & AK_STAT_ENTROPY) {
            to = (real *)lanes->t + r * VL;
            V(store)(to, V(fma)(V(fma)(V(set1)(shift), l_old, V(load)(to)), scale, t));
            to = (real *)lanes->u + r * VL;
            real *count = (real *)lanes->c + r * VL;
            if (now != old) { /* the old maxima are ordinary terms now */
                V(store)(to, V(fma)(l_old, scale, u));
                V(store)(count, k);
            } else {
                V(store)(to, V(add)(V(load)(to), u));
                V(store)(count, V(add)(V(load)(count), k));
            }
        }
        if (flags & AK_STAT_PURITY) {
            to = (real *)lanes->r2 + r * VL;
            V(store)(to, V(fma)(V(load)(to), V(mul)(scale, scale), r2));
        }
        if (flags & AK_STAT_DISTANCE) {
            lanes->d1[r] = lanes->d1[r] * (double)alpha[r] + (double)V(hsum)(d1);
            lanes->d2[r] = lanes->d2[r] * (double)alpha[r] + (double)V(hsum)(d2);
            lanes->da[r] = lanes->da[r] * (double)alpha[r] + (double)V(hsum)(da);
        }
    }
}

static void R(weights)(ak_tile *tile, int stats, const ak_row_lanes *lanes)
{
    const int flags = stats & (AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE);
    if (flags == 0) R(weigh_rows)(0, tile, lanes);
    else if ((flags & AK_STAT_DISTANCE) == 0) R(weigh_rows)(AK_STAT_ENTROPY | AK_STAT_PURITY, tile, lanes);
    else R(weigh_rows)(AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE, tile, lanes);
}

/* The `topk` largest scores of each row so far, descending, lower key first among equals; before the weights. */
static void R(top_scores)(const ak_tile *tile, int topk, void *top_s_, int64_t *top_j)
{
    real *top_s = top_s_;
    for (int r = 0; r < tile->n_rows; r++, top_s += topk, top_j += topk) {
        const real *s = (const real *)tile->s + r * AK_TILE;
        int c0, c1;
        R(row_columns)(tile, r, &c0, &c1);
        for (int c = c0; c < c1; c += VL) {
            /* -inf at the end of the list stands for "free": a score of -inf never enters. */
            uint32_t more = M(bits)(V(gt)(V(load)(s + c), V(set1)(top_s[topk - 1])));
            for (; more; more &= more - 1) {
                const int j = c + __builtin_ctz(more);
                int at = topk;
                while (at > 0 && s[j] > top_s[at - 1]) at--;
                if (at == topk) continue;
                for (int i = topk - 1; i > at; i--) {
                    top_s[i] = top_s[i - 1];
                    top_j[i] = top_j[i - 1];
                }
                top_s[at] = s[j];
                top_j[at] = tile->key0 + j;
            }
        }
    }
}

/* Mass of key groups (group[j] of the tile's keys, negative = none) and of the first sink_size keys; after the weights. */
static void R(group_mass)(const ak_tile *tile, const void *alpha_, const int32_t *group, int n_groups, double *mass)
{
    const real *alpha = alpha_;
    for (int r = 0; r < tile->n_rows; r++, mass += n_groups) {
        const real *p = (const real *)tile->s + r * AK_TILE;
        const int g = r / AK_GROUP_ROWS;
        if (alpha[r] != 1)
            for (int i = 0; i < n_groups; i++) mass[i] *= (double)alpha[r];
        for (int j = tile->group_first[g]; j < tile->group_last[g]; j++)
            if (group[j] >= 0) mass[group[j]] += (double)p[j];
    }
}

static void R(sink_mass)(const ak_tile *tile, const void *alpha_, int64_t sink_size, double *mass)
{
    const real *alpha = alpha_;
    for (int r = 0; r < tile->n_rows; r++) {
        const real *p = (const real *)tile->s + r * AK_TILE;
        const int g = r / AK_GROUP_ROWS;
        mass[r] *= (double)alpha[r];
        for (int j = tile->group_first[g]; j < tile->group_last[g] && tile->key0 + j < sink_size; j++) mass[r] += (double)p[j];
    }
}

/* Dropout acts on the values only: after the sums of a row, before P V. A dropped key is as good as forbidden there. */
static void R(dropout)(ak_tile *tile, const char *const *keep_rows, ptrdiff_t col_stride, double z)
{
    for (int r = 0; r < tile->n_rows; r++) {
        real *p = (real *)tile->s + r * AK_TILE;
        const int g = r / AK_GROUP_ROWS;
        for (int j = tile->group_first[g]; j < tile->group_last[g]; j++)
            if (keep_rows[r][(tile->key0 + j) * col_stride]) p[j] *= (real)z;
            else {
                p[j] = 0;
                tile->has_bits = 1;
                tile->bits[r][j / 64] &= ~((uint64_t)1 << (j % 64));
            }
    }
}
