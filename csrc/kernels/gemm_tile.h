/* The one register-blocked product behind Q K^T and P V (included once per real type).
 *
 *   C[r][p*VL + lane] = sum over k in order of A[r][k] * B[k][p*VL + lane]
 *
 * A is row-major; B is panels: row k of panel p starts at b + p*panel_stride + k*row_stride. Each sum starts from 0 (or
 * from C) and runs over k with fused multiply-add: its value does not depend on the register block, which is chosen for
 * speed alone. The block sizes must be compile-time constants: as run-time values the accumulators would live in memory
 * (measured: a third of the speed). */

AK_INLINE void R(block_sum)(const int n_rows, const int n_panels, const real *a, ptrdiff_t a_stride, const real *b,
                            ptrdiff_t row_stride, ptrdiff_t panel_stride, int n_k, vreal (*sum)[6])
{
    for (int k = 0; k < n_k; k++) {
        vreal row[6];
        AK_UNROLL
        for (int p = 0; p < n_panels; p++) row[p] = V(load)(b + p * panel_stride);
        b += row_stride;
        AK_UNROLL
        for (int r = 0; r < n_rows; r++) {
            const vreal x = V(set1)(a[r * a_stride + k]);
            AK_UNROLL
            for (int p = 0; p < n_panels; p++) sum[r][p] = V(fma)(x, row[p], sum[r][p]);
        }
    }
}

/* S block: starts from 0 and overwrites. */
AK_INLINE void R(scores_block)(const int n_rows, const int n_panels, const real *q, int d, const real *keys, real *s)
{
    vreal sum[12][6];
    AK_UNROLL
    for (int r = 0; r < n_rows; r++)
        AK_UNROLL
        for (int p = 0; p < n_panels; p++) sum[r][p] = V(zero)();
    R(block_sum)(n_rows, n_panels, q, d, keys, VL, (ptrdiff_t)d * VL, d, sum);
    AK_UNROLL
    for (int r = 0; r < n_rows; r++)
        AK_UNROLL
        for (int p = 0; p < n_panels; p++) V(store)(s + r * AK_TILE + p * VL, sum[r][p]);
}

/* acc <- alpha acc + P V block. */
AK_INLINE void R(values_block)(const int n_rows, const int n_panels, const real *p, const real *v, ptrdiff_t row_stride,
                               ptrdiff_t panel_stride, int n_k, const real *alpha, real *acc, ptrdiff_t acc_stride)
{
    vreal sum[12][6];
    AK_UNROLL
    for (int r = 0; r < n_rows; r++)
        AK_UNROLL
        for (int n = 0; n < n_panels; n++) sum[r][n] = V(zero)();
    R(block_sum)(n_rows, n_panels, p, AK_TILE, v, row_stride, panel_stride, n_k, sum);
    AK_UNROLL
    for (int r = 0; r < n_rows; r++) {
        const vreal scale = V(set1)(alpha[r]);
        AK_UNROLL
        for (int n = 0; n < n_panels; n++) {
            real *to = acc + r * acc_stride + n * VL;
            V(store)(to, V(fma)(V(load)(to), scale, sum[r][n]));
        }
    }
}

/* Run-time sizes to compile-time constants. */
#if defined(AK_TARGET_GENERIC)
#define AK_ROW_CASES_OF(panels, step) step(n_rows, panels);
#else
#define AK_ROW_CASES_OF(panels, step)                                                               \
    switch (n_rows) {                                                                               \
    case 1: step(1, panels); break;                                                                 \
    case 2: step(2, panels); break;                                                                 \
    case 3: step(3, panels); break;                                                                 \
    case 4: step(4, panels); break;                                                                 \
    case 5: step(5, panels); break;                                                                 \
    default: step(6, panels); break;                                                                \
    }
#endif

/* Up to AK_GROUP_ROWS rows by n_panels panels: `step(rows, panels)` does a register block and moves on. About eight sums hide the
 * latency of a fused multiply-add, so few rows take several panels at once; five panels go as 3 + 2, because one alone would be
 * left waiting. */
#if AK_PANELS == 4
#define AK_BLOCK_STEPS(step)                                                                        \
    while (n_panels >= 4 && n_panels != 5) AK_ROW_CASES_OF(4, step)                                 \
    if (n_panels >= 3) AK_ROW_CASES_OF(3, step)                                                     \
    if (n_panels == 2) AK_ROW_CASES_OF(2, step)                                                     \
    while (n_panels > 0) AK_ROW_CASES_OF(1, step)
#else
#define AK_BLOCK_STEPS(step)                                                                        \
    if (n_rows == 1) {                                                                              \
        while (n_panels >= 4 && n_panels != 5) step(1, 4);                                          \
        if (n_panels >= 3) step(1, 3);                                                              \
        if (n_panels == 2) step(1, 2);                                                              \
    } else if (n_rows <= 3) {                                                                       \
        while (n_panels >= 2) {                                                                     \
            if (n_rows == 2) step(2, 2);                                                            \
            else step(3, 2);                                                                        \
        }                                                                                           \
    }                                                                                               \
    while (n_panels > 0) AK_ROW_CASES_OF(1, step)
#endif

