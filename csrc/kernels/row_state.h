/* States of finished chunks: lanes reduced, merged along the chunk tree, turned into final numbers (included once per
 * real type). The rule for a change of reference maximum from m to m' (a = 16^(m - m'), D = m' - m):
 *   l' = a l    t' = a (t + D l)    r2' = a^2 r2    acc' = a acc
 * The side that holds the maximum has a = 1 exactly, so merging with an empty state changes no byte. */

static void R(lanes_reset)(int n_rows, int stats, const ak_row_lanes *lanes)
{
    const size_t bytes = (size_t)n_rows * VL * sizeof(real);
    for (int r = 0; r < n_rows; r++) ((real *)lanes->m)[r] = (real)-INFINITY;
    memset(lanes->l, 0, bytes);
    if (stats & (AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE)) {
        memset(lanes->t, 0, bytes);
        memset(lanes->u, 0, bytes);
        memset(lanes->c, 0, bytes);
        memset(lanes->r2, 0, bytes);
    }
    if (stats & AK_STAT_DISTANCE) {
        memset(lanes->d1, 0, (size_t)n_rows * sizeof(double));
        memset(lanes->d2, 0, (size_t)n_rows * sizeof(double));
        memset(lanes->da, 0, (size_t)n_rows * sizeof(double));
    }
    if (lanes->argmax)
        for (int r = 0; r < n_rows; r++) lanes->argmax[r] = -1;
}

/* d1, d2, da and argmax of the lanes are the state's own arrays already. */
static void R(lanes_finish)(int n_rows, int stats, const ak_row_lanes *lanes, ak_row_state *state)
{
    const int more = stats & (AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE);
    for (int r = 0; r < n_rows; r++) {
        ((real *)state->m)[r] = ((const real *)lanes->m)[r];
        ((real *)state->l)[r] = V(hsum)(V(load)((const real *)lanes->l + r * VL));
        if (!more) continue;
        const real count = V(hsum)(V(load)((const real *)lanes->c + r * VL));
        const real rest = V(hsum)(V(load)((const real *)lanes->u + r * VL));
        ((real *)state->l1)[r] = count > 0 ? rest + (count - 1) : rest;
        ((real *)state->t)[r] = V(hsum)(V(load)((const real *)lanes->t + r * VL));
        ((real *)state->r2)[r] = V(hsum)(V(load)((const real *)lanes->r2 + r * VL));
    }
}

/* One factor per side: 1 for the side at the maximum. */
AK_INLINE real R(side_factor)(real m, real top)
{
    return m == top ? 1 : m == (real)-INFINITY ? 0 : R(exp16_one)(m - top);
}

AK_INLINE real R(side_shift)(real m, real top)
{
    return m == top || m == (real)-INFINITY || top == (real)INFINITY ? 0 : top - m;
}

static void R(merge_top)(int topk, real *a_s, int64_t *a_j, const real *b_s, const int64_t *b_j)
{
    /* b holds higher keys: it goes in front of an equal score of a never. */
    for (int i = 0; i < topk && b_j[i] >= 0; i++) {
        int at = topk;
        while (at > 0 && (a_j[at - 1] < 0 || b_s[i] > a_s[at - 1])) at--;
        if (at == topk) return;
        for (int k = topk - 1; k > at; k--) {
            a_s[k] = a_s[k - 1];
            a_j[k] = a_j[k - 1];
        }
        a_s[at] = b_s[i];
        a_j[at] = b_j[i];
    }
}

