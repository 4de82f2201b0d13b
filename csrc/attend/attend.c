/* The row pass. A *run* is the consecutive heads that share keys and values; a *block* is up to AK_BLOCK_ROWS rows of a run. How
 * work is cut (enum mode) never changes a byte of the result. */
#include <string.h>
#include "../core/fpmode.h"
#include "../core/memory.h"
#include "attend_call.h"
#include "map.h"

/* ---- geometry ------------------------------------------------------------------------------------------------- */

static void cut_blocks(attend_call *call)
{
    const ak_problem *problem = call->problem;
    call->per_run = ak_heads_per_run(problem);
    call->n_runs = problem->n_heads / call->per_run;
    call->heads_per_block = problem->lq >= AK_BLOCK_ROWS ? 1 : AK_BLOCK_ROWS / problem->lq;
    call->blocks_per_head = (problem->lq + AK_BLOCK_ROWS - 1) / AK_BLOCK_ROWS;
    call->blocks_per_run = call->heads_per_block > 1 ? (call->per_run + call->heads_per_block - 1) / call->heads_per_block
                                                     : call->per_run * call->blocks_per_head;
    const int64_t tiles = ak_plan_n_tiles(problem->lk);
    call->n_chunks = (tiles + AK_CHUNK_TILES - 1) / AK_CHUNK_TILES;
    const int64_t rows = call->heads_per_block > 1 && call->per_run < call->heads_per_block ? call->per_run * problem->lq
                         : call->heads_per_block > 1                                        ? call->heads_per_block * problem->lq
                                                                                            : problem->lq;
    call->max_rows = rows < AK_BLOCK_ROWS ? (int)rows : AK_BLOCK_ROWS;
}

