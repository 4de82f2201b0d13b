/* From the merged state of a block to final numbers in the caller's arrays. */
#include <string.h>
#include "attend_call.h"

static void put_reals(void *to, size_t real_size, int64_t at, const double *from, int64_t n)
{
    if (to == NULL) return;
    for (int64_t i = 0; i < n; i++) {
        const double x = from[i] != from[i] ? __builtin_nan("") : from[i] + 0.0;
        if (real_size == sizeof(float)) ((float *)to)[at + i] = (float)x;
        else ((double *)to)[at + i] = x;
    }
}

static void copy_rows(void *to, size_t real_size, int64_t at, const void *from, int64_t n)
{
    if (to) memcpy((char *)to + (size_t)at * real_size, from, (size_t)n * real_size);
}

static void read_sinks(const attend_call *call, workspace *space)
{
    const ak_operand *sinks = &call->options->sink_logits;
    const ak_rows *rows = &space->block.rows;
    for (int r = 0; r < rows->n_rows; r++) {
        const ak_matrix matrix = ak_head_matrix(call->problem, sinks, rows->head[r], 1);
        memcpy(&space->sink[r], matrix.data + rows->index[r] * matrix.row_stride, sizeof(double));
    }
}

/* The raw state, for merging with other ranges of keys. */
static void export_state(const attend_call *call, const ak_row_state *state, int n, int64_t at)
{
    const ak_row_outputs *out = call->out;
    const size_t size = call->problem->real_size, dv = (size_t)call->problem->dv;
    copy_rows(out->state_m, size, at, state->m, n);
    copy_rows(out->state_l, size, at, state->l, n);
    for (int r = 0; r < n && out->state_acc; r++)
        copy_rows(out->state_acc, size, (at + r) * (int64_t)dv, (const char *)state->acc + (size_t)r * (size_t)call->acc_stride * size,
                  (int64_t)dv);
}

/* m and 1 / l, for a second pass over the map. */
static void export_norms(const attend_call *call, const ak_row_state *state, int n, int64_t at)
{
    const ak_row_outputs *out = call->out;
    if (out->norm_max == NULL) return;
    copy_rows(out->norm_max, call->problem->real_size, at, state->m, n);
    for (int r = 0; r < n; r++) {
        if (call->problem->real_size == sizeof(float)) {
            const float l = ((const float *)state->l)[r];
            ((float *)out->norm_inv)[at + r] = l == 0 ? 0 : 1 / l;
        } else {
            const double l = ((const double *)state->l)[r];
            ((double *)out->norm_inv)[at + r] = l == 0 ? 0 : 1 / l;
        }
    }
}

static void report_rows(const attend_call *call, workspace *space, const ak_state_shape *shape, ak_row_state *state, const ak_row_state *keys,
                        const double *sink, int64_t at)
{
    const ak_row_outputs *out = call->out;
    const size_t size = call->problem->real_size;
    const int n = shape->n_rows, n_groups = shape->n_groups, topk = shape->topk;
    ak_report report;
    const struct { void *wanted; double **report; } columns[REPORT_ARRAYS] = {
        {out->lse, &report.lse},
        {out->entropy, &report.entropy},
        {out->purity, &report.purity},
        {out->max_weight, &report.max_weight},
        {out->mean_logit, &report.mean_logit},
        {out->sink_logit_mass, &report.sink_logit_mass},
        {out->distance, &report.distance},
        {out->distance_sq, &report.distance_sq},
        {out->abs_distance, &report.abs_distance},
        {out->sink_mass, &report.sink_mass},
    };
    int any = out->group_mass || out->topk_weight;
    double *slots = space->report;
    for (int i = 0; i < REPORT_ARRAYS; i++, slots += call->max_rows) {
        *columns[i].report = columns[i].wanted ? slots : NULL;
        any |= columns[i].wanted != NULL;
    }
    report.group_mass = out->group_mass ? slots : NULL;
    report.topk_weight = out->topk_weight ? slots + (size_t)call->max_rows * (size_t)n_groups : NULL;
    if (any) call->problem->kernels->state_report(shape, state, keys, sink, &report);
    for (int i = 0; i < REPORT_ARRAYS; i++) put_reals(columns[i].wanted, size, at, *columns[i].report, n);
    put_reals(out->group_mass, size, at * n_groups, report.group_mass, (int64_t)n * n_groups);
    put_reals(out->topk_weight, size, at * topk, report.topk_weight, (int64_t)n * topk);
    call->problem->kernels->state_indices(shape, state);
    if (out->argmax) memcpy(out->argmax + at, state->argmax, (size_t)n * sizeof(int64_t));
    if (out->count) memcpy(out->count + at, state->count, (size_t)n * sizeof(int64_t));
    if (out->topk_index) memcpy(out->topk_index + at * topk, state->top_j, (size_t)n * (size_t)topk * sizeof(int64_t));
}

