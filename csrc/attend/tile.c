#include "tile.h"
#include <string.h>

#define LOG16E 0.36067376022224085184

size_t ak_block_bytes(const ak_problem *problem, int max_rows)
{
    const size_t rows = (size_t)max_rows;
    return ak_line(rows * (size_t)problem->d * problem->real_size) + ak_line(rows * AK_TILE * problem->real_size) +
           ak_line(rows * sizeof(uint64_t[AK_TILE_WORDS]));
}

char *ak_block_bind(ak_block *block, const ak_problem *problem, int max_rows, char *slab)
{
    const size_t rows = (size_t)max_rows;
    static const int step_masks[AK_SCORE_COUNT] = {
#define AK_SCORE_OP(NAME, function, masks) masks,
#include "../kernels/score_ops.def"
#undef AK_SCORE_OP
    };
    block->problem = problem;
    block->steps_mask = 0;
    for (int i = 0; i < problem->n_steps; i++) block->steps_mask |= step_masks[problem->steps[i].kind];
    block->q = slab;
    slab += ak_line(rows * (size_t)problem->d * problem->real_size);
    block->s = slab;
    slab += ak_line(rows * AK_TILE * problem->real_size);
    block->bits = (uint64_t(*)[AK_TILE_WORDS])(void *)slab;
    return slab + ak_line(rows * sizeof(uint64_t[AK_TILE_WORDS]));
}

/* The factor that goes into the queries: the scale, the unit, and the inner division of a soft cap. */
static double query_factor(const ak_problem *problem)
{
    double unit = problem->weight_units ? LOG16E : 1;
    for (int i = 0; i < problem->n_steps; i++)
        if (problem->steps[i].kind == AK_SCORE_SOFTCAP) unit = 1 / problem->steps[i].value;
    return problem->scale * unit;
}

static double read_number(const ak_matrix *matrix)
{
    if (matrix->dtype == AK_F64) {
        double x;
        memcpy(&x, matrix->data, sizeof x);
        return x;
    }
    float x;
    memcpy(&x, matrix->data, sizeof x);
    return (double)x;
}

static void bind_step(ak_block *block, const ak_score_step *step, ak_bound_step *bound)
{
    const ak_problem *problem = block->problem;
    bound->kind = step->kind;
    bound->unit = problem->weight_units ? LOG16E : 1;
    bound->value = step->value;
    if (step->operand.matrix.data == NULL) return;
    bound->dtype = step->operand.matrix.dtype;
    bound->col_stride = step->operand.matrix.col_stride;
    int64_t head = -1;
    ak_matrix matrix = step->operand.matrix;
    for (int r = 0; r < block->rows.n_rows; r++) {
        if (block->rows.head[r] != head) {
            head = block->rows.head[r];
            matrix = ak_head_matrix(problem, &step->operand, head, 1);
        }
        if (step->kind == AK_SCORE_ALIBI) bound->row_value[r] = read_number(&matrix);
        else bound->row_data[r] = matrix.data + block->rows.index[r] * matrix.row_stride;
    }
}

void ak_block_place(ak_block *block, ak_block_span span, const int64_t *row_list)
{
    const ak_problem *problem = block->problem;
    block->span = span;
    block->row_list = row_list;
    int r = 0;
    for (int h = 0; h < span.n_heads; h++) {
        if (problem->plan_per_head) ak_head_index(problem, span.head + h, block->head_index[h]);
        for (int64_t i = span.row0; i < span.row1; i++, r++) {
            const int64_t row = row_list ? row_list[i] : i;
            block->rows.index[r] = row;
            block->rows.position[r] = row + problem->offset;
            block->rows.head[r] = span.head + h;
        }
    }
    block->rows.n_rows = r;
}

void ak_block_load(ak_block *block)
{
    const ak_problem *problem = block->problem;
    const double factor = query_factor(problem);
    int64_t head = -1;
    ak_matrix q = problem->q.matrix;
    for (int r = 0; r < block->rows.n_rows; r++) {
        if (block->rows.head[r] != head) {
            head = block->rows.head[r];
            q = ak_head_matrix(problem, &problem->q, head, 1);
        }
        problem->kernels->load_row(&q, block->rows.index[r], problem->d, factor,
                                   (char *)block->q + (size_t)r * (size_t)problem->d * problem->real_size);
    }
    for (int i = 0; i < problem->n_steps; i++) bind_step(block, &problem->steps[i], &block->steps[i]);
}

