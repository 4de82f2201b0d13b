/* Mask plans: ranges, tile states and row bits of every pattern, and their combination over the postfix list.
 *
 * CAUSAL and WINDOW are one shape, a band of diagonals with optional sink keys; PREFIX and ALL are key intervals.
 * All of them answer by arithmetic, so a plan over 2^40 keys costs what one over 200 does. Sums saturate: inside the
 * domain of plan.h a saturated position lies beyond every key, which makes the clipped answer the exact one. */
#include "plan.h"

/* ---- integers ------------------------------------------------------------------------------------------------- */

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t add_saturated(int64_t a, int64_t b)
{
    if (b > 0 && a > INT64_MAX - b) return INT64_MAX;
    if (b < 0 && a < INT64_MIN - b) return INT64_MIN;
    return a + b;
}

static int64_t sub_saturated(int64_t a, int64_t b)
{
    if (b < 0 && a > INT64_MAX + b) return INT64_MAX;
    if (b > 0 && a < INT64_MIN + b) return INT64_MIN;
    return a - b;
}

/* Remainder in 0 .. d-1 for a of any sign. */
static int64_t floor_mod(int64_t a, int64_t d)
{
    int64_t r = a % d;
    return r < 0 ? r + d : r;
}

static int64_t ceil_div(int64_t a, int64_t d) { return a / d + (a % d != 0); }

static int64_t popcount64(uint64_t x)
{
    x -= (x >> 1) & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (int64_t)((x * UINT64_C(0x0101010101010101)) >> 56);
}

/* ---- bits of one tile ----------------------------------------------------------------------------------------- */

/* The lowest n bits; n may lie outside 0 .. 64. */
static uint64_t low_bits(int64_t n)
{
    if (n <= 0) return 0;
    return n >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
}

/* Set the keys of [lo, hi) that lie in the tile starting at key `base`. */
static void set_interval(uint64_t bits[AK_TILE_WORDS], int64_t base, int64_t lo, int64_t hi)
{
    lo = max64(lo, base) - base;
    hi = hi <= base ? 0 : min64(hi - base, AK_TILE);
    for (int64_t w = 0; w < AK_TILE_WORDS; ++w) bits[w] |= low_bits(hi - 64 * w) & ~low_bits(lo - 64 * w);
}

/* Eight mask bytes, the first one lowest; compilers make one load of it, whatever the byte order. */
static uint64_t load_bytes(const char *p)
{
    uint64_t x = 0;
    for (int b = 0; b < 8; ++b) x |= (uint64_t)(unsigned char)p[b] << (8 * b);
    return x;
}

/* 1 in every byte that is not zero. */
static uint64_t nonzero_bytes(uint64_t x)
{
    const uint64_t low7 = UINT64_C(0x7f7f7f7f7f7f7f7f);
    return ((((x & low7) + low7) | x) >> 7) & UINT64_C(0x0101010101010101);
}

/* Gather eight 0/1 bytes into eight bits: byte k sits at bit 8k and the factor's term 2^(56-7k) lifts it to bit
 * 56+k. No two of the 64 products share a bit, so nothing carries. */
static uint64_t pack_bytes(uint64_t ones) { return (ones * UINT64_C(0x0102040810204080)) >> 56; }

/* ---- bands: causal and window --------------------------------------------------------------------------------- */

/* Allowed: -ahead <= delta <= back with delta divisible by step, or j < sinks with delta >= -ahead. INT64_MAX stands
 * for an unbounded side. */
typedef struct ak_band { int64_t offset, back, ahead, step, sinks; } ak_band;

static int64_t band_reach(int64_t steps, int64_t dilation)
{
    if (steps < 0) return INT64_MAX;
    if (dilation == 1 || steps == 0) return steps;
    return steps > INT64_MAX / dilation ? INT64_MAX : steps * dilation;
}

static ak_band band_of(const ak_pattern *p)
{
    if (p->kind == AK_PAT_CAUSAL) return (ak_band){p->offset, INT64_MAX, 0, 1, 0};
    return (ak_band){p->offset, band_reach(p->left, p->dilation), band_reach(p->right, p->dilation), p->dilation, max64(p->sinks, 0)};
}

/* First key of a row at position pos, and one past its last; not clipped to the keys that exist. */
static int64_t band_first(const ak_band *b, int64_t pos) { return b->back == INT64_MAX ? 0 : sub_saturated(pos, b->back); }
static int64_t band_end(const ak_band *b, int64_t pos)
{
    return b->ahead == INT64_MAX ? INT64_MAX : add_saturated(add_saturated(pos, b->ahead), 1);
}

