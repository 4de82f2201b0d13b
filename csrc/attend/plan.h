/* Mask plans: which (query, key) pairs exist, as a small expression tree over patterns.
 *
 * Query row i of the call sits at position i + offset (offset = Lk - Lq unless the pattern carries its own), key j
 * at position j; delta = i + offset - j. Keys are cut in tiles of AK_TILE = 256 at absolute multiples of 256. The
 * executor asks three questions: which tiles can a block of rows touch (tile_range), is a tile empty, full or partial
 * for the block (classify), and the exact bits of one row in one tile (row_bits). classify may answer PARTIAL
 * for a tile that is really full or empty: results do not depend on it, only speed does. Everything here is plain
 * integer work: no SIMD, no Python, no allocation. A single pattern is classified exactly; only AND and OR of two
 * partial tiles are answered from the outside.
 *
 * Domain: 0 <= lq, lk <= AK_PLAN_MAX_EXTENT and |offset| <= AK_PLAN_MAX_EXTENT; windows, sinks and prefixes may be
 * any int64. Inside it no sum wraps and every answer is exact. The binding checks it. */
#ifndef AK_ATTEND_PLAN_H
#define AK_ATTEND_PLAN_H
#include <stddef.h>
#include <stdint.h>
#include "../core/views.h"

typedef enum ak_pattern_kind {
    AK_PAT_ALL,      /* every pair */
    AK_PAT_CAUSAL,   /* delta >= 0 */
    AK_PAT_WINDOW,   /* -right*dilation <= delta <= left*dilation (a negative bound = unbounded on that side), delta divisible by
                        dilation; or j < sinks with delta >= -right*dilation (all deltas when right is unbounded) */
    AK_PAT_DOCUMENT, /* seg_q[i] == seg_k[j]: int64 arrays */
    AK_PAT_PREFIX,   /* j < n (keys of the prefix are seen by all) */
    AK_PAT_BLOCKS,   /* block_mask[i / block_q][j / block_k] != 0: a (nQ, nK) byte matrix, per head when strides say so */
    AK_PAT_DENSE,    /* bool matrix (Lq, Lk), per head when strides say so, any strides */
    AK_PAT_AND, AK_PAT_OR, AK_PAT_NOT /* operators: children are the preceding nodes, postfix order */
} ak_pattern_kind;

typedef struct ak_pattern {
    ak_pattern_kind kind;
    int64_t offset;               /* CAUSAL, WINDOW: position of row 0 */
    int64_t left, right, sinks, dilation; /* WINDOW; dilation >= 1 */
    int64_t n;                    /* PREFIX */
    const int64_t *seg_q, *seg_k; /* DOCUMENT, contiguous */
    const int64_t *seg_k_min, *seg_k_max; /* DOCUMENT: per key tile minimum and maximum, made by ak_plan_segment_bounds */
    int seg_k_sorted;             /* DOCUMENT: seg_k never decreases; a row is then found by bisection */
    ak_matrix matrix;             /* BLOCKS, DENSE: strides of the last two axes (bytes, 1-byte elements, non-zero = allowed) */
    int64_t block_q, block_k;     /* BLOCKS */
    const ptrdiff_t *head_strides;/* BLOCKS, DENSE: byte strides of the broadcast leading axes (n_batch of them) or NULL = shared */
} ak_pattern;

typedef struct ak_plan {
    const ak_pattern *nodes; /* postfix; n_nodes 0 = every pair is allowed */
    int n_nodes;
    int64_t lq, lk;
    int n_batch;
} ak_plan;

typedef enum ak_tile_state { AK_TILE_EMPTY, AK_TILE_FULL, AK_TILE_PARTIAL } ak_tile_state;

/* MAX_DEPTH is the number of results that evaluating the postfix list may have to hold at once. */
enum { AK_PLAN_MAX_NODES = 64, AK_PLAN_MAX_DEPTH = 16 };
#define AK_PLAN_MAX_EXTENT ((int64_t)1 << 62)

/* Number of key tiles of a plan; does not wrap for any lk. */
static inline int64_t ak_plan_n_tiles(int64_t lk) { return lk / AK_TILE + (lk % AK_TILE != 0); }

/* Fill the tables of a DOCUMENT pattern: ak_plan_n_tiles(lk) minima and maxima. Returns whether seg_k is sorted. */
int ak_plan_segment_bounds(const int64_t *seg_k, int64_t lk, int64_t *seg_k_min, int64_t *seg_k_max);

/* `index`: the n_batch indices of the head within the broadcast leading axes (only read by BLOCKS and DENSE). */
/* Half-open range of tiles that rows [row0, row1) may touch; an upper bound on the set, empty as *first >= *last.
 * Costs O(1) for arithmetic patterns, a pass over the block row for BLOCKS, a pass over the tile table for an
 * unsorted DOCUMENT. */
void ak_plan_tile_range(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t *first, int64_t *last);
ak_tile_state ak_plan_classify(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t tile);
/* Bits of row `row` in tile `tile`: bit b of word w is key 256*tile + 64*w + b; bits at or beyond lk are 0. */
void ak_plan_row_bits(const ak_plan *plan, const int64_t *index, int64_t row, int64_t tile, uint64_t bits[AK_TILE_WORDS]);

/* Exact statistics of one head in (block_q x block_k) tiles: tiles in all, tiles that hold any / only allowed pairs,
 * allowed pairs in all, pairs of the visited tiles, and the largest number of visited tiles in a block row. Block
 * sizes are >= 1 and lq * lk fits an int64. Stretches of whole empty or full tiles cost a bisection, not a visit.
 * ak_plan_count_rows adds the block rows [first, last) to `counts`, so that a caller can stop in between. */
typedef struct ak_tile_counts { int64_t tiles, visited, full, pairs, visited_pairs, max_row_tiles; } ak_tile_counts;
void ak_plan_count_rows(const ak_plan *plan, const int64_t *index, int64_t block_q, int64_t block_k, int64_t first, int64_t last,
                        ak_tile_counts *counts);
void ak_plan_count(const ak_plan *plan, const int64_t *index, int64_t block_q, int64_t block_k, ak_tile_counts *counts);

/* Exact state of any rectangle rows [row0, row1) x keys [key0, key1) of the plan; stops as soon as an allowed and a
 * forbidden pair are known. For pictures and tests. */
ak_tile_state ak_plan_rect_state(const ak_plan *plan, const int64_t *index, int64_t row0, int64_t row1, int64_t key0, int64_t key1);

#endif
