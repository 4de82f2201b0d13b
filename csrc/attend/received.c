#include "received.h"
#include <string.h>

enum {
    SLOTS_PER_THREAD = 4,        /* blocks of a wave: enough to even out their lengths */
    MOST_SCORES = 64 << 20       /* bytes of kept scores per thread; longer rows take a second pass */
};

static size_t scores_bytes(const ak_problem *problem)
{
    return (size_t)ak_plan_n_tiles(problem->lk) * AK_BLOCK_ROWS * AK_TILE * problem->real_size;
}

static size_t columns_of_slot(const ak_problem *problem) { return (size_t)ak_plan_n_tiles(problem->lk) * AK_TILE; }

int ak_received_fits(const ak_problem *problem)
{
    return problem->lk <= MOST_SCORES / (AK_BLOCK_ROWS * (int64_t)problem->real_size);
}

size_t ak_received_bytes(const ak_problem *problem, int n_threads)
{
    const size_t slots = SLOTS_PER_THREAD * (size_t)n_threads, columns = columns_of_slot(problem);
    return (size_t)n_threads * scores_bytes(problem) + slots * columns * (2 * problem->real_size + 1) + slots * columns / AK_TILE +
           slots * sizeof(int);
}

void ak_received_bind(ak_received *columns, const ak_problem *problem, int n_threads, char *slab, double *sums, double *largest, int64_t *visible)
{
    const size_t n = columns_of_slot(problem), slots = SLOTS_PER_THREAD * (size_t)n_threads;
    columns->n_slots = (int)slots;
    columns->n_tiles = ak_plan_n_tiles(problem->lk);
    columns->real_size = problem->real_size;
    columns->received = sums;
    columns->largest = largest;
    columns->visible = visible;
    columns->scores = slab;
    slab += (size_t)n_threads * scores_bytes(problem);
    columns->sum = slab;
    slab += slots * n * problem->real_size;
    columns->max = slab;
    slab += slots * n * problem->real_size;
    columns->slot_thread = (int *)(void *)slab;
    slab += slots * sizeof(int);
    columns->count = (uint8_t *)slab;
    columns->met = columns->count + slots * n;
}

static char *scores_of(const ak_received *columns, int slot, int64_t number)
{
    return columns->scores +
           (size_t)(columns->slot_thread[slot] * columns->n_tiles + number) * AK_BLOCK_ROWS * AK_TILE * columns->real_size;
}

static size_t column_at(const ak_received *columns, int slot, int64_t number) { return (size_t)(slot * columns->n_tiles + number) * AK_TILE; }

void ak_received_begin(const ak_received *columns, int slot, int thread)
{
    columns->slot_thread[slot] = thread;
    memset(columns->met + slot * columns->n_tiles, 0, (size_t)columns->n_tiles);
}

void ak_count_visible(const ak_tile *tile, uint8_t *count)
{
    if (!tile->has_bits) {
        for (int j = 0; j < tile->n_keys; j++) count[j] = (uint8_t)(count[j] + tile->n_rows);
        return;
    }
    for (int r = 0; r < tile->n_rows; r++)
        for (int w = 0; w < AK_TILE_WORDS; w++)
            for (int b = 0; b < 64; b++) count[64 * w + b] = (uint8_t)(count[64 * w + b] + (tile->bits[r][w] >> b & 1));
}

void ak_received_save(const ak_received *columns, const ak_block *block, int slot, int64_t number)
{
    const ak_tile *tile = &block->tile;
    const size_t row = AK_TILE * columns->real_size;
    uint8_t *count = columns->count + column_at(columns, slot, number);
    columns->met[slot * columns->n_tiles + number] = 1;
    memset(count, 0, AK_TILE);
    ak_count_visible(tile, count);
    char *to = scores_of(columns, slot, number);
    const size_t first = (size_t)tile->col0 * columns->real_size, bytes = (size_t)(tile->col1 - tile->col0) * columns->real_size;
    for (int r = 0; r < tile->n_rows; r++)
        memcpy(to + (size_t)r * row + first, (const char *)tile->s + (size_t)r * row + first, bytes);
}

void ak_received_block(const ak_received *columns, ak_block *block, int slot, const ak_row_state *state, const void *row_weight,
                       const ak_problem *problem)
{
    char inv[AK_BLOCK_ROWS * sizeof(double)] __attribute__((aligned(64))), ones[AK_BLOCK_ROWS * sizeof(double)] __attribute__((aligned(64)));
    const size_t size = columns->real_size;
    const int n = block->rows.n_rows;
    for (int r = 0; r < n; r++) {
        if (size == sizeof(float)) {
            const float l = ((const float *)state->l)[r];
            ((float *)(void *)inv)[r] = l == 0 ? 0 : 1 / l;
            ((float *)(void *)ones)[r] = 1;
        } else {
            const double l = ((const double *)state->l)[r];
            ((double *)(void *)inv)[r] = l == 0 ? 0 : 1 / l;
            ((double *)(void *)ones)[r] = 1;
        }
    }
    const void *weight = ones;
    if (row_weight) weight = (const char *)row_weight + (size_t)(block->span.head * problem->lq + block->span.row0) * size;
    for (int64_t number = 0; number < columns->n_tiles; number++) {
        if (!columns->met[slot * columns->n_tiles + number]) continue;
        ak_block_meet(block, number); /* the ranges of its rows once more */
        block->tile.s = scores_of(columns, slot, number);
        problem->kernels->probabilities(&block->tile, state->m, inv);
        char *sum = columns->sum + column_at(columns, slot, number) * size, *max = columns->max + column_at(columns, slot, number) * size;
        memset(sum, 0, AK_TILE * size);
        memset(max, 0, AK_TILE * size);
        problem->kernels->columns(&block->tile, weight, sum, max);
    }
}

static double number_at(const char *x, size_t size, size_t i)
{
    return size == sizeof(float) ? (double)((const float *)(const void *)x)[i] : ((const double *)(const void *)x)[i];
}

void ak_received_add(const ak_received *columns, const ak_problem *problem, int64_t number)
{
    const size_t at = (size_t)(columns->head * problem->lk + number * AK_TILE), n = (size_t)ak_tile_keys(problem, number);
    double *sum = columns->received + at, *largest = columns->largest + at;
    int64_t *visible = columns->visible + at;
    if (columns->is_first) {
        memset(sum, 0, n * sizeof *sum);
        memset(largest, 0, n * sizeof *largest);
        memset(visible, 0, n * sizeof *visible);
    }
    for (int slot = 0; slot < columns->n_blocks; slot++) {
        if (!columns->met[slot * columns->n_tiles + number]) continue;
        const size_t from = column_at(columns, slot, number);
        for (size_t j = 0; j < n; j++) {
            const double x = number_at(columns->sum, columns->real_size, from + j), top = number_at(columns->max, columns->real_size, from + j);
            sum[j] += x;
            visible[j] += columns->count[from + j];
            if (top > largest[j]) largest[j] = top;
            if (sum[j] != sum[j]) sum[j] = largest[j] = __builtin_nan("");
        }
    }
}