static void R(scores_rows)(int n_rows, const real *q, int d, const real *keys, int n_panels, real *s)
{
    const ptrdiff_t panel = (ptrdiff_t)d * VL;
#define AK_STEP(rows, panels) \
    (R(scores_block)(rows, panels, q, d, keys, s), keys += (panels) * panel, s += (panels) * VL, n_panels -= (panels))
    AK_BLOCK_STEPS(AK_STEP)
#undef AK_STEP
}

AK_INLINE void R(values_rows)(int n_rows, const real *p, const real *v, const ptrdiff_t row_stride, ptrdiff_t panel_stride,
                              int n_panels, int n_k, const real *alpha, real *acc, ptrdiff_t acc_stride)
{
#define AK_STEP(rows, panels)                                                                       \
    (R(values_block)(rows, panels, p, v, row_stride, panel_stride, n_k, alpha, acc, acc_stride),    \
     v += (panels) * panel_stride, acc += (panels) * VL, n_panels -= (panels))
    AK_BLOCK_STEPS(AK_STEP)
#undef AK_STEP
}
#undef AK_BLOCK_STEPS
#undef AK_ROW_CASES_OF

static void R(scores)(const void *q_, int d, const void *panels_, ak_tile *tile)
{
    const real *q = q_, *panels = panels_;
    real *s = tile->s;
    const ptrdiff_t panel = (ptrdiff_t)d * VL;
    /* Panels outermost: a few of them stay in the first-level cache while all rows pass over them. */
    enum { AT_ONCE = AK_PANELS == 1 ? 3 : 4 };
    const int p0 = tile->col0 / VL, p1 = tile->col1 / VL;
    for (int p = p0; p < p1; p += AT_ONCE) {
        const int stop = ak_min_int(p + AT_ONCE, p1);
        for (int r = 0, g = 0; r < tile->n_rows; r += AK_GROUP_ROWS, g++) {
            const int from = ak_max_int(p, tile->group_first[g] / VL);
            const int to = ak_min_int(stop, ak_ceil_div(tile->group_last[g], VL));
            if (from < to)
                R(scores_rows)(ak_min_int(AK_GROUP_ROWS, tile->n_rows - r), q + (ptrdiff_t)r * d, d, panels + (from - p0) * panel,
                               to - from, s + r * AK_TILE + from * VL);
        }
    }
}

AK_INLINE void R(values_strided)(const ak_tile *tile, const real *v, const ptrdiff_t row_stride, ptrdiff_t panel_stride,
                                 int n_panels, const real *alpha, real *acc, ptrdiff_t acc_stride)
{
    const real *p = tile->s;
    int at_once;
    for (int n = 0; n < n_panels; n += at_once) {
        const int left = n_panels - n;
        at_once = AK_PANELS == 4 ? (left == 5 ? 3 : 4) : tile->n_rows <= 3 ? n_panels : 1;
        for (int r = 0, g = 0; r < tile->n_rows; r += AK_GROUP_ROWS, g++) {
            const int k0 = tile->group_first[g], k1 = tile->group_last[g];
            R(values_rows)(ak_min_int(AK_GROUP_ROWS, tile->n_rows - r), p + r * AK_TILE + k0, v + n * panel_stride + k0 * row_stride,
                           row_stride, panel_stride, ak_min_int(at_once, left), k1 > k0 ? k1 - k0 : 0, alpha + r,
                           acc + r * acc_stride + n * VL, acc_stride);
        }
    }
}

static void R(values)(const ak_tile *tile, const void *v, ptrdiff_t row_stride, ptrdiff_t panel_stride, int n_panels,
                      const void *alpha, void *acc, ptrdiff_t acc_stride)
{
    if (row_stride == VL) {
        R(values_strided)(tile, v, VL, panel_stride, n_panels, alpha, acc, acc_stride);
        return;
    }
    /* Values in place come from far away once, then several times from the cache, a panel or a few at a time. */
    if (tile->n_rows > 3 || n_panels > 4)
        R(touch_rows)(v, row_stride * (ptrdiff_t)sizeof(real), tile->n_keys, n_panels * VL * (int)sizeof(real));
    R(values_strided)(tile, v, row_stride, panel_stride, n_panels, alpha, acc, acc_stride);
}

/* Row by row, stepping over the keys a row may not see: 0 * NaN must not reach it. */
static void R(values_skipping)(const ak_tile *tile, const void *v_, ptrdiff_t row_stride, ptrdiff_t panel_stride, int n_panels,
                               const void *alpha_, void *acc_, ptrdiff_t acc_stride)
{
    const real *p = tile->s, *v = v_, *alpha = alpha_;
    real *acc = acc_;
    for (int r = 0; r < tile->n_rows; r++)
        for (int n = 0; n < n_panels; n++) {
            vreal sum = V(zero)();
            for (int k = 0; k < tile->n_keys; k++)
                if (tile->bits[r][k / 64] >> (k % 64) & 1)
                    sum = V(fma)(V(set1)(p[r * AK_TILE + k]), V(load)(v + n * panel_stride + k * row_stride), sum);
            real *to = acc + r * acc_stride + n * VL;
            V(store)(to, V(fma)(V(load)(to), V(set1)(alpha[r]), sum));
        }
}