static void R(state_merge)(const ak_state_shape *shape, ak_row_state *a, const ak_row_state *b)
{
    for (int r = 0; r < shape->n_rows; r++) {
        real *ma = (real *)a->m + r, *la = (real *)a->l + r;
        const real mb = ((const real *)b->m)[r], lb = ((const real *)b->l)[r];
        const int keep = !(mb > *ma); /* a, the lower keys, holds the maximum */
        const real top = keep ? *ma : mb, fa = R(side_factor)(*ma, top), fb = R(side_factor)(mb, top);
        const double wa = (double)fa, wb = (double)fb;
        if (shape->stats & (AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE)) {
            real *l1 = (real *)a->l1 + r, *t = (real *)a->t + r, *r2 = (real *)a->r2 + r;
            const real da = R(side_shift)(*ma, top), db = R(side_shift)(mb, top);
            const real l1b = ((const real *)b->l1)[r], tb = ((const real *)b->t)[r], r2b = ((const real *)b->r2)[r];
            *l1 = keep ? *l1 + lb * fb : l1b + *la * fa;
            *t = (*t + da * *la) * fa + (tb + db * lb) * fb;
            *r2 = *r2 * (fa * fa) + r2b * (fb * fb);
        }
        if (shape->stats & AK_STAT_DISTANCE) {
            a->d1[r] = a->d1[r] * wa + b->d1[r] * wb;
            a->d2[r] = a->d2[r] * wa + b->d2[r] * wb;
            a->da[r] = a->da[r] * wa + b->da[r] * wb;
        }
        if (shape->stats & AK_STAT_SINK) a->sink[r] = a->sink[r] * wa + b->sink[r] * wb;
        if (shape->stats & AK_STAT_GROUPS)
            for (ptrdiff_t i = (ptrdiff_t)r * shape->n_groups; i < (ptrdiff_t)(r + 1) * shape->n_groups; i++)
                a->groups[i] = a->groups[i] * wa + b->groups[i] * wb;
        if (shape->stats & AK_STAT_ARGMAX && !keep) a->argmax[r] = b->argmax[r];
        if (shape->stats & AK_STAT_COUNT) a->count[r] += b->count[r];
        if (shape->stats & AK_STAT_TOPK) {
            const ptrdiff_t at = (ptrdiff_t)r * shape->topk;
            R(merge_top)(shape->topk, (real *)a->top_s + at, a->top_j + at, (const real *)b->top_s + at, b->top_j + at);
        }
        *la = *la * fa + lb * fb;
        *ma = top;
        real *xa = (real *)a->acc + r * shape->acc_stride;
        const real *xb = (const real *)b->acc + r * shape->acc_stride;
        const vreal va = V(set1)(fa), vb = V(set1)(fb);
        ptrdiff_t c = 0;
        for (; c + VL <= shape->acc_stride; c += VL)
            V(store)(xa + c, keep ? V(fma)(V(load)(xb + c), vb, V(load)(xa + c)) : V(fma)(V(load)(xa + c), va, V(load)(xb + c)));
        const int width = (int)(shape->acc_stride - c); /* padded in the engine, any number in a user's raw state */
        if (width) {
            const vreal old = V(load_first)(xa + c, width), more = V(load_first)(xb + c, width);
            V(store_first)(xa + c, keep ? V(fma)(more, vb, old) : V(fma)(old, va, more), width);
        }
    }
}

/* logits[r] in natural units; -inf adds nothing. The sink carries no value, distance, group or index. */
static void R(state_sink)(const ak_state_shape *shape, ak_row_state *a, const double *logits)
{
    for (int r = 0; r < shape->n_rows; r++) {
        const real sink = (real)(logits[r] * AK_LOG16E);
        if (sink == (real)-INFINITY) continue;
        real *m = (real *)a->m + r, *l = (real *)a->l + r;
        const int keep = !(sink > *m);
        const real top = keep ? *m : sink, f = R(side_factor)(*m, top), fs = R(side_factor)(sink, top);
        const double w = (double)f;
        if (shape->stats & (AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE)) {
            real *l1 = (real *)a->l1 + r, *t = (real *)a->t + r, *r2 = (real *)a->r2 + r;
            *l1 = keep ? *l1 + fs : *l * f;
            *t = (*t + R(side_shift)(*m, top) * *l) * f + R(side_shift)(sink, top) * fs;
            *r2 = *r2 * (f * f) + fs * fs;
        }
        if (shape->stats & AK_STAT_DISTANCE) {
            a->d1[r] *= w;
            a->d2[r] *= w;
            a->da[r] *= w;
        }
        if (shape->stats & AK_STAT_SINK) a->sink[r] *= w;
        if (shape->stats & AK_STAT_GROUPS)
            for (ptrdiff_t i = (ptrdiff_t)r * shape->n_groups; i < (ptrdiff_t)(r + 1) * shape->n_groups; i++) a->groups[i] *= w;
        *l = *l * f + fs;
        *m = top;
        real *acc = (real *)a->acc + r * shape->acc_stride;
        for (ptrdiff_t c = 0; c < shape->acc_stride; c++) acc[c] *= f;
    }
}

AK_INLINE double R(log_one)(double x)
{
    double lanes[VD_LANES];
    vd_store(lanes, vd_log(vd_set1(x)));
    return lanes[0];
}

AK_INLINE double R(log1p_one)(double x)
{
    double lanes[VD_LANES];
    vd_store(lanes, vd_log1p(vd_set1(x)));
    return lanes[0];
}

/* 16^(x - m) for numbers in units of ln 16, 1 where both are equal (also infinite), 0 for x = -inf. */
AK_INLINE double R(ratio_one)(double x, double m)
{
    double lanes[VD_LANES];
    if (x == m) return 1;
    if (x == -INFINITY) return 0;
    vd_store(lanes, vd_exp16_neg(vd_set1(x - m)));
    return lanes[0];
}

