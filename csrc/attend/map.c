/* Second pass. Columns: a task owns one tile of keys of one head and visits the rows in order, so no partial sums meet.
 * Sums run over the rows of a block in the kernel's type, then over blocks in double. */
#include "map.h"
#include <string.h>
#include "../core/memory.h"
#include "received.h"
#include "tile.h"

typedef struct map_space {
    ak_block block;
    char *keys;          /* one packed tile, or a strip of it */
    char *sum, *max;     /* REAL[AK_TILE] */
    char *weight;        /* REAL[AK_BLOCK_ROWS] */
    char *row;           /* REAL[AK_TILE]: a row of the window on its way out */
} map_space;

typedef struct map_call {
    const ak_problem *problem;
    const ak_map_rows *rows;
    int64_t n_rows;
    map_space *spaces;
    /* window */
    const int64_t *cols, *col_to;
    int64_t n_cols, row_blocks;
    const ak_operand *out;
    /* columns */
    const void *row_weight;
    double *received, *largest;
    int64_t *visible;
    int64_t n_tiles;
    /* blocks */
    int64_t block_q, block_k, n_q, n_k;
} map_call;

static int threads_for(const ak_problem *problem, int64_t n_rows)
{
    const double work = (double)problem->n_heads * (double)n_rows * (double)problem->lk * (double)(problem->d + 8);
    return work < 4e6 ? 1 : ak_threads_get();
}

static ak_status run_map(map_call *call, ptrdiff_t n_tasks, ak_task_fn task)
{
    const ak_problem *problem = call->problem;
    const int n_threads = threads_for(problem, call->n_rows);
    const size_t row = ak_line(AK_TILE * problem->real_size);
    const size_t bytes = ak_block_bytes(problem, AK_BLOCK_ROWS) + ak_packed_key_tile(problem) + 4 * row;
    ak_status status = AK_NO_MEMORY;
    call->spaces = ak_alloc_array((size_t)n_threads, sizeof *call->spaces);
    char *slab = ak_alloc_array((size_t)n_threads, bytes);
    if (call->spaces && slab) {
        for (int t = 0; t < n_threads; t++) {
            map_space *space = &call->spaces[t];
            char *at = ak_block_bind(&space->block, problem, AK_BLOCK_ROWS, slab + (size_t)t * bytes);
            space->keys = at;
            at += ak_packed_key_tile(problem);
            space->sum = at;
            space->max = at + row;
            space->weight = at + 2 * row;
            space->row = at + 3 * row;
        }
        status = ak_run_tasks(n_tasks, n_threads, task, call, problem->poll);
    }
    ak_free(slab);
    ak_free(call->spaces);
    return status;
}

static int place(const map_call *call, map_space *space, int64_t head, int64_t row0, int64_t row_end)
{
    int64_t row1 = row0 + AK_BLOCK_ROWS;
    if (row1 > row_end) row1 = row_end;
    ak_block_place(&space->block, (ak_block_span){.head = head, .n_heads = 1, .row0 = row0, .row1 = row1}, call->rows->list);
    return (int)(row1 - row0);
}

/* Normalisers of the rows of the block, next to each other. */
static void weigh(const map_call *call, map_space *space)
{
    const ak_problem *problem = call->problem;
    const size_t size = problem->real_size;
    const ak_rows *rows = &space->block.rows;
    char m[AK_BLOCK_ROWS * sizeof(double)] __attribute__((aligned(64))), inv[AK_BLOCK_ROWS * sizeof(double)] __attribute__((aligned(64)));
    for (int r = 0; r < rows->n_rows; r++) {
        const size_t at = (size_t)(rows->head[r] * problem->lq + rows->index[r]) * size;
        memcpy(m + (size_t)r * size, (const char *)call->rows->norm_max + at, size);
        memcpy(inv + (size_t)r * size, (const char *)call->rows->norm_inv + at, size);
    }
    problem->kernels->probabilities(&space->block.tile, m, inv);
}

/* ---- windows -------------------------------------------------------------------------------------------------- */

/* The row of the tile as REAL, with the fill where nothing was computed. */
static void fill_row(const map_call *call, map_space *space, int met, int r, int n_keys)
{
    const ak_tile *tile = &space->block.tile;
    const size_t size = call->problem->real_size;
    const int g = r / AK_GROUP_ROWS;
    const int first = met ? tile->group_first[g] : 0, last = met ? tile->group_last[g] : 0;
    const double fill = call->rows->norm_max ? 0 : -__builtin_inf();
    for (int j = 0; j < n_keys; j++) {
        if (j >= first && j < last) continue;
        if (size == sizeof(float)) ((float *)(void *)space->row)[j] = (float)fill;
        else ((double *)(void *)space->row)[j] = fill;
    }
    if (last > first)
        memcpy(space->row + (size_t)first * size, (const char *)tile->s + ((size_t)r * AK_TILE + (size_t)first) * size,
               (size_t)(last - first) * size);
}

