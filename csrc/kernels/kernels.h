/* The tile kernels of one target: a table of functions for float (f32) and one for double (f64).
 *
 * Contract shared by all (docs/kernels.md tells the reasons):
 *  - A tile is up to 48 rows by 256 keys of scores, row-major with AK_TILE elements between rows. Lanes are keys.
 *  - Packed keys: panels of VL keys (VL = 16 floats or 8 doubles), each [d][VL]; lanes past the last key hold
 *    anything, `mask` forbids them.
 *    Packed values: panels of VL features, each [AK_TILE][VL], features past the last zero; only rows below the
 *    number of keys are written or read.
 *  - Buffers are 64-byte aligned scratch of core/memory.h unless a parameter says `view`; a view may have any
 *    strides and any alignment. No two pointers of a call alias.
 *  - Reduction order: dot products run over features with fused multiply-add from 0; a tile's P V runs over its keys
 *    from 0 and is added to the accumulator with one fused multiply-add; sums over keys keep VL running lanes, reduced
 *    by the fixed tree once per chunk. How rows are blocked never changes a byte.
 *  - Scores are in units of ln 16 when they go to weights (the factor 1 / ln 16 is folded into the queries and operands).
 *  - A key that is not allowed has score -inf and is given weight exactly 0. NaN scores stay NaN.
 * No function allocates, fails or calls out. */
#ifndef AK_KERNELS_KERNELS_H
#define AK_KERNELS_KERNELS_H
#include <stddef.h>
#include <stdint.h>
#include "../core/views.h"

enum {
    AK_BLOCK_ROWS = 48,          /* rows of a block; a multiple of the register blocks */
    AK_GROUP_ROWS = 6,           /* rows that share one key range in a partial tile */
    AK_BLOCK_GROUPS = AK_BLOCK_ROWS / AK_GROUP_ROWS,
    AK_CHUNK_TILES = 16,         /* a chunk is 16 tiles = 4096 keys: the unit of split-KV */
    AK_CHUNK = AK_CHUNK_TILES * AK_TILE,
    AK_STREAM_KEYS = 64          /* keys packed at a time when few rows stream long K and V */
};

/* What a row keeps beside the weighted values: bits of `stats`. */
enum {
    AK_STAT_ENTROPY = 1,  /* t = sum p2 (m - s), l1 = l without its one largest term */
    AK_STAT_PURITY = 2,   /* r2 = sum p^2 */
    AK_STAT_DISTANCE = 4, /* d1, d2, da = sum p delta, p delta^2, p |delta| */
    AK_STAT_ARGMAX = 8,
    AK_STAT_COUNT = 16,   /* number of allowed keys */
    AK_STAT_TOPK = 32,
    AK_STAT_GROUPS = 64,  /* mass by key group */
    AK_STAT_SINK = 128    /* mass of the first sink_size keys */
};

/* A block of rows: what is common to all tiles it meets. Row arrays have n_rows entries. */
typedef struct ak_rows {
    int n_rows;
    int64_t index[AK_BLOCK_ROWS];    /* query row i within its head */
    int64_t position[AK_BLOCK_ROWS]; /* i + offset */
    int64_t head[AK_BLOCK_ROWS];     /* flat head number */
} ak_rows;

/* One tile of scores in flight. */
typedef struct ak_tile {
    void *s;              /* scores, then weights: n_rows x AK_TILE */
    int n_rows;
    int64_t key0;         /* absolute index of the first key */
    int n_keys;           /* keys in the tile, 1 .. AK_TILE */
    int col0, col1;       /* columns in use: multiples of the lane count that cover all group ranges */
    int has_bits;         /* bits are valid and must be applied */
    int forbidden;        /* some bits are clear: a partial tile, or a score operation cleared them */
    int group_first[AK_BLOCK_GROUPS], group_last[AK_BLOCK_GROUPS]; /* half-open key range of each group of rows */
    const ak_rows *rows;
    uint64_t (*bits)[AK_TILE_WORDS]; /* allowed keys of each row */
} ak_tile;

