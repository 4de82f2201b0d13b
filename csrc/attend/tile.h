/* How a tile of scores is made: block of rows, mask plan, Q K^T, score program, mask. Shared by every pass. */
#ifndef AK_ATTEND_TILE_H
#define AK_ATTEND_TILE_H
#include "problem.h"

/* Rows of a block: row0 .. row1-1 of one head, or all rows of n_heads consecutive heads of a run. `rows_list` (map.c) may
 * select rows of one head: row numbers are then positions in that list. */
typedef struct ak_block_span {
    int64_t head;
    int n_heads;
    int64_t row0, row1;
} ak_block_span;

/* Everything a thread needs for one block; buffers belong to a slab of the caller. */
typedef struct ak_block {
    const ak_problem *problem;
    ak_block_span span;
    ak_rows rows;
    const int64_t *row_list; /* NULL = row numbers are rows */
    void *q;                 /* REAL[n_rows][d], scaled */
    void *s;                 /* REAL[n_rows][AK_TILE] */
    uint64_t (*bits)[AK_TILE_WORDS];
    ak_bound_step steps[AK_MAX_STEPS];
    int steps_mask;          /* some step may forbid keys */
    int64_t head_index[AK_BLOCK_ROWS][AK_MAX_BATCH_DIMS]; /* of the heads of the span */
    ak_tile tile;
} ak_block;

/* Bytes of the buffers of a block of up to max_rows rows, and their binding to a slab. */
size_t ak_block_bytes(const ak_problem *problem, int max_rows);
char *ak_block_bind(ak_block *block, const ak_problem *problem, int max_rows, char *slab);

/* Start a block: which rows it holds; then, before its first scores, load and scale the queries and bind the operands of the
 * score program. */
void ak_block_place(ak_block *block, ak_block_span span, const int64_t *row_list);
void ak_block_load(ak_block *block);

/* Tiles that the block may touch. */
void ak_block_tiles(const ak_block *block, int64_t *first, int64_t *last);

/* Decide about a tile: 0 when no row sees a key of it; else fills block->tile (ranges, bits). */
int ak_block_meet(ak_block *block, int64_t tile);

/* Scores of the met tile: from packed panels of the whole tile, or by packing a few keys at a time into `strip`
 * (AK_STREAM_KEYS keys). Then the program and the mask. */
void ak_block_scores(ak_block *block, const void *panels);
void ak_block_stream_scores(ak_block *block, const ak_matrix *k, void *strip);

/* Packed keys and values of one run: n_slots tiles from `first` on. Either all are packed in advance (holds NULL), or slots are
 * taken in turn and `holds` says which tile is in each (-1 = none): a window then needs as many as it is wide. */
typedef struct ak_packed {
    int64_t first, n_slots;
    int64_t *holds;
    char *keys, *values;
    unsigned char *finite; /* per slot: are all values finite? */
} ak_packed;

static inline size_t ak_packed_slot(const ak_packed *packed, int64_t tile) { return (size_t)((tile - packed->first) % packed->n_slots); }

size_t ak_packed_key_tile(const ak_problem *problem);   /* bytes of a tile */
size_t ak_packed_value_tile(const ak_problem *problem);
int ak_value_panels(const ak_problem *problem);
/* Values of one tile to panels of AK_TILE rows; 1 when all are finite. */
int ak_pack_values(const ak_problem *problem, const ak_matrix *v, int64_t tile, void *panels);
void ak_pack_tile(const ak_problem *problem, const ak_packed *packed, const ak_matrix *k, const ak_matrix *v, int64_t tile);
static inline int ak_tile_keys(const ak_problem *problem, int64_t tile)
{
    const int64_t left = problem->lk - tile * AK_TILE;
    return left < AK_TILE ? (int)left : AK_TILE;
}

#endif
