/* Shared by attend.c (how work is cut and shared out), finish.c (from a merged state to results) and received.c (column
 * statistics of the same pass). */
#ifndef AK_ATTEND_ATTEND_CALL_H
#define AK_ATTEND_ATTEND_CALL_H
#include "attend.h"
#include "received.h"
#include "states.h"
#include "tile.h"

enum {
    REPORT_ARRAYS = 10,        /* arrays of ak_report with one number per row */
    ROLL_BLOCKS = 32,          /* blocks of a rolling task: enough to pack few tiles twice at its ends */
    LONG_PACKED = 32 << 20     /* bytes of packed keys and values beyond which threads roll instead of packing all */
};

typedef enum mode {
    STREAM,   /* a run is one block (decoding): its keys stream past once, packed a few at a time */
    OWN_RUNS, /* many runs, or one thread: a task packs a run and does all its blocks */
    SHARED,   /* few runs: all threads pack a run together, then share out its blocks */
    ROLLING,  /* blocks meet few tiles each (windows): a task packs tiles as it comes to them, in as many slots as it needs */
    RECEIVED  /* as SHARED, for calls that want column statistics too: received.h */
} mode;

typedef struct workspace {
    ak_block block;
    ak_row_lanes lanes;
    ak_row_state pool[AK_COUNTER_LEVELS + 2];
    char *strip, *value_tile;
    ak_row_state keys; /* m, l and t before a sink logit */
    double *report, *sink;
    const char *keep[AK_BLOCK_ROWS];
    int slot;                     /* RECEIVED: of the block in work */
} workspace;

typedef struct attend_call {
    const ak_problem *problem;
    const ak_row_options *options;
    const ak_row_outputs *out;
    int stats;
    ptrdiff_t acc_stride;
    int64_t per_run, n_runs;      /* heads of a run; runs */
    int64_t blocks_per_head, heads_per_block, blocks_per_run;
    int64_t n_chunks;
    int max_rows, n_pool;
    int values_in_place;
    mode mode;
    int split;                    /* chunks of a block are tasks of their own: fewer blocks than threads */
    workspace *spaces;
    int64_t run;                  /* SHARED: the run in work */
    int64_t first_tile, n_slots;  /* of every ak_packed */
    ak_packed packed;             /* SHARED */
    ak_packed *thread_packed;     /* OWN_RUNS, ROLLING */
    int64_t *thread_run;          /* ROLLING: whose tiles are in thread_packed */
    /* states of (block, chunk) tasks */
    ak_row_state *chunk_states;
    unsigned char *chunk_filled;
    ak_received received;           /* RECEIVED */
} attend_call;

static inline ak_state_shape shape_of(const attend_call *call, int n_rows)
{
    return (ak_state_shape){.n_rows = n_rows, .stats = call->stats, .n_groups = call->options->n_groups, .topk = call->options->topk,
                            .acc_stride = call->acc_stride};
}

/* finish.c: the merged state of all chunks in `counter`, or the empty one in `spare`; and everything that was asked for from it. */
ak_row_state *ak_merged_state(const attend_call *call, workspace *space, ak_counter *counter, ak_row_state *spare);
void ak_finish_block(const attend_call *call, workspace *space, ak_row_state *state);

#endif