static void band_bits(const ak_band *b, int64_t row, int64_t base, uint64_t bits[AK_TILE_WORDS])
{
    int64_t pos = add_saturated(row, b->offset), lo = band_first(b, pos), hi = band_end(b, pos);
    if (b->step == 1) {
        set_interval(bits, base, lo, hi);
    } else {
        lo = max64(lo, base);
        hi = min64(hi, base + AK_TILE);
        if (lo < hi) {
            int64_t skip = floor_mod(sub_saturated(pos, lo), b->step);
            for (int64_t k = skip; k < hi - lo; k += b->step) {
                int64_t bit = lo - base + k;
                bits[bit / 64] |= UINT64_C(1) << (bit % 64);
                if (b->step >= AK_TILE) break; /* the next one is outside, and k + step might wrap */
            }
        }
    }
    set_interval(bits, base, 0, min64(hi, b->sinks));
}

/* State of the keys [k0, k1), not empty, under a band without sinks. Every delta from dmin to dmax occurs. */
static ak_tile_state band_state(const ak_band *b, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    int64_t dmin = sub_saturated(add_saturated(row0, b->offset), k1 - 1);
    int64_t dmax = sub_saturated(add_saturated(row1 - 1, b->offset), k0);
    int64_t lo = b->ahead == INT64_MAX ? dmin : max64(dmin, -b->ahead), hi = min64(dmax, b->back);
    if (lo > hi) return AK_TILE_EMPTY;
    if (b->step > 1 && sub_saturated(hi, floor_mod(hi, b->step)) < lo) return AK_TILE_EMPTY;
    return lo == dmin && hi == dmax && (b->step == 1 || dmin == dmax) ? AK_TILE_FULL : AK_TILE_PARTIAL;
}

static ak_tile_state both_states(ak_tile_state a, ak_tile_state b) { return a == b ? a : AK_TILE_PARTIAL; }

static ak_tile_state band_classify(const ak_band *b, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    int64_t cut = min64(b->sinks, k1);
    if (cut <= k0) return band_state(b, row0, row1, k0, k1);
    /* On the sink keys only the forward limit counts, and it includes what the window allows there. */
    ak_band forward = {b->offset, INT64_MAX, b->ahead, 1, 0};
    ak_tile_state sinks = band_state(&forward, row0, row1, k0, cut);
    return cut == k1 ? sinks : both_states(sinks, band_state(b, row0, row1, cut, k1));
}

/* ---- documents ------------------------------------------------------------------------------------------------ */

int ak_plan_segment_bounds(const int64_t *seg_k, int64_t lk, int64_t *seg_k_min, int64_t *seg_k_max)
{
    int sorted = 1;
    for (int64_t k0 = 0; k0 < lk; k0 += AK_TILE) {
        int64_t k1 = min64(lk - k0, AK_TILE) + k0, lo = seg_k[k0], hi = seg_k[k0];
        for (int64_t j = k0; j < k1; ++j) {
            lo = min64(lo, seg_k[j]);
            hi = max64(hi, seg_k[j]);
            sorted &= j == 0 || seg_k[j - 1] <= seg_k[j];
        }
        seg_k_min[k0 / AK_TILE] = lo;
        seg_k_max[k0 / AK_TILE] = hi;
    }
    return sorted;
}

/* First index in [a, b) whose value is >= x (or > x when `after`), else b. */
static int64_t bisect(const int64_t *values, int64_t a, int64_t b, int64_t x, int after)
{
    while (a < b) {
        int64_t mid = a + (b - a) / 2;
        if (values[mid] < x || (after && values[mid] == x)) a = mid + 1;
        else b = mid;
    }
    return a;
}

/* Smallest and largest segment of the keys [k0, k1): whole tiles, the last one may be cut by lk. */
static void segment_bounds_of(const ak_pattern *p, int64_t k0, int64_t k1, int64_t *lo, int64_t *hi)
{
    int64_t t = k0 / AK_TILE, last = (k1 - 1) / AK_TILE;
    *lo = p->seg_k_min[t];
    *hi = p->seg_k_max[p->seg_k_sorted ? last : t];
    if (p->seg_k_sorted) return;
    while (++t <= last) {
        *lo = min64(*lo, p->seg_k_min[t]);
        *hi = max64(*hi, p->seg_k_max[t]);
    }
}

