/* Attention received, in the row pass itself: the scores of a block are kept until its rows are normalised, then weighed once
 * more and summed down the columns. That costs an exponential per score instead of a second Q K^T (attend.h: the same bytes as
 * ak_map_columns). Blocks of a head go in waves; after each wave the columns of its blocks are added in the order of the rows,
 * so that the sums do not depend on threads. Memory: the scores of one block per thread. */
#ifndef AK_ATTEND_RECEIVED_H
#define AK_ATTEND_RECEIVED_H
#include "tile.h"

typedef struct ak_received {
    int64_t head, first_block; /* of the wave in work; block numbers within the run */
    int n_blocks, n_slots;
    int is_first;              /* the first wave of its head */
    int *slot_thread;          /* whose scores a slot uses */
    char *scores;              /* per thread: n_tiles x AK_BLOCK_ROWS x AK_TILE */
    char *sum, *max;           /* per slot: n_tiles x AK_TILE, REAL */
    uint8_t *count, *met;      /* per slot: rows that see each key; tiles that were met */
    size_t real_size;
    int64_t n_tiles;
    double *received, *largest;
    int64_t *visible;
} ak_received;

int ak_received_fits(const ak_problem *problem);
size_t ak_received_bytes(const ak_problem *problem, int n_threads);
void ak_received_bind(ak_received *columns, const ak_problem *problem, int n_threads, char *slab, double *sums, double *largest, int64_t *visible);

/* A block: begin, save each met tile after its scores are done, then weigh and sum when its state is final. */
void ak_received_begin(const ak_received *columns, int slot, int thread);
void ak_received_save(const ak_received *columns, const ak_block *block, int slot, int64_t number);
void ak_received_block(const ak_received *columns, ak_block *block, int slot, const ak_row_state *state, const void *row_weight,
                       const ak_problem *problem);
/* One tile of columns of all blocks of the wave, in order, to the outputs. */
void ak_received_add(const ak_received *columns, const ak_problem *problem, int64_t number);

/* count[j] += rows of the tile that may see key j. */
void ak_count_visible(const ak_tile *tile, uint8_t *count);

#endif