static void store_out(const attend_call *call, const workspace *space, const ak_state_shape *shape, const ak_row_state *state)
{
    const ak_problem *problem = call->problem;
    const ak_rows *rows = &space->block.rows;
    ak_matrix matrix = call->out->out.matrix;
    if (matrix.data == NULL) return;
    problem->kernels->state_out(shape, state);
    int64_t head = -1;
    for (int r = 0; r < shape->n_rows; r++) {
        if (rows->head[r] != head) {
            head = rows->head[r];
            matrix = ak_head_matrix(problem, &call->out->out, head, 1);
        }
        problem->kernels->store_row((const char *)state->acc + (size_t)r * (size_t)call->acc_stride * problem->real_size, problem->dv,
                                    (char *)(uintptr_t)matrix.data + rows->index[r] * matrix.row_stride, matrix.col_stride, matrix.dtype);
    }
}

/* From the merged state of all keys to everything that was asked for. */
void ak_finish_block(const attend_call *call, workspace *space, ak_row_state *state)
{
    const ak_problem *problem = call->problem;
    const ak_state_shape shape = shape_of(call, space->block.rows.n_rows);
    const int64_t at = space->block.span.head * problem->lq + space->block.span.row0;
    const double *sink = NULL;
    export_state(call, state, shape.n_rows, at);
    const ak_row_state *keys = state;
    if (call->options->sink_logits.matrix.data) {
        const size_t bytes = (size_t)shape.n_rows * problem->real_size;
        memcpy(space->keys.m, state->m, bytes);
        memcpy(space->keys.l, state->l, bytes);
        if (state->t) memcpy(space->keys.t, state->t, bytes);
        keys = &space->keys;
        read_sinks(call, space);
        sink = space->sink;
        problem->kernels->state_sink(&shape, state, sink);
    }
    export_norms(call, state, shape.n_rows, at);
    if (call->mode == RECEIVED)
        ak_received_block(&call->received, &space->block, space->slot, state, call->out->row_weight, call->problem);
    report_rows(call, space, &shape, state, keys, sink, at);
    store_out(call, space, &shape, state);
}

ak_row_state *ak_merged_state(const attend_call *call, workspace *space, ak_counter *counter, ak_row_state *spare)
{
    const int entry = ak_counter_finish(counter);
    if (entry >= 0) return &counter->pool[entry];
    const ak_state_shape shape = shape_of(call, space->block.rows.n_rows);
    space->lanes.d1 = spare->d1;
    space->lanes.d2 = spare->d2;
    space->lanes.da = spare->da;
    space->lanes.argmax = spare->argmax;
    call->problem->kernels->lanes_reset(shape.n_rows, call->stats, &space->lanes);
    ak_state_reset(&shape, call->problem->real_size, spare);
    call->problem->kernels->lanes_finish(shape.n_rows, call->stats, &space->lanes, spare);
    return spare;
}