void ak_block_tiles(const ak_block *block, int64_t *first, int64_t *last)
{
    const ak_problem *problem = block->problem;
    const ak_plan *plan = &problem->plan;
    *first = 0;
    *last = ak_plan_n_tiles(problem->lk);
    if (plan->n_nodes == 0 || block->row_list) return;
    *first = *last;
    *last = 0;
    const int n_heads = problem->plan_per_head ? block->span.n_heads : 1;
    for (int h = 0; h < n_heads; h++) {
        int64_t a, b;
        ak_plan_tile_range(plan, block->head_index[h], block->span.row0, block->span.row1, &a, &b);
        if (a < *first) *first = a;
        if (b > *last) *last = b;
    }
}

static ak_tile_state classify(const ak_block *block, int64_t tile)
{
    const ak_problem *problem = block->problem;
    if (problem->plan.n_nodes == 0) return AK_TILE_FULL;
    if (block->row_list) return AK_TILE_PARTIAL;
    const int n_heads = problem->plan_per_head ? block->span.n_heads : 1;
    ak_tile_state all = AK_TILE_PARTIAL;
    for (int h = 0; h < n_heads; h++) {
        const ak_tile_state state = ak_plan_classify(&problem->plan, block->head_index[h], block->span.row0, block->span.row1, tile);
        if (h == 0) all = state;
        if (state != all) return AK_TILE_PARTIAL;
    }
    return all;
}

static void fill_full(ak_block *block)
{
    ak_tile *tile = &block->tile;
    uint64_t row[AK_TILE_WORDS];
    for (int w = 0; w < AK_TILE_WORDS; w++) {
        const int left = tile->n_keys - 64 * w;
        row[w] = left >= 64 ? ~(uint64_t)0 : left <= 0 ? 0 : ((uint64_t)1 << left) - 1;
    }
    for (int r = 0; r < tile->n_rows; r++) memcpy(block->bits[r], row, sizeof row);
}

/* First and one past the last set bit over some rows; an empty range when there is none. */
static void bit_range(uint64_t (*bits)[AK_TILE_WORDS], int n_rows, int *first, int *last)
{
    uint64_t any[AK_TILE_WORDS] = {0};
    for (int r = 0; r < n_rows; r++)
        for (int w = 0; w < AK_TILE_WORDS; w++) any[w] |= bits[r][w];
    *first = *last = 0;
    for (int w = AK_TILE_WORDS - 1; w >= 0; w--)
        if (any[w]) {
            *last = 64 * w + 64 - __builtin_clzll(any[w]);
            break;
        }
    for (int w = 0; w < AK_TILE_WORDS; w++)
        if (any[w]) {
            *first = 64 * w + __builtin_ctzll(any[w]);
            break;
        }
}

int ak_block_meet(ak_block *block, int64_t number)
{
    const ak_problem *problem = block->problem;
    const int lanes = problem->kernels->lanes;
    const ak_tile_state state = classify(block, number);
    if (state == AK_TILE_EMPTY) return 0;
    ak_tile *tile = &block->tile;
    tile->s = block->s;
    tile->n_rows = block->rows.n_rows;
    tile->key0 = number * AK_TILE;
    tile->n_keys = ak_tile_keys(problem, number);
    tile->rows = &block->rows;
    tile->bits = block->bits;
    tile->has_bits = state == AK_TILE_PARTIAL || block->steps_mask;
    tile->forbidden = state == AK_TILE_PARTIAL;
    tile->col0 = AK_TILE;
    tile->col1 = 0;
    if (state == AK_TILE_PARTIAL) {
        const int rows_per_head = (int)(block->span.row1 - block->span.row0);
        for (int r = 0; r < tile->n_rows; r++)
            ak_plan_row_bits(&problem->plan, block->head_index[problem->plan_per_head ? r / rows_per_head : 0], block->rows.index[r], number,
                             block->bits[r]);
    } else if (tile->has_bits) fill_full(block);
    for (int r = 0, g = 0; r < tile->n_rows; r += AK_GROUP_ROWS, g++) {
        const int n = tile->n_rows - r < AK_GROUP_ROWS ? tile->n_rows - r : AK_GROUP_ROWS;
        tile->group_first[g] = 0;
        tile->group_last[g] = tile->n_keys;
        if (state == AK_TILE_PARTIAL) bit_range(block->bits + r, n, &tile->group_first[g], &tile->group_last[g]);
        if (tile->group_first[g] == tile->group_last[g]) continue;
        const int c0 = tile->group_first[g] / lanes * lanes, c1 = (tile->group_last[g] + lanes - 1) / lanes * lanes;
        if (c0 < tile->col0) tile->col0 = c0;
        if (c1 > tile->col1) tile->col1 = c1;
    }
    return tile->col0 < tile->col1;
}