static ak_block_span span_of(const attend_call *call, int64_t run, int64_t block)
{
    const ak_problem *problem = call->problem;
    ak_block_span span = {.head = run * call->per_run, .n_heads = 1, .row0 = 0, .row1 = problem->lq};
    if (call->heads_per_block > 1) {
        const int64_t first = block * call->heads_per_block, left = call->per_run - first;
        span.head += first;
        span.n_heads = (int)(left < call->heads_per_block ? left : call->heads_per_block);
        return span;
    }
    span.head += block / call->blocks_per_head;
    span.row0 = block % call->blocks_per_head * AK_BLOCK_ROWS;
    if (span.row1 - span.row0 > AK_BLOCK_ROWS) span.row1 = span.row0 + AK_BLOCK_ROWS;
    return span;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static size_t lanes_bytes(const attend_call *call)
{
    return ak_line((size_t)call->max_rows * (size_t)call->problem->kernels->lanes * call->problem->real_size);
}

static size_t report_entries(const attend_call *call)
{
    return (size_t)call->max_rows * (size_t)(REPORT_ARRAYS + call->options->n_groups + call->options->topk);
}

static size_t workspace_bytes(const attend_call *call)
{
    const ak_problem *problem = call->problem;
    const ak_state_shape shape = shape_of(call, call->max_rows);
    const size_t row_reals = ak_line((size_t)call->max_rows * problem->real_size);
    return ak_block_bytes(problem, call->max_rows) + 5 * lanes_bytes(call) + 5 * row_reals +
           (size_t)call->n_pool * ak_state_bytes(&shape, problem->real_size) + ak_line(report_entries(call) * sizeof(double)) +
           ak_line((size_t)call->max_rows * sizeof(double)) + ak_line(AK_STREAM_KEYS * (size_t)problem->d * problem->real_size) +
           (call->mode == STREAM && problem->dv && !call->values_in_place ? ak_packed_value_tile(problem) : 0);
}

static void bind_workspace(const attend_call *call, workspace *space, char *slab)
{
    const ak_problem *problem = call->problem;
    const ak_state_shape shape = shape_of(call, call->max_rows);
    const size_t lanes = lanes_bytes(call), row_reals = ak_line((size_t)call->max_rows * problem->real_size);
    slab = ak_block_bind(&space->block, problem, call->max_rows, slab);
    if (call->options->dropout_keep.matrix.data) space->block.steps_mask = 1; /* it clears bits */
    void **lane_arrays[] = {&space->lanes.l, &space->lanes.t, &space->lanes.u, &space->lanes.c, &space->lanes.r2};
    for (int i = 0; i < 5; i++, slab += lanes) *lane_arrays[i] = slab;
    space->lanes.m = slab;
    space->lanes.alpha = slab + row_reals;
    space->keys = (ak_row_state){.m = slab + 2 * row_reals, .l = slab + 3 * row_reals, .t = slab + 4 * row_reals};
    slab += 5 * row_reals;
    for (int i = 0; i < call->n_pool; i++, slab += ak_state_bytes(&shape, problem->real_size))
        ak_state_bind(&shape, problem->real_size, slab, &space->pool[i]);
    space->report = (double *)(void *)slab;
    slab += ak_line(report_entries(call) * sizeof(double));
    space->sink = (double *)(void *)slab;
    slab += ak_line((size_t)call->max_rows * sizeof(double));
    space->strip = slab;
    space->value_tile = slab + ak_line(AK_STREAM_KEYS * (size_t)problem->d * problem->real_size);
}

/* ---- one tile, one chunk, one block --------------------------------------------------------------------------- */

static void tile_values(const attend_call *call, workspace *space, const ak_matrix *v, const ak_packed *packed, int64_t number,
                        ak_row_state *state)
{
    const ak_problem *problem = call->problem;
    const ak_tile_kernels *kernels = problem->kernels;
    const ak_tile *tile = &space->block.tile;
    const void *from;
    ptrdiff_t row_stride = kernels->lanes, panel_stride = (ptrdiff_t)AK_TILE * kernels->lanes;
    int finite = 1;
    if (packed) {
        const size_t at = ak_packed_slot(packed, number);
        from = packed->values + at * ak_packed_value_tile(problem);
        finite = packed->finite[at];
    } else if (call->values_in_place) {
        from = v->data + tile->key0 * v->row_stride;
        row_stride = v->row_stride / (ptrdiff_t)problem->real_size;
        panel_stride = kernels->lanes;
        if (tile->has_bits) finite = kernels->values_finite(v, tile->key0, tile->n_keys, problem->dv);
    } else {
        finite = ak_pack_values(problem, v, number, space->value_tile);
        from = space->value_tile;
    }
    (tile->has_bits && !finite ? kernels->values_skipping : kernels->values)(tile, from, row_stride, panel_stride, ak_value_panels(problem),
                                                                             space->lanes.alpha, state->acc, call->acc_stride);
}

static void absorb_tile(const attend_call *call, workspace *space, const ak_matrix *k, const ak_matrix *v, const ak_packed *packed,
                        int64_t number, ak_row_state *state)
{
    const ak_problem *problem = call->problem;
    const ak_tile_kernels *kernels = problem->kernels;
    const ak_row_options *options = call->options;
    ak_block *block = &space->block;
    if (packed && packed->holds && packed->holds[ak_packed_slot(packed, number)] != number) ak_pack_tile(problem, packed, k, v, number);
    if (packed) ak_block_scores(block, packed->keys + ak_packed_slot(packed, number) * ak_packed_key_tile(problem));
    else ak_block_stream_scores(block, k, space->strip);
    ak_tile *tile = &block->tile;
    if (call->stats & AK_STAT_COUNT)
        for (int r = 0; r < tile->n_rows; r++) {
            if (!tile->has_bits) state->count[r] += tile->n_keys;
            else
                for (int w = 0; w < AK_TILE_WORDS; w++) state->count[r] += __builtin_popcountll(tile->bits[r][w]);
        }
    if (call->stats & AK_STAT_TOPK) kernels->top_scores(tile, options->topk, state->top_s, state->top_j);
    if (call->mode == RECEIVED) ak_received_save(&call->received, block, space->slot, number);
    kernels->weights(tile, call->stats, &space->lanes);
    if (call->stats & AK_STAT_SINK) kernels->sink_mass(tile, space->lanes.alpha, options->sink_size, state->sink);
    if (call->stats & AK_STAT_GROUPS)
        kernels->group_mass(tile, space->lanes.alpha, options->groups + tile->key0, options->n_groups, state->groups);
    if (options->dropout_keep.matrix.data) kernels->dropout(tile, space->keep, options->dropout_keep.matrix.col_stride, options->dropout_scale);
    if (call->acc_stride) tile_values(call, space, v, packed, number, state);
}

/* One chunk of the block in `space`; the state comes from `fresh` when the first tile is met. -1 = stopped, 0 = empty. */
static int absorb_chunk(const attend_call *call, workspace *space, const ak_matrix *k, const ak_matrix *v, const ak_packed *packed,
                        int64_t first, int64_t last, ak_row_state *state, ak_run *run, int thread)
{
    const ak_problem *problem = call->problem;
    const ak_state_shape shape = shape_of(call, space->block.rows.n_rows);
    int filled = 0;
    for (int64_t number = first; number < last; number++) {
        if (ak_run_stopped(run, thread)) return -1;
        if (!ak_block_meet(&space->block, number)) continue;
        if (!filled) {
            filled = 1;
            space->lanes.d1 = state->d1;
            space->lanes.d2 = state->d2;
            space->lanes.da = state->da;
            space->lanes.argmax = state->argmax;
            problem->kernels->lanes_reset(shape.n_rows, call->stats, &space->lanes);
            ak_state_reset(&shape, problem->real_size, state);
        }
        absorb_tile(call, space, k, v, packed, number, state);
    }
    if (filled) problem->kernels->lanes_finish(shape.n_rows, call->stats, &space->lanes, state);
    return filled;
}

static void begin_block(const attend_call *call, workspace *space, ak_block_span span)
{
    const ak_problem *problem = call->problem;
    ak_block_place(&space->block, span, NULL);
    ak_block_load(&space->block);
    const ak_operand *keep = &call->options->dropout_keep;
    if (!keep->matrix.data) return;
    for (int r = 0; r < space->block.rows.n_rows; r++) {
        const ak_matrix matrix = ak_head_matrix(problem, keep, space->block.rows.head[r], 1);
        space->keep[r] = matrix.data + space->block.rows.index[r] * matrix.row_stride;
    }
}

/* ---- tasks ---------------------------------------------------------------------------------------------------- */

static void run_matrices(const attend_call *call, int64_t run, ak_matrix *k, ak_matrix *v)
{
    const ak_problem *problem = call->problem;
    const int64_t head = run * call->per_run;
    *k = ak_head_matrix(problem, &problem->k, head, problem->kv_group);
    *v = ak_head_matrix(problem, &problem->v, head, problem->kv_group);
}

/* A whole block: every chunk it touches, then its final numbers. 0 = stopped. */
static int do_block(const attend_call *call, int64_t run_number, int64_t block, const ak_packed *packed, ak_run *run, int thread)
{
    const ak_problem *problem = call->problem;
    workspace *space = &call->spaces[thread];
    ak_matrix k, v;
    run_matrices(call, run_number, &k, &v);
    begin_block(call, space, span_of(call, run_number, block));
    const ak_state_shape shape = shape_of(call, space->block.rows.n_rows);
    ak_counter counter;
    ak_counter_start(&counter, problem->kernels, &shape, space->pool, call->n_pool);
    int64_t first, last;
    ak_block_tiles(&space->block, &first, &last);
    if (first < last) ak_counter_push_empty(&counter, first / AK_CHUNK_TILES);
    while (first < last) {
        int64_t stop = (first / AK_CHUNK_TILES + 1) * AK_CHUNK_TILES;
        if (stop > last) stop = last;
        const int fresh = ak_counter_take(&counter);
        const int filled = absorb_chunk(call, space, &k, &v, packed, first, stop, &space->pool[fresh], run, thread);
        if (filled < 0) return 0;
        if (!filled) ak_counter_return(&counter, fresh);
        ak_counter_push(&counter, filled ? fresh : -1);
        first = stop;
    }
    ak_finish_block(call, space, ak_merged_state(call, space, &counter, &space->pool[call->n_pool - 1]));
    return 1;
}

static void stream_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    do_block(ctx, task, 0, NULL, run, thread);
}

