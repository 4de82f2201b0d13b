/* One attention problem: operands, score program and mask plan over a broadcast batch of heads.
 *
 * Heads are numbered 0 .. n_heads-1 over `shape` (the broadcast leading axes of q, row-major; the last one is the head
 * axis). An operand finds its matrix of a head by strides; k and v divide the index on the last axis by kv_group, so
 * that query heads share keys. `scores -> program -> weighting -> values` is the route of every tile; what is done with a
 * tile (attend.c: online weights, map.c: the normalised map) never looks into how it was made (tile.c). */
#ifndef AK_ATTEND_PROBLEM_H
#define AK_ATTEND_PROBLEM_H
#include "../core/status.h"
#include "../core/threads.h"
#include "../core/views.h"
#include "../kernels/kernels.h"
#include "plan.h"

typedef struct ak_operand {
    ak_matrix matrix; /* of head 0; data NULL = absent */
    ptrdiff_t head_strides[AK_MAX_BATCH_DIMS];
} ak_operand;

typedef struct ak_score_step {
    ak_score_kind kind;
    double value;       /* SOFTCAP: the cap */
    ak_operand operand; /* BIAS: (Lq, Lk) of each head; ALIBI: one number per head (strides of rows and columns unused) */
} ak_score_step;

enum { AK_MAX_STEPS = 8 };

typedef struct ak_problem {
    int n_batch;
    int64_t shape[AK_MAX_BATCH_DIMS];
    int64_t n_heads;  /* product of shape */
    int64_t kv_group; /* query heads per key head on the last axis */
    int64_t lq, lk;
    int d, dv;        /* dv = 0: no values */
    int64_t offset;   /* position of query 0 */
    double scale;
    ak_operand q, k, v;
    /* Paged keys and values: key j is row j % page_rows of page pages[j / page_rows]; page_rows is a multiple of the lanes. The
     * matrices of k and v then are those of page 0. pages NULL = rows follow each other. */
    const int64_t *pages;
    int64_t page_rows;
    ptrdiff_t k_page_stride, v_page_stride; /* bytes */
    int n_steps;
    ak_score_step steps[AK_MAX_STEPS];
    ak_plan plan;
    int plan_per_head;   /* does the plan read head indices? */
    int weight_units;      /* 1: scores in units of ln 16, for weights; 0: plain logits */
    const ak_tile_kernels *kernels;
    size_t real_size;    /* 4 or 8 */
    const ak_poll *poll;
} ak_problem;

/* Indices of a head on the batch axes; offset of its matrix in an operand. */
void ak_head_index(const ak_problem *problem, int64_t head, int64_t *index);
ak_matrix ak_head_matrix(const ak_problem *problem, const ak_operand *operand, int64_t head, int64_t group);

/* Consecutive heads that read the same k and v: a run. n_heads is a multiple of it. */
int64_t ak_heads_per_run(const ak_problem *problem);

/* Bytes rounded up to cache lines, for laying out one slab. */
static inline size_t ak_line(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

#endif