static void run_program(ak_block *block)
{
    const ak_problem *problem = block->problem;
    for (int i = 0; i < problem->n_steps; i++) problem->kernels->score_ops[problem->steps[i].kind](&block->steps[i], &block->tile);
    if (!block->tile.forbidden) block->tile.has_bits = 0; /* no operation used the bits it was given */
    problem->kernels->mask(&block->tile);
}

void ak_block_scores(ak_block *block, const void *panels)
{
    const ak_problem *problem = block->problem;
    const char *from = (const char *)panels + (size_t)block->tile.col0 * (size_t)problem->d * problem->real_size;
    problem->kernels->scores(block->q, problem->d, from, &block->tile);
    run_program(block);
}

/* The page that holds key j of a paged operand, and how many of n keys from j on are in it. */
static ak_matrix page_of(const ak_problem *problem, const ak_matrix *x, ptrdiff_t page_stride, int64_t j, int64_t *row, int *n)
{
    ak_matrix page = *x;
    *row = j % problem->page_rows;
    if (problem->page_rows - *row < *n) *n = (int)(problem->page_rows - *row);
    page.data += problem->pages[j / problem->page_rows] * page_stride;
    return page;
}

/* Keys j0 .. j0+n-1 to panels; j0 is a multiple of the lanes. */
static void pack_keys(const ak_problem *problem, const ak_matrix *k, int64_t j0, int n, void *panels)
{
    if (problem->pages == NULL) {
        problem->kernels->pack_keys(k, j0, n, problem->d, panels);
        return;
    }
    for (int done = 0, part; done < n; done += part) {
        int64_t row;
        part = n - done;
        const ak_matrix page = page_of(problem, k, problem->k_page_stride, j0 + done, &row, &part);
        problem->kernels->pack_keys(&page, row, part, problem->d, (char *)panels + (size_t)done * (size_t)problem->d * problem->real_size);
    }
}

int ak_pack_values(const ak_problem *problem, const ak_matrix *v, int64_t tile, void *panels)
{
    const int n = ak_tile_keys(problem, tile), lanes = problem->kernels->lanes;
    const ptrdiff_t panel_stride = (ptrdiff_t)AK_TILE * lanes;
    const int64_t j0 = tile * AK_TILE;
    if (problem->pages == NULL) return problem->kernels->pack_values(v, j0, n, problem->dv, panels, panel_stride);
    int finite = 1;
    for (int done = 0, part; done < n; done += part) {
        int64_t row;
        part = n - done;
        const ak_matrix page = page_of(problem, v, problem->v_page_stride, j0 + done, &row, &part);
        finite &= problem->kernels->pack_values(&page, row, part, problem->dv, (char *)panels + (size_t)done * (size_t)lanes * problem->real_size,
                                                panel_stride);
    }
    return finite;
}

void ak_block_stream_scores(ak_block *block, const ak_matrix *k, void *strip)
{
    const ak_problem *problem = block->problem;
    ak_tile *tile = &block->tile;
    const int col0 = tile->col0, col1 = tile->col1;
    for (int c = col0; c < col1; c += AK_STREAM_KEYS) {
        const int stop = c + AK_STREAM_KEYS < col1 ? c + AK_STREAM_KEYS : col1;
        const int n = (stop < tile->n_keys ? stop : tile->n_keys) - c;
        pack_keys(problem, k, tile->key0 + c, n, strip);
        tile->col0 = c;
        tile->col1 = stop;
        problem->kernels->scores(block->q, problem->d, strip, tile);
    }
    tile->col0 = col0;
    tile->col1 = col1;
    run_program(block);
}

size_t ak_packed_key_tile(const ak_problem *problem) { return (size_t)problem->d * AK_TILE * problem->real_size; }

int ak_value_panels(const ak_problem *problem)
{
    const int lanes = problem->kernels->lanes;
    return (problem->dv + lanes - 1) / lanes;
}

size_t ak_packed_value_tile(const ak_problem *problem)
{
    return (size_t)ak_value_panels(problem) * (size_t)problem->kernels->lanes * AK_TILE * problem->real_size;
}

void ak_pack_tile(const ak_problem *problem, const ak_packed *packed, const ak_matrix *k, const ak_matrix *v, int64_t tile)
{
    const size_t at = ak_packed_slot(packed, tile);
    if (packed->holds) packed->holds[at] = tile;
    pack_keys(problem, k, tile * AK_TILE, ak_tile_keys(problem, tile), packed->keys + at * ak_packed_key_tile(problem));
    if (problem->dv)
        packed->finite[at] = (unsigned char)ak_pack_values(problem, v, tile, packed->values + at * ak_packed_value_tile(problem));
}