/* Does segment `x`, strictly between the bounds of the keys, occur among them? Unsorted keys beyond one tile are
 * not searched (a yes costs only speed). */
static int segment_occurs(const ak_pattern *p, int64_t x, int64_t k0, int64_t k1)
{
    if (p->seg_k_sorted) {
        int64_t at = bisect(p->seg_k, k0, k1, x, 0);
        return at < k1 && p->seg_k[at] == x;
    }
    if (k1 - k0 > AK_TILE) return 1;
    for (int64_t j = k0; j < k1; ++j)
        if (p->seg_k[j] == x) return 1;
    return 0;
}

static ak_tile_state document_classify(const ak_pattern *p, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    int64_t lo, hi;
    segment_bounds_of(p, k0, k1, &lo, &hi);
    int any = 0, all = lo == hi; /* keys of two documents: no row sees them all */
    for (int64_t i = row0; i < row1; ++i) {
        int64_t x = p->seg_q[i];
        if (i > row0 && x == p->seg_q[i - 1]) continue;
        if (x == lo || x == hi || (lo < x && x < hi && segment_occurs(p, x, k0, k1))) any = 1;
        else all = 0;
        if (any && !all) return AK_TILE_PARTIAL;
    }
    return any ? AK_TILE_FULL : AK_TILE_EMPTY;
}

static void document_bits(const ak_pattern *p, int64_t row, int64_t base, int64_t end, uint64_t bits[AK_TILE_WORDS])
{
    int64_t x = p->seg_q[row], lo = p->seg_k_min[base / AK_TILE], hi = p->seg_k_max[base / AK_TILE];
    if (x < lo || x > hi) return;
    if (lo == hi) {
        set_interval(bits, base, base, end);
    } else if (p->seg_k_sorted) {
        int64_t first = bisect(p->seg_k, base, end, x, 0);
        set_interval(bits, base, first, bisect(p->seg_k, first, end, x, 1));
    } else {
        int64_t j = base;
        for (; j + 8 <= end; j += 8) { /* eight independent comparisons at a time: no chain through the word */
            uint64_t eight = 0;
            for (int b = 0; b < 8; ++b) eight |= (uint64_t)(p->seg_k[j + b] == x) << b;
            bits[(j - base) / 64] |= eight << ((j - base) % 64);
        }
        for (; j < end; ++j) bits[(j - base) / 64] |= (uint64_t)(p->seg_k[j] == x) << ((j - base) % 64);
    }
}

/* Tiles [*first, *last) whose bounds meet those of the rows. */
static void document_tiles(const ak_pattern *p, int64_t row0, int64_t row1, int64_t n_tiles, int64_t *first, int64_t *last)
{
    int64_t lo = p->seg_q[row0], hi = lo;
    for (int64_t i = row0 + 1; i < row1; ++i) {
        lo = min64(lo, p->seg_q[i]);
        hi = max64(hi, p->seg_q[i]);
    }
    if (p->seg_k_sorted) {
        *first = bisect(p->seg_k_max, 0, n_tiles, lo, 0);
        *last = bisect(p->seg_k_min, *first, n_tiles, hi, 1);
        return;
    }
    int64_t a = 0, b = n_tiles;
    while (a < b && (p->seg_k_max[a] < lo || p->seg_k_min[a] > hi)) ++a;
    while (b > a && (p->seg_k_max[b - 1] < lo || p->seg_k_min[b - 1] > hi)) --b;
    *first = a;
    *last = b;
}

/* ---- matrices: blocks and dense ------------------------------------------------------------------------------- */

static const char *matrix_of_head(const ak_pattern *p, const ak_plan *plan, const int64_t *index)
{
    const char *data = p->matrix.data;
    if (p->head_strides)
        for (int a = 0; a < plan->n_batch; ++a) data += (ptrdiff_t)index[a] * p->head_strides[a];
    return data;
}

/* Look at n entries; returns 1 once both kinds have been seen. */
static int see_entries(const char *data, ptrdiff_t stride, int64_t n, int *any, int *all)
{
    int64_t k = 0;
    if (stride == 0) n = min64(n, 1);
    if (stride == 1) {
        for (; k + 8 <= n; k += 8) {
            uint64_t ones = nonzero_bytes(load_bytes(data + k));
            if (ones) *any = 1;
            if (ones != UINT64_C(0x0101010101010101)) *all = 0;
            if (*any && !*all) return 1;
        }
    }
    for (; k < n; ++k) {
        if (data[(ptrdiff_t)k * stride]) *any = 1;
        else *all = 0;
        if (*any && !*all) return 1;
    }
    return 0;
}