static int64_t first_at_least(const int64_t *sorted, int64_t n, int64_t x)
{
    int64_t low = 0, high = n;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (sorted[middle] < x) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void window_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const map_call *call = ctx;
    const ak_problem *problem = call->problem;
    map_space *space = &call->spaces[thread];
    const int64_t head = task / call->row_blocks, row0 = task % call->row_blocks * AK_BLOCK_ROWS;
    const int n = place(call, space, head, row0, call->n_rows);
    ak_block_load(&space->block);
    const ak_matrix k = ak_head_matrix(problem, &problem->k, head, problem->kv_group);
    const ak_matrix out = ak_head_matrix(problem, call->out, head, 1);
    int64_t next = 0;
    for (int64_t number = 0; number < ak_plan_n_tiles(problem->lk); number++) {
        int64_t stop = 0;
        if (call->cols) {
            if (next == call->n_cols) break;
            number = call->cols[next] / AK_TILE;
            stop = first_at_least(call->cols, call->n_cols, (number + 1) * AK_TILE);
        }
        if (ak_run_stopped(run, thread)) return;
        const int n_keys = ak_tile_keys(problem, number), met = ak_block_meet(&space->block, number);
        if (met) {
            ak_block_stream_scores(&space->block, &k, space->keys);
            if (call->rows->norm_max) weigh(call, space);
        }
        for (int r = 0; r < n; r++) {
            char *to = (char *)(uintptr_t)out.data + (row0 + r) * out.row_stride;
            fill_row(call, space, met, r, n_keys);
            if (!call->cols) problem->kernels->store_row(space->row, n_keys, to + number * AK_TILE * out.col_stride, out.col_stride, out.dtype);
            else
                for (int64_t i = next; i < stop; i++)
                    problem->kernels->store_row(space->row + (size_t)(call->cols[i] - number * AK_TILE) * problem->real_size, 1,
                                                to + call->col_to[i] * out.col_stride, out.col_stride, out.dtype);
        }
        next = stop;
    }
}

ak_status ak_map_window(const ak_problem *problem, const ak_map_rows *rows, const int64_t *cols, const int64_t *col_to, int64_t n_cols,
                        const ak_operand *out)
{
    map_call call = {.problem = problem, .rows = rows, .cols = cols, .col_to = col_to, .n_cols = n_cols, .out = out};
    call.n_rows = rows->list ? rows->n : problem->lq;
    call.row_blocks = (call.n_rows + AK_BLOCK_ROWS - 1) / AK_BLOCK_ROWS;
    return run_map(&call, (ptrdiff_t)(problem->n_heads * call.row_blocks), window_task);
}

/* ---- columns -------------------------------------------------------------------------------------------------- */

/* Sums and maxima over the rows of the met and weighted tile, in space->sum and space->max. */
static void sum_columns(const map_call *call, map_space *space)
{
    const ak_problem *problem = call->problem;
    const size_t size = problem->real_size;
    const ak_block *block = &space->block;
    memset(space->sum, 0, AK_TILE * size);
    memset(space->max, 0, AK_TILE * size);
    for (int r = 0; r < block->rows.n_rows; r++) {
        const size_t at = (size_t)(block->span.head * call->n_rows + block->span.row0 + r);
        if (call->row_weight) memcpy(space->weight + (size_t)r * size, (const char *)call->row_weight + at * size, size);
        else if (size == sizeof(float)) ((float *)(void *)space->weight)[r] = 1;
        else ((double *)(void *)space->weight)[r] = 1;
    }
    problem->kernels->columns(&block->tile, space->weight, space->sum, space->max);
}

static double number_at(const char *x, size_t size, int i)
{
    return size == sizeof(float) ? (double)((const float *)(const void *)x)[i] : ((const double *)(const void *)x)[i];
}