/* Score operations: one row each in score_ops.def. `bound` operands are resolved for the block. */
typedef enum ak_score_kind {
#define AK_SCORE_OP(NAME, function, masks) AK_SCORE_##NAME,
#include "score_ops.def"
#undef AK_SCORE_OP
    AK_SCORE_COUNT
} ak_score_kind;

typedef struct ak_bound_step {
    ak_score_kind kind;
    double unit;              /* what a natural unit of score is worth in the tile: 1 / ln 16, or 1 for plain logits */
    double value;             /* SOFTCAP: the cap; */
    double row_value[AK_BLOCK_ROWS];     /* ALIBI: slope of each row */
    const char *row_data[AK_BLOCK_ROWS]; /* BIAS: view of row i of the matrix, first key of the call */
    ptrdiff_t col_stride;     /* BIAS: bytes */
    ak_dtype dtype;
} ak_bound_step;

/* Running state of a block within a chunk. `lanes` arrays are REAL[n_rows][VL], REAL being the kernel's type. d1, d2, da
 * and argmax are the arrays of the chunk's ak_row_state, updated in place; argmax may be NULL. */
typedef struct ak_row_lanes {
    void *m;              /* REAL[n_rows]: running maximum, in units of ln 16 */
    void *l;              /* lanes */
    void *t, *u, *c, *r2; /* lanes; read and written only with ENTROPY, PURITY or DISTANCE */
    double *d1, *d2, *da;
    int64_t *argmax;
    void *alpha;          /* REAL[n_rows]: factor of the last tile for what came before it */
} ak_row_lanes;

/* A finished state of a block: plain arrays, merged along the tree of chunks. */
typedef struct ak_row_state {
    void *m, *l, *l1, *t, *r2;     /* REAL[n_rows] */
    double *d1, *d2, *da, *sink;   /* [n_rows] */
    double *groups;                /* [n_rows][n_groups] */
    int64_t *argmax, *count;       /* [n_rows] */
    void *top_s;                   /* REAL[n_rows][topk], descending */
    int64_t *top_j;                /* [n_rows][topk] */
    void *acc;                     /* REAL[n_rows][acc_stride] */
} ak_row_state;

typedef struct ak_state_shape {
    int n_rows, stats, n_groups, topk;
    ptrdiff_t acc_stride;          /* 0 = no values */
} ak_state_shape;

/* Where final numbers of a block go: double[n_rows] each (group_mass [n_rows][n_groups], topk_weight [n_rows][topk]); NULL
 * where not wanted. */
typedef struct ak_report {
    double *lse, *entropy, *purity, *max_weight, *mean_logit, *sink_logit_mass;
    double *distance, *distance_sq, *abs_distance, *sink_mass, *group_mass, *topk_weight;
} ak_report;