static void own_run_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    const ak_packed *packed = &call->thread_packed[thread];
    ak_matrix k, v;
    run_matrices(call, task, &k, &v);
    for (int64_t i = 0; i < call->n_slots; i++) {
        if (ak_run_stopped(run, thread)) return;
        ak_pack_tile(call->problem, packed, &k, &v, packed->first + i);
    }
    for (int64_t block = 0; block < call->blocks_per_run; block++)
        if (!do_block(call, task, block, packed, run, thread)) return;
}

static int64_t rolls_per_run(const attend_call *call) { return (call->blocks_per_run + ROLL_BLOCKS - 1) / ROLL_BLOCKS; }

static void rolling_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    const int64_t run_number = task / rolls_per_run(call), first = task % rolls_per_run(call) * ROLL_BLOCKS;
    const ak_packed *packed = &call->thread_packed[thread];
    if (call->thread_run[thread] != run_number) {
        call->thread_run[thread] = run_number;
        for (int64_t i = 0; i < call->n_slots; i++) packed->holds[i] = -1;
    }
    for (int64_t block = first; block < first + ROLL_BLOCKS && block < call->blocks_per_run; block++)
        if (!do_block(call, run_number, block, packed, run, thread)) return;
}

static void pack_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    (void)thread;
    (void)run;
    ak_matrix k, v;
    run_matrices(call, call->run, &k, &v);
    ak_pack_tile(call->problem, &call->packed, &k, &v, call->packed.first + task);
}