/* State of rows [i0, i1) x columns [j0, j1) of a matrix, not empty. */
static ak_tile_state matrix_state(const ak_matrix *m, const char *data, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    int any = 0, all = 1;
    if (m->row_stride == 0) i1 = i0 + 1;
    for (int64_t i = i0; i < i1; ++i) {
        const char *row = data + (ptrdiff_t)i * m->row_stride + (ptrdiff_t)j0 * m->col_stride;
        if (see_entries(row, m->col_stride, j1 - j0, &any, &all)) return AK_TILE_PARTIAL;
    }
    return any ? AK_TILE_FULL : AK_TILE_EMPTY;
}

static ak_tile_state blocks_classify(const ak_pattern *p, const char *data, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    return matrix_state(&p->matrix, data, row0 / p->block_q, (row1 - 1) / p->block_q + 1, k0 / p->block_k, (k1 - 1) / p->block_k + 1);
}

static void blocks_bits(const ak_pattern *p, const char *data, int64_t row, int64_t base, int64_t end, uint64_t bits[AK_TILE_WORDS])
{
    const char *blocks = data + (ptrdiff_t)(row / p->block_q) * p->matrix.row_stride;
    for (int64_t k0 = base; k0 < end;) {
        int64_t b = k0 / p->block_k, left = p->block_k - k0 % p->block_k, k1 = k0 + min64(left, end - k0);
        if (blocks[(ptrdiff_t)b * p->matrix.col_stride]) set_interval(bits, base, k0, k1);
        k0 = k1;
    }
}

/* Is any block of column b set in the block rows [i0, i1)? */
static int blocks_column(const ak_pattern *p, const char *data, int64_t i0, int64_t i1, int64_t b)
{
    for (int64_t i = i0; i < i1; ++i)
        if (data[(ptrdiff_t)i * p->matrix.row_stride + (ptrdiff_t)b * p->matrix.col_stride]) return 1;
    return 0;
}

/* Keys [*lo, *hi) from the first to the last block that any of the rows may see. */
static void blocks_hull(const ak_pattern *p, const char *data, int64_t row0, int64_t row1, int64_t lk, int64_t *lo, int64_t *hi)
{
    int64_t i0 = row0 / p->block_q, i1 = (row1 - 1) / p->block_q + 1, a = 0, b = ceil_div(lk, p->block_k);
    while (a < b && !blocks_column(p, data, i0, i1, a)) ++a;
    while (b > a && !blocks_column(p, data, i0, i1, b - 1)) --b;
    *lo = a < b ? a * p->block_k : 0;
    *hi = a >= b ? 0 : b > lk / p->block_k ? lk : b * p->block_k;
}

static void dense_bits(const ak_pattern *p, const char *data, int64_t row, int64_t base, int64_t end, uint64_t bits[AK_TILE_WORDS])
{
    ptrdiff_t stride = p->matrix.col_stride;
    int64_t n = end - base, k = 0;
    data += (ptrdiff_t)row * p->matrix.row_stride + (ptrdiff_t)base * stride;
    if (stride == 0) {
        if (n > 0 && *data) set_interval(bits, base, base, end);
        return;
    }
    if (stride == 1) {
        for (; k + 64 <= n; k += 64) { /* whole words stay in a register */
            uint64_t word = 0;
            for (int b = 0; b < 64; b += 8) word |= pack_bytes(nonzero_bytes(load_bytes(data + k + b))) << b;
            bits[k / 64] |= word;
        }
        for (; k + 8 <= n; k += 8) bits[k / 64] |= pack_bytes(nonzero_bytes(load_bytes(data + k))) << (k % 64);
    }
    for (; k + 8 <= n; k += 8) {
        uint64_t eight = 0;
        for (int b = 0; b < 8; ++b) eight |= (uint64_t)(data[(ptrdiff_t)(k + b) * stride] != 0) << b;
        bits[k / 64] |= eight << (k % 64);
    }
    for (; k < n; ++k) bits[k / 64] |= (uint64_t)(data[(ptrdiff_t)k * stride] != 0) << (k % 64);
}

/* ---- states --------------------------------------------------------------------------------------------------- */