/* Final numbers of a block in natural units, in double: a row without key gives 0 and lse -inf. `keys` is the state
 * before a sink logit was merged; `sink` the sink logits or NULL. */
static void R(state_report)(const ak_state_shape *shape, const ak_row_state *state, const ak_row_state *keys, const double *sink,
                            const ak_report *to)
{
    for (int r = 0; r < shape->n_rows; r++) {
        const double m = (double)((const real *)state->m)[r], l = (double)((const real *)state->l)[r];
        const int empty = l == 0;
        const double lse = empty ? -INFINITY : m * AK_LN16 + R(log_one)(l);
        const double sink_mass = sink && sink[r] != -INFINITY ? R(ratio_one)((double)(real)(sink[r] * AK_LOG16E), m) / l : 0;
        if (to->lse) to->lse[r] = lse;
        if (to->sink_logit_mass) to->sink_logit_mass[r] = sink_mass;
        const double key_max = (double)((const real *)keys->m)[r], key_weight = empty ? 0 : R(ratio_one)(key_max, m) / l;
        if (to->max_weight) to->max_weight[r] = key_weight;
        if (shape->stats & (AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE)) {
            const double l1 = (double)((const real *)state->l1)[r], t = (double)((const real *)state->t)[r] * AK_LN16;
            const double r2 = (double)((const real *)state->r2)[r];
            if (to->entropy) to->entropy[r] = empty ? 0 : R(log1p_one)(l1) + t / l;
            if (to->purity) to->purity[r] = empty ? 0 : r2 / (l * l);
            if (to->mean_logit) {
                /* The mean over the keys alone times their mass: taking a sink out of the whole mean would cancel. */
                const double key_l = (double)((const real *)keys->l)[r], key_t = (double)((const real *)keys->t)[r];
                to->mean_logit[r] = key_l == 0 || key_weight == 0 ? 0 : key_weight * key_l * ((key_max - key_t / key_l) * AK_LN16);
            }
        }
        if (shape->stats & AK_STAT_DISTANCE) {
            if (to->distance) to->distance[r] = empty ? 0 : state->d1[r] / l;
            if (to->distance_sq) to->distance_sq[r] = empty ? 0 : state->d2[r] / l;
            if (to->abs_distance) to->abs_distance[r] = empty ? 0 : state->da[r] / l;
        }
        if (shape->stats & AK_STAT_SINK && to->sink_mass) to->sink_mass[r] = empty ? 0 : state->sink[r] / l;
        if (shape->stats & AK_STAT_GROUPS && to->group_mass)
            for (int i = 0; i < shape->n_groups; i++) {
                const ptrdiff_t at = (ptrdiff_t)r * shape->n_groups + i;
                to->group_mass[at] = empty ? 0 : state->groups[at] / l;
            }
        if (shape->stats & AK_STAT_TOPK && to->topk_weight)
            for (int i = 0; i < shape->topk; i++) {
                const ptrdiff_t at = (ptrdiff_t)r * shape->topk + i;
                to->topk_weight[at] = l != l ? l : state->top_j[at] < 0 ? 0 : R(ratio_one)((double)((const real *)state->top_s)[at], m) / l;
            }
    }
}

/* A row with a NaN score has no largest key. */
static void R(state_indices)(const ak_state_shape *shape, ak_row_state *state)
{
    for (int r = 0; r < shape->n_rows; r++) {
        const real l = ((const real *)state->l)[r];
        if (l == l) continue;
        if (state->argmax) state->argmax[r] = -1;
        for (int i = 0; i < shape->topk && state->top_j; i++) state->top_j[(ptrdiff_t)r * shape->topk + i] = -1;
    }
}

/* acc <- acc / l; 0 for rows without key. */
static void R(state_out)(const ak_state_shape *shape, const ak_row_state *state)
{
    for (int r = 0; r < shape->n_rows; r++) {
        real *acc = (real *)state->acc + r * shape->acc_stride;
        const real l = ((const real *)state->l)[r];
        const vreal by = V(set1)(l == 0 ? 1 : l);
        ptrdiff_t c = 0;
        for (; c + VL <= shape->acc_stride; c += VL) V(store)(acc + c, V(div)(V(load)(acc + c), by));
        const int width = (int)(shape->acc_stride - c); /* padded in the engine, any number in a user's raw state */
        if (width) V(store_first)(acc + c, V(div)(V(load_first)(acc + c, width), by), width);
    }
}