/* Last block first: under causal masks it is the longest. */
static void block_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    do_block(call, call->run, call->blocks_per_run - 1 - task, &call->packed, run, thread);
}

/* RECEIVED: the blocks of one head go in waves, so that their columns can be added in the order of the rows. */
static void wave_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    call->spaces[thread].slot = (int)task;
    ak_received_begin(&call->received, (int)task, thread);
    do_block(call, call->run, call->received.first_block + task, &call->packed, run, thread);
}

static void add_columns_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    (void)thread;
    (void)run;
    ak_received_add(&call->received, call->problem, task);
}

static ak_status run_waves(attend_call *call, int n_threads)
{
    ak_received *columns = &call->received;
    const ak_poll *poll = call->problem->poll;
    for (int64_t head = 0; head < call->per_run; head++)
        for (int64_t block = 0; block < call->blocks_per_head; block += columns->n_slots) {
            const int64_t left = call->blocks_per_head - block;
            columns->head = call->run * call->per_run + head;
            columns->first_block = head * call->blocks_per_head + block;
            columns->n_blocks = left < columns->n_slots ? (int)left : columns->n_slots;
            columns->is_first = block == 0;
            AK_TRY(ak_run_tasks(columns->n_blocks, n_threads, wave_task, call, poll));
            AK_TRY(ak_run_tasks((ptrdiff_t)ak_plan_n_tiles(call->problem->lk), n_threads, add_columns_task, call, poll));
        }
    return AK_OK;
}

/* Chunks as tasks: one state per (block, chunk), for the blocks of all runs (streaming) or of the run in work. */
static void chunk_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    workspace *space = &call->spaces[thread];
    const int streaming = call->mode == STREAM;
    const int64_t block = task / call->n_chunks, chunk = task % call->n_chunks, run_number = streaming ? block : call->run;
    ak_matrix k, v;
    run_matrices(call, run_number, &k, &v);
    begin_block(call, space, span_of(call, run_number, streaming ? 0 : block));
    int64_t first, last;
    ak_block_tiles(&space->block, &first, &last);
    if (first < chunk * AK_CHUNK_TILES) first = chunk * AK_CHUNK_TILES;
    if (last > (chunk + 1) * AK_CHUNK_TILES) last = (chunk + 1) * AK_CHUNK_TILES;
    const int filled = absorb_chunk(call, space, &k, &v, streaming ? NULL : &call->packed, first, last, &call->chunk_states[task], run, thread);
    call->chunk_filled[task] = filled > 0;
}

static void merge_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    const attend_call *call = ctx;
    workspace *space = &call->spaces[thread];
    const int streaming = call->mode == STREAM;
    (void)run;
    begin_block(call, space, span_of(call, streaming ? task : call->run, streaming ? 0 : task));
    const ak_state_shape shape = shape_of(call, space->block.rows.n_rows);
    ak_counter counter;
    ak_counter_start(&counter, call->problem->kernels, &shape, call->chunk_states + task * call->n_chunks, 0);
    for (int64_t chunk = 0; chunk < call->n_chunks; chunk++)
        ak_counter_push(&counter, call->chunk_filled[task * call->n_chunks + chunk] ? (int)chunk : -1);
    ak_finish_block(call, space, ak_merged_state(call, space, &counter, &space->pool[call->n_pool - 1]));
}