/* State of one pattern on rows [row0, row1) x keys [k0, k1), both not empty; keys are whole tiles, cut by lk. */
static ak_tile_state leaf_state(const ak_plan *plan, const ak_pattern *p, const int64_t *index, int64_t row0, int64_t row1, int64_t k0,
                                int64_t k1)
{
    ak_band band;
    switch (p->kind) {
    case AK_PAT_CAUSAL:
    case AK_PAT_WINDOW:
        band = band_of(p);
        return band_classify(&band, row0, row1, k0, k1);
    case AK_PAT_DOCUMENT: return document_classify(p, row0, row1, k0, k1);
    case AK_PAT_PREFIX: return k1 <= p->n ? AK_TILE_FULL : k0 >= p->n ? AK_TILE_EMPTY : AK_TILE_PARTIAL;
    case AK_PAT_BLOCKS: return blocks_classify(p, matrix_of_head(p, plan, index), row0, row1, k0, k1);
    case AK_PAT_DENSE: return matrix_state(&p->matrix, matrix_of_head(p, plan, index), row0, row1, k0, k1);
    default: return AK_TILE_FULL; /* AK_PAT_ALL; operators never come here */
    }
}

static ak_tile_state keys_state(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    ak_tile_state stack[AK_PLAN_MAX_DEPTH] = {AK_TILE_FULL};
    int top = 0;
    for (int i = 0; i < plan->n_nodes; ++i) {
        const ak_pattern *p = &plan->nodes[i];
        if (p->kind == AK_PAT_NOT) {
            ak_tile_state s = stack[top - 1];
            stack[top - 1] = s == AK_TILE_PARTIAL ? s : s == AK_TILE_FULL ? AK_TILE_EMPTY : AK_TILE_FULL;
        } else if (p->kind == AK_PAT_AND || p->kind == AK_PAT_OR) {
            /* One side at its absorbing state decides; else both must be at the neutral one. */
            ak_tile_state absorbing = p->kind == AK_PAT_AND ? AK_TILE_EMPTY : AK_TILE_FULL;
            ak_tile_state a = stack[top - 2], b = stack[top - 1];
            stack[--top - 1] = a == absorbing || b == absorbing ? absorbing : both_states(a, b);
        } else {
            stack[top++] = leaf_state(plan, p, index, row0, row1, k0, k1);
        }
    }
    return stack[0];
}

ak_tile_state ak_plan_classify(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t tile)
{
    if (row0 >= row1 || tile < 0 || tile >= ak_plan_n_tiles(plan->lk)) return AK_TILE_EMPTY;
    int64_t k0 = tile * AK_TILE;
    return keys_state(plan, index, row0, row1, k0, k0 + min64(plan->lk - k0, AK_TILE));
}

/* ---- bits ----------------------------------------------------------------------------------------------------- */

static void leaf_bits(const ak_plan *plan, const ak_pattern *p, const int64_t *index, int64_t row, int64_t base, int64_t end,
                      uint64_t bits[AK_TILE_WORDS])
{
    ak_band band;
    for (int w = 0; w < AK_TILE_WORDS; ++w) bits[w] = 0;
    switch (p->kind) {
    case AK_PAT_CAUSAL:
    case AK_PAT_WINDOW:
        band = band_of(p);
        band_bits(&band, row, base, bits);
        break;
    case AK_PAT_DOCUMENT: document_bits(p, row, base, end, bits); break;
    case AK_PAT_PREFIX: set_interval(bits, base, base, p->n); break;
    case AK_PAT_BLOCKS: blocks_bits(p, matrix_of_head(p, plan, index), row, base, end, bits); break;
    case AK_PAT_DENSE: dense_bits(p, matrix_of_head(p, plan, index), row, base, end, bits); break;
    default: set_interval(bits, base, base, end); break;
    }
}

void ak_plan_row_bits(const ak_plan *plan, const int64_t *index, int64_t row, int64_t tile, uint64_t bits[AK_TILE_WORDS])
{
    uint64_t stack[AK_PLAN_MAX_DEPTH][AK_TILE_WORDS];
    int top = 0;
    for (int w = 0; w < AK_TILE_WORDS; ++w) bits[w] = stack[0][w] = 0;
    if (tile < 0 || tile >= ak_plan_n_tiles(plan->lk)) return;
    int64_t base = tile * AK_TILE, end = base + min64(plan->lk - base, AK_TILE);
    if (plan->n_nodes == 0) set_interval(stack[0], base, base, end);
    for (int i = 0; i < plan->n_nodes; ++i) {
        const ak_pattern *p = &plan->nodes[i];
        if (p->kind == AK_PAT_NOT) {
            for (int w = 0; w < AK_TILE_WORDS; ++w) stack[top - 1][w] = ~stack[top - 1][w];
        } else if (p->kind == AK_PAT_AND) {
            --top;
            for (int w = 0; w < AK_TILE_WORDS; ++w) stack[top - 1][w] &= stack[top][w];
        } else if (p->kind == AK_PAT_OR) {
            --top;
            for (int w = 0; w < AK_TILE_WORDS; ++w) stack[top - 1][w] |= stack[top][w];
        } else {
            leaf_bits(plan, p, index, row, base, end, stack[top++]);
        }
    }
    for (int64_t w = 0; w < AK_TILE_WORDS; ++w) bits[w] = stack[0][w] & low_bits(end - base - 64 * w);
}

