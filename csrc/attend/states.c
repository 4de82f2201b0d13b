#include "states.h"
#include <string.h>

/* One list of the arrays of a state: wanted, bytes per row, member. */
#define STATE_ARRAYS(X)                                                                                         \
    X(1, real_size, m)                                                                                          \
    X(1, real_size, l)                                                                                          \
    X(shape->stats & AK_SUMS, real_size, l1)                                                                    \
    X(shape->stats & AK_SUMS, real_size, t)                                                                     \
    X(shape->stats & AK_SUMS, real_size, r2)                                                                    \
    X(shape->stats & AK_STAT_DISTANCE, sizeof(double), d1)                                                      \
    X(shape->stats & AK_STAT_DISTANCE, sizeof(double), d2)                                                      \
    X(shape->stats & AK_STAT_DISTANCE, sizeof(double), da)                                                      \
    X(shape->stats & AK_STAT_SINK, sizeof(double), sink)                                                        \
    X(shape->stats & AK_STAT_GROUPS, (size_t)shape->n_groups * sizeof(double), groups)                          \
    X(shape->stats & AK_STAT_ARGMAX, sizeof(int64_t), argmax)                                                   \
    X(shape->stats & AK_STAT_COUNT, sizeof(int64_t), count)                                                     \
    X(shape->stats & AK_STAT_TOPK, (size_t)shape->topk * real_size, top_s)                                      \
    X(shape->stats & AK_STAT_TOPK, (size_t)shape->topk * sizeof(int64_t), top_j)                                \
    X(shape->acc_stride > 0, (size_t)shape->acc_stride * real_size, acc)

enum { AK_SUMS = AK_STAT_ENTROPY | AK_STAT_PURITY | AK_STAT_DISTANCE };

size_t ak_state_bytes(const ak_state_shape *shape, size_t real_size)
{
    size_t bytes = 0;
#define ADD(wanted, row_bytes, member) \
    if (wanted) bytes += ak_line((size_t)shape->n_rows * (row_bytes));
    STATE_ARRAYS(ADD)
#undef ADD
    return bytes;
}

void ak_state_bind(const ak_state_shape *shape, size_t real_size, char *slab, ak_row_state *state)
{
    memset(state, 0, sizeof *state);
#define BIND(wanted, row_bytes, member)                             \
    if (wanted) {                                                   \
        state->member = (void *)slab;                               \
        slab += ak_line((size_t)shape->n_rows * (row_bytes));       \
    }
    STATE_ARRAYS(BIND)
#undef BIND
}

void ak_state_reset(const ak_state_shape *shape, size_t real_size, ak_row_state *state)
{
    const size_t rows = (size_t)shape->n_rows;
    if (shape->acc_stride) memset(state->acc, 0, rows * (size_t)shape->acc_stride * real_size);
    if (state->sink) memset(state->sink, 0, rows * sizeof(double));
    if (state->groups) memset(state->groups, 0, rows * (size_t)shape->n_groups * sizeof(double));
    if (state->count) memset(state->count, 0, rows * sizeof(int64_t));
    if (state->top_j) {
        const size_t n = rows * (size_t)shape->topk;
        for (size_t i = 0; i < n; i++) state->top_j[i] = -1;
        for (size_t i = 0; i < n; i++) {
            if (real_size == sizeof(float)) ((float *)state->top_s)[i] = -__builtin_inff();
            else ((double *)state->top_s)[i] = -__builtin_inf();
        }
    }
}

int ak_counter_pool(int64_t n_chunks)
{
    int levels = 1;
    while (n_chunks > 1) {
        n_chunks = (n_chunks + 1) / 2;
        levels++;
    }
    return levels + 1;
}

void ak_counter_start(ak_counter *counter, const ak_tile_kernels *kernels, const ak_state_shape *shape, ak_row_state *pool, int n_pool)
{
    counter->kernels = kernels;
    counter->shape = shape;
    counter->pool = pool;
    counter->n_pool = n_pool;
    counter->n_used = 0;
    counter->depth = 0;
    for (int i = 0; i < n_pool; i++) counter->order[i] = i;
}

int ak_counter_take(ak_counter *counter) { return counter->order[counter->n_used++]; }

void ak_counter_return(ak_counter *counter, int state)
{
    if (counter->n_pool == 0) return;
    int at = 0;
    while (counter->order[at] != state) at++;
    counter->n_used--;
    counter->order[at] = counter->order[counter->n_used];
    counter->order[counter->n_used] = state;
}

/* The two topmost entries become one. */
static void fold(ak_counter *counter)
{
    const int top = --counter->depth, low = top - 1, a = counter->entry[low], b = counter->entry[top];
    if (a >= 0 && b >= 0) {
        counter->kernels->state_merge(counter->shape, &counter->pool[a], &counter->pool[b]);
        ak_counter_return(counter, b);
    } else if (a < 0) counter->entry[low] = b;
}

static void push_level(ak_counter *counter, int state, int level)
{
    counter->entry[counter->depth] = state;
    counter->level[counter->depth++] = level;
    while (counter->depth > 1 && counter->level[counter->depth - 2] == counter->level[counter->depth - 1]) {
        fold(counter);
        counter->level[counter->depth - 1]++;
    }
}

void ak_counter_push(ak_counter *counter, int state) { push_level(counter, state, 0); }

void ak_counter_push_empty(ak_counter *counter, int64_t n)
{
    /* The largest aligned power of two at a time: a long empty stretch costs as many steps as the tree has levels. */
    while (n > 0) {
        int level = counter->depth ? counter->level[counter->depth - 1] : AK_COUNTER_LEVELS - 1;
        while (((int64_t)1 << level) > n) level--;
        push_level(counter, -1, level);
        n -= (int64_t)1 << level;
    }
}

int ak_counter_finish(ak_counter *counter)
{
    while (counter->depth > 1) fold(counter);
    return counter->depth ? counter->entry[0] : -1;
}
