/* Views to packed scratch and back (included once per real type): the only readers and writers of user memory. Any stride, any alignment;
 * contiguous rows take vector paths. Conversion to `real` is exact; back, it rounds once. */

AK_INLINE real R(load_one)(const char *from, ak_dtype dtype)
{
    if (dtype == AK_F32) {
        float x;
        memcpy(&x, from, sizeof x);
        return (real)x;
    }
    if (dtype == AK_F64) {
        double x;
        memcpy(&x, from, sizeof x);
        return (real)x;
    }
    uint16_t x;
    memcpy(&x, from, sizeof x);
    return (real)(dtype == AK_F16 ? ak_f16_to_f32(x) : ak_bf16_to_f32(x));
}

/* n elements of a row of a view. */
static void R(load_run)(const char *from, ptrdiff_t stride, ak_dtype dtype, int n, real *to)
{
    int i = 0;
    if (dtype == AK_REAL_DTYPE && stride == (ptrdiff_t)sizeof(real)) {
        memcpy(to, from, (size_t)n * sizeof(real));
        return;
    }
    const ptrdiff_t size = dtype == AK_F64 ? 8 : dtype == AK_F32 ? 4 : 2;
    if (stride == size && (uintptr_t)from % (uintptr_t)size == 0) {
        if (dtype == AK_F16)
            for (; i + VL <= n; i += VL) V(store)(to + i, V(load_f16)((const uint16_t *)(const void *)from + i));
        else if (dtype == AK_BF16)
            for (; i + VL <= n; i += VL) V(store)(to + i, V(load_bf16)((const uint16_t *)(const void *)from + i));
#if !AK_REAL_IS_FLOAT
        else if (dtype == AK_F32)
            for (; i + VL <= n; i += VL) V(store)(to + i, V(load_f32)((const float *)(const void *)from + i));
#endif
    }
    for (; i < n; i++) to[i] = R(load_one)(from + i * stride, dtype);
}

/* Can VL x VL blocks be read straight from the view? */
AK_INLINE int R(is_direct)(const ak_matrix *x)
{
    return x->dtype == AK_REAL_DTYPE && x->col_stride == (ptrdiff_t)sizeof(real) && x->row_stride % (ptrdiff_t)sizeof(real) == 0 &&
           (uintptr_t)x->data % sizeof(real) == 0;
}

/* VL elements of a row that is stored contiguously in one of the narrower types: a whole vector at a time. */
AK_INLINE int R(is_narrow)(const ak_matrix *x)
{
    const ptrdiff_t size = x->dtype == AK_F32 ? 4 : 2;
    return x->dtype != AK_REAL_DTYPE && x->dtype != AK_F64 && x->col_stride == size && x->row_stride % size == 0 &&
           (uintptr_t)x->data % (uintptr_t)size == 0;
}

AK_INLINE vreal R(load_narrow)(const char *from, ak_dtype dtype)
{
#if !AK_REAL_IS_FLOAT
    if (dtype == AK_F32) return V(load_f32)((const float *)(const void *)from);
#endif
    return dtype == AK_F16 ? V(load_f16)((const uint16_t *)(const void *)from) : V(load_bf16)((const uint16_t *)(const void *)from);
}

/* Features c .. d-1 of one panel from any view. */
static void R(pack_panel)(const ak_matrix *k, const char *rows, int n_rows, int c, int d, real *panel)
{
    real block[VL * VL] = {0}, turned[VL * VL];
    const int narrow = R(is_narrow)(k);
    for (; c < d; c += VL) {
        const int width = ak_min_int(VL, d - c);
        const char *from = rows + c * k->col_stride;
        if (narrow && width == VL)
            for (int r = 0; r < n_rows; r++) V(store)(block + r * VL, R(load_narrow)(from + r * k->row_stride, k->dtype));
        else
            for (int r = 0; r < n_rows; r++) R(load_run)(from + r * k->row_stride, k->col_stride, k->dtype, width, block + r * VL);
        if (width == VL) V(transpose)(block, VL, panel + (ptrdiff_t)c * VL);
        else {
            V(transpose)(block, VL, turned);
            memcpy(panel + (ptrdiff_t)c * VL, turned, (size_t)width * VL * sizeof(real));
        }
    }
}

/* Rows read in short pieces look like many streams and defeat the hardware's prefetcher; one byte of each cache line, in
 * address order, brings them in first. */
AK_INLINE void R(touch_rows)(const char *rows, ptrdiff_t row_stride, int n_rows, int bytes)
{
    for (int r = 0; r < n_rows; r++)
        for (int byte = 0; byte < bytes; byte += 64) (void)*(const volatile char *)(rows + r * row_stride + byte);
}

