/* States of finished chunks and the binary counter that merges them along the tree of chunk numbers. */
#ifndef AK_ATTEND_STATES_H
#define AK_ATTEND_STATES_H
#include "problem.h"

size_t ak_state_bytes(const ak_state_shape *shape, size_t real_size);
void ak_state_bind(const ak_state_shape *shape, size_t real_size, char *slab, ak_row_state *state);
/* The empty state of what ak_tile_kernels.lanes_reset does not set: acc, masses, counts, top lists. */
void ak_state_reset(const ak_state_shape *shape, size_t real_size, ak_row_state *state);

/* A stack of states: entry i covers 2^level[i] chunks, levels strictly fall. Pushing chunk after chunk merges equal
 * levels, as a binary counter carries. An empty chunk is a missing state: it merges without touching a byte. */
enum { AK_COUNTER_LEVELS = 52 };
typedef struct ak_counter {
    const ak_tile_kernels *kernels;
    const ak_state_shape *shape;
    ak_row_state *pool;          /* n_pool states */
    int n_pool, n_used;          /* n_pool 0: the states belong to the caller and are never taken or returned */
    int order[AK_COUNTER_LEVELS + 2]; /* pool indices, those in use first */
    int depth;
    int level[AK_COUNTER_LEVELS];
    int entry[AK_COUNTER_LEVELS]; /* pool index or -1 = empty */
} ak_counter;

int ak_counter_pool(int64_t n_chunks); /* states that a counter over n_chunks needs */
void ak_counter_start(ak_counter *counter, const ak_tile_kernels *kernels, const ak_state_shape *shape, ak_row_state *pool, int n_pool);
int ak_counter_take(ak_counter *counter);           /* a free state to fill: pool index */
void ak_counter_return(ak_counter *counter, int state); /* taken but not needed */
void ak_counter_push(ak_counter *counter, int state); /* the next chunk; -1 = empty */
void ak_counter_push_empty(ak_counter *counter, int64_t n); /* n empty chunks */
int ak_counter_finish(ak_counter *counter);         /* pool index of the merged state, -1 when all chunks were empty */

#endif