/* ---- ranges --------------------------------------------------------------------------------------------------- */

/* Tiles that may hold an allowed pair, and tiles that may hold a forbidden one. Keeping both lets NOT swap them
 * and AND and OR use De Morgan, so a negated band is still a narrow range. */
typedef struct ak_hull { int64_t first, last, not_first, not_last; } ak_hull;

/* Keys [lo, hi), clipped to [0, lk), as tiles. */
static void keys_to_tiles(int64_t lo, int64_t hi, int64_t lk, int64_t *first, int64_t *last)
{
    lo = max64(lo, 0);
    hi = min64(hi, lk);
    *first = lo < hi ? lo / AK_TILE : 0;
    *last = lo < hi ? ceil_div(hi, AK_TILE) : 0;
}

static void intersect(int64_t *first, int64_t *last, int64_t first2, int64_t last2)
{
    *first = max64(*first, first2);
    *last = min64(*last, last2);
    if (*first >= *last) *first = *last = 0;
}

static void unite(int64_t *first, int64_t *last, int64_t first2, int64_t last2)
{
    if (first2 >= last2) return;
    *first = *first >= *last ? first2 : min64(*first, first2);
    *last = max64(*last, last2);
}

static void band_hull(const ak_band *b, int64_t row0, int64_t row1, int64_t lk, ak_hull *h)
{
    int64_t pos0 = add_saturated(row0, b->offset), pos1 = add_saturated(row1 - 1, b->offset), first, last;
    keys_to_tiles(band_first(b, pos0), band_end(b, pos1), lk, &h->first, &h->last);
    keys_to_tiles(0, min64(b->sinks, band_end(b, pos1)), lk, &first, &last);
    unite(&h->first, &h->last, first, last);
    if (b->step > 1) return; /* forbidden pairs everywhere, as the caller has set */
    /* Forbidden: behind the back end of the last row, or ahead of the front end of the first one. */
    keys_to_tiles(b->sinks, b->back == INT64_MAX ? 0 : band_first(b, pos1), lk, &h->not_first, &h->not_last);
    keys_to_tiles(band_end(b, pos0), lk, lk, &first, &last);
    unite(&h->not_first, &h->not_last, first, last);
}

static ak_hull leaf_hull(const ak_plan *plan, const ak_pattern *p, const int64_t *index, int64_t row0, int64_t row1)
{
    int64_t n_tiles = ak_plan_n_tiles(plan->lk), lo, hi;
    ak_hull h = {0, n_tiles, 0, n_tiles};
    ak_band band;
    switch (p->kind) {
    case AK_PAT_CAUSAL:
    case AK_PAT_WINDOW:
        band = band_of(p);
        band_hull(&band, row0, row1, plan->lk, &h);
        break;
    case AK_PAT_DOCUMENT: document_tiles(p, row0, row1, n_tiles, &h.first, &h.last); break;
    case AK_PAT_PREFIX:
        keys_to_tiles(0, p->n, plan->lk, &h.first, &h.last);
        keys_to_tiles(p->n, plan->lk, plan->lk, &h.not_first, &h.not_last);
        break;
    case AK_PAT_BLOCKS:
        blocks_hull(p, matrix_of_head(p, plan, index), row0, row1, plan->lk, &lo, &hi);
        keys_to_tiles(lo, hi, plan->lk, &h.first, &h.last);
        break;
    case AK_PAT_DENSE: break; /* reading the bytes here would only double what classify does */
    default: h.not_last = 0; break;
    }
    return h;
}