static void R(pack_keys)(const ak_matrix *k, int64_t j0, int n, int d, void *panels_)
{
    real *panels = panels_;
    const int direct = R(is_direct)(k), d_full = d / VL * VL;
    const ptrdiff_t ld = k->row_stride / (ptrdiff_t)sizeof(real);
    for (int j = 0; j < n; j += VL, panels += (ptrdiff_t)d * VL) {
        const char *rows = k->data + (j0 + j) * k->row_stride;
        const int n_rows = ak_min_int(VL, n - j);
        int c = 0;
        if (direct && n_rows == VL) {
            R(touch_rows)(rows, k->row_stride, VL, d_full * (int)sizeof(real));
            for (; c < d_full; c += VL)
                V(transpose)((const real *)(const void *)rows + c, ld, panels + (ptrdiff_t)c * VL);
        }
        if (direct && n_rows <= 4) { /* a short tail: a few strided stores cost less than a transpose of empty rows */
            for (int r = 0; r < n_rows; r++) {
                const real *row = (const real *)(const void *)(rows + r * k->row_stride);
                for (c = 0; c < d; c++) panels[(ptrdiff_t)c * VL + r] = row[c];
            }
            continue;
        }
        if (c == 0 && R(is_narrow)(k)) R(touch_rows)(rows, k->row_stride, n_rows, d * (int)k->col_stride);
        if (c < d) R(pack_panel)(k, rows, n_rows, c, d, panels);
    }
}

static int R(pack_values)(const ak_matrix *v, int64_t j0, int n, int dv, void *panels_, ptrdiff_t panel_stride)
{
    real *panels = panels_;
    const int direct = R(is_direct)(v), narrow = R(is_narrow)(v);
    const vreal limit = V(set1)((real)AK_MAX_FINITE);
    uint32_t bad = 0;
    for (int j = 0; j < n; j++) {
        const char *row = v->data + (j0 + j) * v->row_stride;
        for (int c = 0, p = 0; c < dv; c += VL, p++) {
            real *to = panels + p * panel_stride + (ptrdiff_t)j * VL;
            const int width = ak_min_int(VL, dv - c);
            vreal x;
            if (direct && width == VL) x = V(load)((const real *)(const void *)row + c);
            else if (narrow && width == VL) x = R(load_narrow)(row + c * v->col_stride, v->dtype);
            else {
                real part[VL] = {0};
                R(load_run)(row + c * v->col_stride, v->col_stride, v->dtype, width, part);
                x = V(load)(part);
            }
            V(store)(to, x);
            bad |= ~M(bits)(V(le)(V(abs)(x), limit));
        }
    }
    return (bad & ((1u << VL) - 1u)) == 0;
}

static int R(values_finite)(const ak_matrix *v, int64_t j0, int n, int dv)
{
    const int direct = R(is_direct)(v);
    const vreal limit = V(set1)((real)AK_MAX_FINITE);
    uint32_t bad = 0;
    for (int j = 0; j < n; j++) {
        const char *row = v->data + (j0 + j) * v->row_stride;
        int c = 0;
        if (direct)
            for (; c + VL <= dv; c += VL) bad |= ~M(bits)(V(le)(V(abs)(V(load)((const real *)(const void *)row + c)), limit));
        for (; c < dv; c++) {
            const real x = R(load_one)(row + c * v->col_stride, v->dtype);
            bad |= !(x <= (real)AK_MAX_FINITE && x >= -(real)AK_MAX_FINITE);
        }
    }
    return (bad & ((1u << VL) - 1u)) == 0;
}

static void R(load_row)(const ak_matrix *x, int64_t row, int n, double factor, void *to_)
{
    real *to = to_;
    R(load_run)(x->data + row * x->row_stride, x->col_stride, x->dtype, n, to);
    if (factor == 1.0) return;
    const real f = (real)factor;
    for (int i = 0; i < n; i++) to[i] *= f;
}

/* Canonical NaN, no negative zero: which zero or NaN pattern a sum ends in may depend on the target. */
AK_INLINE void R(store_one)(real x, char *to, ak_dtype dtype)
{
    if (x != x) x = (real)NAN;
    x += 0;
    if (dtype == AK_F64) {
        const double y = (double)x;
        memcpy(to, &y, sizeof y);
    } else if (dtype == AK_F32) {
        const float y = (float)x;
        memcpy(to, &y, sizeof y);
    } else {
        const uint16_t y = dtype == AK_F16 ? ak_f32_to_f16((float)x) : ak_f32_to_bf16((float)x);
        memcpy(to, &y, sizeof y);
    }
}

static void R(store_row)(const void *from_, int n, char *to, ptrdiff_t col_stride, ak_dtype dtype)
{
    const real *from = from_;
    int i = 0;
    if (dtype == AK_REAL_DTYPE && col_stride == (ptrdiff_t)sizeof(real) && (uintptr_t)to % sizeof(real) == 0)
        for (; i + VL <= n; i += VL) V(store)((real *)(void *)to + i, V(canonical)(V(load)(from + i)));
#if AK_REAL_IS_FLOAT
    else if (col_stride == 2 && (uintptr_t)to % 2 == 0 && dtype == AK_F16)
        for (; i + VL <= n; i += VL) V(store_f16)((uint16_t *)(void *)to + i, V(canonical)(V(load)(from + i)));
    else if (col_stride == 2 && (uintptr_t)to % 2 == 0 && dtype == AK_BF16)
        for (; i + VL <= n; i += VL) V(store_bf16)((uint16_t *)(void *)to + i, V(canonical)(V(load)(from + i)));
#endif
    for (; i < n; i++) R(store_one)(from[i], to + i * col_stride, dtype);
}