/* One typed set of kernels. `REAL` is float or double. */
typedef struct ak_tile_kernels {
    int lanes;       /* VL */

    /* Keys j0 .. j0+n-1 of a view to panels. */
    void (*pack_keys)(const ak_matrix *k, int64_t j0, int n, int d, void *panels);
    /* Values likewise; panel_stride in elements. Returns 1 when all of them are finite. */
    int (*pack_values)(const ak_matrix *v, int64_t j0, int n, int dv, void *panels, ptrdiff_t panel_stride);
    /* Is every value of a view's rows finite? For values that are read in place. */
    int (*values_finite)(const ak_matrix *v, int64_t j0, int n, int dv);
    /* One row of a view, times factor, rounded once. */
    void (*load_row)(const ak_matrix *x, int64_t row, int n, double factor, void *dst);
    /* n elements to a view row, canonical NaN and zero. */
    void (*store_row)(const void *src, int n, char *dst, ptrdiff_t col_stride, ak_dtype dtype);

    /* S = Q K^T for the columns [col0, col1) of the tile; q is n_rows x d; panels start at column `col0` of the tile. */
    void (*scores)(const void *q, int d, const void *panels, ak_tile *tile);
    void (*score_ops[AK_SCORE_COUNT])(const ak_bound_step *step, ak_tile *tile);
    /* Scores of keys that are not allowed become -inf: from bits, or past n_keys when the tile has none. */
    void (*mask)(ak_tile *tile);
    /* Scores to weights relative to the new running maximum; updates lanes; writes alpha. Returns 1 when some alpha is not 1. */
    void (*weights)(ak_tile *tile, int stats, const ak_row_lanes *lanes);
    /* acc = alpha * acc + P V over the group ranges. v: first value row of the tile: packed (panel_stride, row_stride = VL) or
     * in place (panel_stride = VL, row_stride of the view in elements). */
    void (*values)(const ak_tile *tile, const void *v, ptrdiff_t row_stride, ptrdiff_t panel_stride, int n_panels, const void *alpha,
                   void *acc, ptrdiff_t acc_stride);
    /* The same bytes for a tile whose values hold NaN or infinity at keys that some rows may not see. */
    void (*values_skipping)(const ak_tile *tile, const void *v, ptrdiff_t row_stride, ptrdiff_t panel_stride, int n_panels,
                            const void *alpha, void *acc, ptrdiff_t acc_stride);

    /* Accumulators beside the weights. top_scores reads scores (before `weights`), the masses read weights. */
    void (*top_scores)(const ak_tile *tile, int topk, void *top_s, int64_t *top_j);
    void (*group_mass)(const ak_tile *tile, const void *alpha, const int32_t *group, int n_groups, double *mass);
    void (*sink_mass)(const ak_tile *tile, const void *alpha, int64_t sink_size, double *mass);

    /* Start a chunk: the empty state. End it: lanes to the chunk's state (acc and the doubles are there already). */
    void (*lanes_reset)(int n_rows, int stats, const ak_row_lanes *lanes);
    void (*lanes_finish)(int n_rows, int stats, const ak_row_lanes *lanes, ak_row_state *state);
    /* a <- a merged with b, b the side of higher keys. */
    void (*state_merge)(const ak_state_shape *shape, ak_row_state *a, const ak_row_state *b);
    /* A sink logit per row (natural units) as one more key without value. */
    void (*state_sink)(const ak_state_shape *shape, ak_row_state *a, const double *logits);
    /* Final numbers; `keys` has the m, l and t of the state before a sink logit was merged (or is the state). */
    void (*state_report)(const ak_state_shape *shape, const ak_row_state *state, const ak_row_state *keys, const double *sink,
                         const ak_report *to);
    /* Indices of rows with a NaN score become -1; after state_report. */
    void (*state_indices)(const ak_state_shape *shape, ak_row_state *state);
    /* acc <- acc / l, 0 for empty rows */
    void (*state_out)(const ak_state_shape *shape, const ak_row_state *state);

    /* 16^(s - m_r) * inv_r in place for the columns in use; weights of the final map. */
    void (*probabilities)(ak_tile *tile, const void *m, const void *inv);
    /* Tile weights times a factor for the values only (dropout): p_rj *= z where keep_rj, else 0; keep is a view of bytes. */
    void (*dropout)(ak_tile *tile, const char *const *keep_rows, ptrdiff_t col_stride, double z);
    /* sum[j] += w_r p_rj and max[j] = max(max[j], p_rj), rows in order; columns in use. */
    void (*columns)(const ak_tile *tile, const void *row_weight, void *sum, void *max);
} ak_tile_kernels;

typedef struct ak_simd_probe ak_simd_probe;
typedef struct ak_kernels {
    const char *word;
    const ak_tile_kernels *f32, *f64;
    const ak_simd_probe *probes; /* the vector layer, for tests */
    int n_probes;
} ak_kernels;

#endif