void ak_plan_tile_range(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t *first, int64_t *last)
{
    ak_hull stack[AK_PLAN_MAX_DEPTH] = {{0, 0, 0, 0}};
    int top = 0;
    *first = *last = 0;
    if (row0 >= row1 || plan->lk <= 0) return;
    if (plan->n_nodes == 0) stack[0].last = ak_plan_n_tiles(plan->lk);
    for (int i = 0; i < plan->n_nodes; ++i) {
        const ak_pattern *p = &plan->nodes[i];
        if (p->kind == AK_PAT_NOT) {
            ak_hull h = stack[top - 1];
            stack[top - 1] = (ak_hull){h.not_first, h.not_last, h.first, h.last};
        } else if (p->kind == AK_PAT_AND || p->kind == AK_PAT_OR) {
            ak_hull *a = &stack[top - 2], b = stack[top - 1];
            --top;
            if (p->kind == AK_PAT_AND) {
                intersect(&a->first, &a->last, b.first, b.last);
                unite(&a->not_first, &a->not_last, b.not_first, b.not_last);
            } else {
                unite(&a->first, &a->last, b.first, b.last);
                intersect(&a->not_first, &a->not_last, b.not_first, b.not_last);
            }
        } else {
            stack[top++] = leaf_hull(plan, p, index, row0, row1);
        }
    }
    *first = stack[0].first;
    *last = stack[0].last;
}

/* ---- counts --------------------------------------------------------------------------------------------------- */

/* One block row being counted: key blocks are met in ascending order, so one open block is enough. */
typedef struct ak_count_row {
    const ak_plan *plan;
    const int64_t *index;
    int64_t row0, row1, block_k;
    int64_t open_block, open_pairs; /* the block whose pairs are still coming in */
    int64_t row_tiles;
    ak_tile_counts *out;
} ak_count_row;

static void count_close(ak_count_row *c)
{
    if (c->open_pairs > 0) {
        int64_t k0 = c->open_block * c->block_k, area = (c->row1 - c->row0) * min64(c->block_k, c->plan->lk - k0);
        c->out->visited += 1;
        c->out->full += c->open_pairs == area;
        c->out->pairs += c->open_pairs;
        c->out->visited_pairs += area;
        c->row_tiles += 1;
    }
    c->open_pairs = 0;
}

static void count_add(ak_count_row *c, int64_t block, int64_t pairs)
{
    if (block != c->open_block) count_close(c);
    c->open_block = block;
    c->open_pairs += pairs;
}

/* Keys [k0, k1) are allowed for every row of the block row. */
static void count_full(ak_count_row *c, int64_t k0, int64_t k1)
{
    int64_t rows = c->row1 - c->row0, b0 = k0 / c->block_k, b1 = (k1 - 1) / c->block_k, inner = b1 - b0 - 1;
    if (b0 == b1) {
        count_add(c, b0, rows * (k1 - k0));
        return;
    }
    count_add(c, b0, rows * (c->block_k - k0 % c->block_k));
    if (inner > 0) {
        c->out->visited += inner;
        c->out->full += inner;
        c->out->pairs += rows * inner * c->block_k;
        c->out->visited_pairs += rows * inner * c->block_k;
        c->row_tiles += inner;
    }
    count_add(c, b1, rows * (k1 - b1 * c->block_k));
}

/* A partial tile: one pass over its rows, their bits shared out to the key blocks that the tile overlaps. */
static void count_bits(ak_count_row *c, int64_t k0, int64_t k1)
{
    int64_t pairs[AK_TILE] = {0}, b0 = k0 / c->block_k, n_blocks = (k1 - 1) / c->block_k - b0 + 1;
    for (int64_t i = c->row0; i < c->row1; ++i) {
        uint64_t bits[AK_TILE_WORDS];
        ak_plan_row_bits(c->plan, c->index, i, k0 / AK_TILE, bits);
        for (int64_t n = 0; n < n_blocks; ++n) {
            int64_t lo = max64((b0 + n) * c->block_k - k0, 0);
            int64_t hi = n + 1 == n_blocks ? k1 - k0 : (b0 + n + 1) * c->block_k - k0;
            for (int64_t w = lo / 64; w <= (hi - 1) / 64; ++w)
                pairs[n] += popcount64(bits[w] & low_bits(hi - 64 * w) & ~low_bits(lo - 64 * w));
        }
    }
    for (int64_t n = 0; n < n_blocks; ++n)
        if (pairs[n]) count_add(c, b0 + n, pairs[n]);
}