/* ---- the call ------------------------------------------------------------------------------------------------- */

static int wanted_stats(const ak_row_outputs *out, const ak_row_options *options)
{
    int stats = 0;
    if (out->entropy || out->mean_logit) stats |= AK_STAT_ENTROPY;
    if (out->purity) stats |= AK_STAT_PURITY;
    if (out->distance || out->distance_sq || out->abs_distance) stats |= AK_STAT_DISTANCE;
    if (out->argmax) stats |= AK_STAT_ARGMAX;
    if (out->count) stats |= AK_STAT_COUNT;
    if (options->topk > 0) stats |= AK_STAT_TOPK;
    if (out->group_mass) stats |= AK_STAT_GROUPS;
    if (out->sink_mass) stats |= AK_STAT_SINK;
    return stats;
}

/* A team costs more than it saves on short calls. */
static int threads_for(const ak_problem *problem)
{
    const double flops = 2.0 * (double)problem->n_heads * (double)problem->lq * (double)problem->lk * (double)(problem->d + problem->dv);
    return flops < 8e6 ? 1 : ak_threads_get();
}

static ak_status run_everything(attend_call *call, int n_threads)
{
    const ak_poll *poll = call->problem->poll;
    const ptrdiff_t n_runs = (ptrdiff_t)call->n_runs, n_blocks = (ptrdiff_t)call->blocks_per_run, n_chunks = (ptrdiff_t)call->n_chunks;
    switch (call->mode) {
    case STREAM:
        if (!call->split) return ak_run_tasks(n_runs, n_threads, stream_task, call, poll);
        AK_TRY(ak_run_tasks(n_runs * n_chunks, n_threads, chunk_task, call, poll));
        return ak_run_tasks(n_runs, n_threads, merge_task, call, poll);
    case OWN_RUNS: return ak_run_tasks(n_runs, n_threads, own_run_task, call, poll);
    case ROLLING: return ak_run_tasks(n_runs * (ptrdiff_t)rolls_per_run(call), n_threads, rolling_task, call, poll);
    case SHARED:
    case RECEIVED: break;
    }
    for (call->run = 0; call->run < call->n_runs; call->run++) {
        AK_TRY(ak_run_tasks((ptrdiff_t)call->n_slots, n_threads, pack_task, call, poll));
        if (call->mode == RECEIVED) {
            AK_TRY(run_waves(call, n_threads));
            continue;
        }
        if (!call->split) {
            AK_TRY(ak_run_tasks(n_blocks, n_threads, block_task, call, poll));
            continue;
        }
        AK_TRY(ak_run_tasks(n_blocks * n_chunks, n_threads, chunk_task, call, poll));
        AK_TRY(ak_run_tasks(n_blocks, n_threads, merge_task, call, poll));
    }
    return AK_OK;
}

static size_t packed_bytes(const attend_call *call)
{
    const ak_problem *problem = call->problem;
    const size_t tiles = (size_t)call->n_slots;
    return tiles * (ak_packed_key_tile(problem) + ak_packed_value_tile(problem)) + ak_line(tiles) + ak_line(tiles * sizeof(int64_t));
}

static void bind_packed(const attend_call *call, ak_packed *packed, char *slab)
{
    const size_t tiles = (size_t)call->n_slots;
    packed->first = call->first_tile;
    packed->n_slots = call->n_slots;
    packed->keys = slab;
    slab += tiles * ak_packed_key_tile(call->problem);
    packed->values = slab;
    slab += tiles * ak_packed_value_tile(call->problem);
    packed->holds = call->mode == ROLLING ? (int64_t *)(void *)slab : NULL;
    packed->finite = (unsigned char *)slab + ak_line(tiles * sizeof(int64_t));
}

/* Most tiles that one block of the run may touch, from its first to its last. */
static int64_t widest_block(const attend_call *call)
{
    int64_t widest = 0;
    for (int64_t row = 0; row < call->problem->lq; row += AK_BLOCK_ROWS) {
        int64_t first, last, stop = row + AK_BLOCK_ROWS;
        if (stop > call->problem->lq) stop = call->problem->lq;
        ak_plan_tile_range(&call->problem->plan, NULL, row, stop, &first, &last);
        if (last - first > widest) widest = last - first;
    }
    return widest;
}