static void column_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const map_call *call = ctx;
    const ak_problem *problem = call->problem;
    map_space *space = &call->spaces[thread];
    const int64_t head = task / call->n_tiles, number = task % call->n_tiles;
    const int n_keys = ak_tile_keys(problem, number);
    const ak_matrix k = ak_head_matrix(problem, &problem->k, head, problem->kv_group);
    double received[AK_TILE] = {0}, largest[AK_TILE] = {0};
    int64_t visible[AK_TILE] = {0};
    int packed = 0;
    for (int64_t row = 0; row < call->n_rows; row += AK_BLOCK_ROWS) {
        if (ak_run_stopped(run, thread)) return;
        place(call, space, head, row, call->n_rows);
        if (!ak_block_meet(&space->block, number)) continue;
        if (!packed) problem->kernels->pack_keys(&k, number * AK_TILE, n_keys, problem->d, space->keys);
        packed = 1;
        ak_block_load(&space->block);
        ak_block_scores(&space->block, space->keys);
        uint8_t count[AK_TILE] = {0};
        ak_count_visible(&space->block.tile, count);
        for (int j = 0; j < n_keys; j++) visible[j] += count[j];
        weigh(call, space);
        sum_columns(call, space);
        for (int j = 0; j < n_keys; j++) {
            received[j] += number_at(space->sum, problem->real_size, j);
            const double top = number_at(space->max, problem->real_size, j);
            if (top > largest[j]) largest[j] = top;
        }
    }
    const size_t at = (size_t)(head * problem->lk + number * AK_TILE);
    for (int j = 0; j < n_keys; j++) {
        const double sum = received[j] != received[j] ? __builtin_nan("") : received[j];
        call->received[at + (size_t)j] = sum;
        call->largest[at + (size_t)j] = sum != sum ? sum : largest[j];
        call->visible[at + (size_t)j] = visible[j];
    }
}

ak_status ak_map_columns(const ak_problem *problem, const ak_map_rows *rows, const void *row_weight, double *received, double *largest,
                         int64_t *visible)
{
    map_call call = {.problem = problem, .rows = rows, .row_weight = row_weight, .received = received, .largest = largest, .visible = visible};
    call.n_rows = rows->list ? rows->n : problem->lq;
    call.n_tiles = ak_plan_n_tiles(problem->lk);
    return run_map(&call, (ptrdiff_t)(problem->n_heads * call.n_tiles), column_task);
}

/* ---- blocks --------------------------------------------------------------------------------------------------- */

static void block_mass_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const map_call *call = ctx;
    const ak_problem *problem = call->problem;
    map_space *space = &call->spaces[thread];
    const int64_t head = task / call->n_q, row_begin = task % call->n_q * call->block_q;
    int64_t row_end = row_begin + call->block_q;
    if (row_end > call->n_rows) row_end = call->n_rows;
    const ak_matrix k = ak_head_matrix(problem, &problem->k, head, problem->kv_group);
    double *sum = call->received + (size_t)(task * call->n_k), *largest = call->largest + (size_t)(task * call->n_k);
    memset(sum, 0, (size_t)call->n_k * sizeof(double));
    memset(largest, 0, (size_t)call->n_k * sizeof(double));
    for (int64_t row = row_begin; row < row_end; row += AK_BLOCK_ROWS) {
        int64_t first, last;
        place(call, space, head, row, row_end);
        ak_block_load(&space->block);
        ak_block_tiles(&space->block, &first, &last);
        for (int64_t number = first; number < last; number++) {
            if (ak_run_stopped(run, thread)) return;
            if (!ak_block_meet(&space->block, number)) continue;
            ak_block_stream_scores(&space->block, &k, space->keys);
            weigh(call, space);
            sum_columns(call, space);
            const int n_keys = ak_tile_keys(problem, number);
            for (int j = 0; j < n_keys; j++) {
                const int64_t at = (number * AK_TILE + j) / call->block_k;
                sum[at] += number_at(space->sum, problem->real_size, j);
                const double top = number_at(space->max, problem->real_size, j);
                if (top > largest[at]) largest[at] = top;
            }
        }
    }
    for (int64_t i = 0; i < call->n_k; i++)
        if (sum[i] != sum[i]) sum[i] = largest[i] = __builtin_nan("");
}

ak_status ak_map_blocks(const ak_problem *problem, const ak_map_rows *rows, int64_t block_q, int64_t block_k, double *sum, double *largest)
{
    map_call call = {.problem = problem, .rows = rows, .block_q = block_q, .block_k = block_k, .received = sum, .largest = largest};
    call.n_rows = problem->lq;
    call.n_q = (problem->lq + block_q - 1) / block_q;
    call.n_k = (problem->lk + block_k - 1) / block_k;
    return run_map(&call, (ptrdiff_t)(problem->n_heads * call.n_q), block_mass_task);
}