/* Tiles [t0, t1), halved until each piece is empty, full or one tile; the depth is at most 54. */
static void count_tiles(ak_count_row *c, int64_t t0, int64_t t1)
{
    int64_t k0 = t0 * AK_TILE, k1 = t1 > c->plan->lk / AK_TILE ? c->plan->lk : t1 * AK_TILE;
    switch (keys_state(c->plan, c->index, c->row0, c->row1, k0, k1)) {
    case AK_TILE_EMPTY: break;
    case AK_TILE_FULL: count_full(c, k0, k1); break;
    case AK_TILE_PARTIAL:
        if (t1 - t0 == 1) {
            count_bits(c, k0, k1);
        } else {
            count_tiles(c, t0, t0 + (t1 - t0) / 2);
            count_tiles(c, t0 + (t1 - t0) / 2, t1);
        }
        break;
    }
}

void ak_plan_count_rows(const ak_plan *plan, const int64_t *index, int64_t block_q, int64_t block_k, int64_t first, int64_t last,
                        ak_tile_counts *counts)
{
    for (int64_t b = first; b < last; ++b) {
        int64_t row0 = b * block_q, t0, t1;
        ak_count_row c = {plan, index, row0, row0 + min64(block_q, plan->lq - row0), block_k, 0, 0, 0, counts};
        counts->tiles += ceil_div(plan->lk, block_k);
        ak_plan_tile_range(plan, index, c.row0, c.row1, &t0, &t1);
        if (t0 < t1) count_tiles(&c, t0, t1);
        count_close(&c);
        counts->max_row_tiles = max64(counts->max_row_tiles, c.row_tiles);
    }
}

void ak_plan_count(const ak_plan *plan, const int64_t *index, int64_t block_q, int64_t block_k, ak_tile_counts *counts)
{
    *counts = (ak_tile_counts){0, 0, 0, 0, 0, 0};
    ak_plan_count_rows(plan, index, block_q, block_k, 0, ceil_div(plan->lq, block_q), counts);
}

/* ---- rectangles ----------------------------------------------------------------------------------------------- */

enum { RECT_ROWS = 16 }; /* so few rows of one tile are read bit by bit instead of being split again */

/* Look at rows [row0, row1) x keys [k0, k1), not empty; returns 1 once both kinds of pair have been seen. */
static int see_rect(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t k0, int64_t k1, int *any, int *all)
{
    int64_t t0 = k0 / AK_TILE, t1 = (k1 - 1) / AK_TILE + 1, n_rows = row1 - row0;
    int64_t end = t1 > plan->lk / AK_TILE ? plan->lk : t1 * AK_TILE;
    ak_tile_state state = keys_state(plan, index, row0, row1, t0 * AK_TILE, end);
    if (state == AK_TILE_EMPTY) *all = 0;
    if (state == AK_TILE_FULL) *any = 1;
    if (state != AK_TILE_PARTIAL) return *any && !*all;
    if (t1 - t0 > 1 && k1 - k0 > n_rows) {
        int64_t mid = (t0 + (t1 - t0) / 2) * AK_TILE;
        return see_rect(plan, index, row0, row1, k0, mid, any, all) || see_rect(plan, index, row0, row1, mid, k1, any, all);
    }
    if (n_rows > RECT_ROWS || t1 - t0 > 1) {
        int64_t mid = row0 + n_rows / 2;
        return see_rect(plan, index, row0, mid, k0, k1, any, all) || see_rect(plan, index, mid, row1, k0, k1, any, all);
    }
    for (int64_t i = row0; i < row1; ++i) {
        uint64_t bits[AK_TILE_WORDS];
        ak_plan_row_bits(plan, index, i, t0, bits);
        for (int64_t w = 0; w < AK_TILE_WORDS; ++w) {
            int64_t at = t0 * AK_TILE + 64 * w;
            uint64_t inside = low_bits(k1 - at) & ~low_bits(k0 - at);
            if (bits[w] & inside) *any = 1;
            if (~bits[w] & inside) *all = 0;
        }
        if (*any && !*all) return 1;
    }
    return 0;
}

ak_tile_state ak_plan_rect_state(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t key0, int64_t key1)
{
    int any = 0, all = 1;
    key0 = max64(key0, 0);
    key1 = min64(key1, plan->lk);
    if (row0 >= row1 || key0 >= key1) return AK_TILE_EMPTY;
    if (see_rect(plan, index, row0, row1, key0, key1, &any, &all)) return AK_TILE_PARTIAL;
    return any ? AK_TILE_FULL : AK_TILE_EMPTY;
}