/* How the work is cut, and how many tiles of keys are kept packed. */
static void choose_mode(attend_call *call, int n_threads)
{
    const ak_problem *problem = call->problem;
    const int many_runs = n_threads == 1 || call->n_runs >= 4 * n_threads;
    int64_t last = ak_plan_n_tiles(problem->lk);
    call->mode = call->blocks_per_run == 1 ? STREAM : many_runs ? OWN_RUNS : SHARED;
    if (problem->plan.n_nodes && !problem->plan_per_head && call->mode != STREAM) {
        ak_plan_tile_range(&problem->plan, NULL, 0, problem->lq, &call->first_tile, &last);
        if (last < call->first_tile) last = call->first_tile;
    }
    call->n_slots = call->mode == STREAM ? 0 : last - call->first_tile;
    if (problem->plan.n_nodes && !problem->plan_per_head && call->heads_per_block == 1 && call->mode != STREAM &&
        (n_threads == 1 || packed_bytes(call) > LONG_PACKED)) {
        const int64_t widest = widest_block(call);
        if (widest > 0 && widest <= call->n_slots / 2) {
            call->mode = ROLLING;
            call->n_slots = widest;
        }
    }
    if (call->out->received && call->mode != STREAM && call->mode != ROLLING && call->heads_per_block == 1 && problem->lq >= AK_BLOCK_ROWS &&
        ak_received_fits(problem))
        call->mode = RECEIVED;
    const int64_t units = call->mode == STREAM ? call->n_runs : call->blocks_per_run;
    call->split = n_threads > 1 && (call->mode == STREAM || call->mode == SHARED) && call->n_chunks > 1 && units < 4 * n_threads;
}

/* Column statistics where the pass itself cannot give them: a second pass, the same bytes. */
static ak_status columns_afterwards(const ak_problem *problem, const ak_row_outputs *out)
{
    ak_problem scores = *problem;
    scores.dv = 0;
    const ak_map_rows rows = {.n = problem->lq, .norm_max = out->norm_max, .norm_inv = out->norm_inv};
    return ak_map_columns(&scores, &rows, out->row_weight, out->received, out->received_max, out->visible);
}

ak_status ak_attend(const ak_problem *problem, const ak_row_options *options, const ak_row_outputs *out)
{
    if (problem->n_heads == 0 || problem->lq == 0) return AK_OK;
    attend_call call = {.problem = problem, .options = options, .out = out, .stats = wanted_stats(out, options)};
    const int lanes = problem->kernels->lanes;
    call.acc_stride = problem->dv ? (ptrdiff_t)ak_value_panels(problem) * lanes : 0;
    cut_blocks(&call);
    call.n_pool = ak_counter_pool(call.n_chunks) + 1;
    const ak_matrix *v = &problem->v.matrix;
    call.values_in_place = problem->dv && problem->pages == NULL && v->dtype == (problem->real_size == 4 ? AK_F32 : AK_F64) && problem->dv % lanes == 0 &&
                           v->col_stride == (ptrdiff_t)problem->real_size && v->row_stride % (ptrdiff_t)problem->real_size == 0 &&
                           (uintptr_t)v->data % problem->real_size == 0;
    for (int a = 0; a < problem->n_batch; a++) call.values_in_place &= problem->v.head_strides[a] % (ptrdiff_t)problem->real_size == 0;
    const int n_threads = threads_for(problem);
    choose_mode(&call, n_threads);

    /* Everything the call needs in one block, before it writes anything. */
    const ak_state_shape shape = shape_of(&call, call.max_rows);
    const size_t threads = (size_t)n_threads, n_packs = call.mode == STREAM ? 0 : call.mode == SHARED || call.mode == RECEIVED ? 1 : threads;
    const size_t n_states = call.split ? (size_t)((call.mode == STREAM ? call.n_runs : call.blocks_per_run) * call.n_chunks) : 0;
    const struct { size_t count, size; } parts[] = {
        {threads, workspace_bytes(&call)},       {n_packs, packed_bytes(&call)},         {n_states, ak_state_bytes(&shape, problem->real_size)},
        {threads, ak_line(sizeof *call.spaces)}, {threads, sizeof *call.thread_packed}, {n_states, sizeof *call.chunk_states},
        {n_states, 1},                           {threads, sizeof *call.thread_run},
        {1, call.mode == RECEIVED ? ak_received_bytes(problem, n_threads) : 0},
    };
    enum { N_PARTS = sizeof parts / sizeof parts[0] };
    size_t offset[N_PARTS + 1] = {0};
    for (int i = 0; i < N_PARTS; i++) {
        const size_t limit = SIZE_MAX / 4;
        if (parts[i].size && parts[i].count > limit / parts[i].size) return AK_NO_MEMORY;
        offset[i + 1] = offset[i] + ak_line(parts[i].count * parts[i].size);
        if (offset[i + 1] > limit) return AK_NO_MEMORY;
    }
    char *slab = ak_alloc(offset[N_PARTS]);
    if (slab == NULL) return AK_NO_MEMORY;
    call.spaces = (workspace *)(void *)(slab + offset[3]);
    call.thread_packed = (ak_packed *)(void *)(slab + offset[4]);
    call.chunk_states = (ak_row_state *)(void *)(slab + offset[5]);
    call.chunk_filled = (unsigned char *)slab + offset[6];
    call.thread_run = (int64_t *)(void *)(slab + offset[7]);
    for (size_t t = 0; t < threads; t++) {
        bind_workspace(&call, &call.spaces[t], slab + offset[0] + t * parts[0].size);
        if (call.mode == OWN_RUNS || call.mode == ROLLING) bind_packed(&call, &call.thread_packed[t], slab + offset[1] + t * parts[1].size);
        call.thread_run[t] = -1;
    }
    if (call.mode == SHARED || call.mode == RECEIVED) bind_packed(&call, &call.packed, slab + offset[1]);
    if (call.mode == RECEIVED)
        ak_received_bind(&call.received, problem, n_threads, slab + offset[8], out->received, out->received_max, out->visible);
    for (size_t i = 0; i < n_states; i++) ak_state_bind(&shape, problem->real_size, slab + offset[2] + i * parts[2].size, &call.chunk_states[i]);
    const ak_status status = run_everything(&call, n_threads);
    ak_free(slab);
    if (status != AK_OK || out->received == NULL || call.mode == RECEIVED) return status;
    return columns_afterwards(problem, out);
}

void ak_merge_states(const ak_tile_kernels *kernels, int64_t n_rows, int dv, void *a_m, void *a_l, void *a_acc, const void *b_m,
                     const void *b_l, const void *b_acc)
{
    const size_t size = kernels->lanes == 16 ? sizeof(float) : sizeof(double);
    ak_state_shape shape = {.n_rows = 1, .acc_stride = dv};
    const ak_fpmode found = ak_fpmode_enter();
    for (int64_t r = 0; r < n_rows; r++) {
        const size_t row = (size_t)r * size, values = (size_t)r * (size_t)dv * size;
        ak_row_state a = {.m = (char *)a_m + row, .l = (char *)a_l + row, .acc = (char *)a_acc + values};
        ak_row_state b = {.m = (char *)(uintptr_t)b_m + row, .l = (char *)(uintptr_t)b_l + row, .acc = (char *)(uintptr_t)b_acc + values};
        kernels->state_merge(&shape, &a, &b);
    }
    ak_fpmode_leave(found);
}

void ak_finish_states(const ak_tile_kernels *kernels, int64_t n_rows, int dv, void *m, void *l, void *acc, const double *sink, double *lse)
{
    const size_t size = kernels->lanes == 16 ? sizeof(float) : sizeof(double);
    const ak_state_shape shape = {.n_rows = 1, .acc_stride = dv};
    const ak_fpmode found = ak_fpmode_enter();
    for (int64_t r = 0; r < n_rows; r++) {
        ak_row_state state = {.m = (char *)m + (size_t)r * size, .l = (char *)l + (size_t)r * size,
                              .acc = (char *)acc + (size_t)r * (size_t)dv * size};
        if (sink) kernels->state_sink(&shape, &state, sink + r);
        const ak_report report = {.lse = lse + r};
        kernels->state_report(&shape, &state, &state, NULL, &report);
        kernels->state_out(&shape, &state);
        kernels->store_row(state.acc, dv, state.acc, (ptrdiff_t)size, size == sizeof(float) ? AK_F32 : AK_F64);
    }
    ak_fpmode_leave(found);
}
