/* The row pass: one sweep over the tiles of every row that gives output rows and row statistics. */
#ifndef AK_ATTEND_ATTEND_H
#define AK_ATTEND_ATTEND_H
#include "problem.h"

/* What to compute and where to put it. Row arrays are C-contiguous over (n_heads, lq[, extra]); REAL is float or double
 * as the problem's kernels say. NULL = not wanted. Nothing is written before all memory of the call is there. */
typedef struct ak_row_outputs {
    ak_operand out;              /* (lq, dv) per head, any strides and float dtype; data NULL = none */
    void *lse, *entropy, *purity, *max_weight, *mean_logit, *sink_logit_mass; /* REAL */
    void *distance, *distance_sq, *abs_distance, *sink_mass, *group_mass, *topk_weight;
    int64_t *argmax, *count, *topk_index;
    void *norm_max, *norm_inv;   /* REAL: m and 1 / l of each row, for map.c (0 for rows without key) */
    double *received, *received_max; /* (n_heads, lk): sum of w p and max p over the rows; with all three set, norm_max is too */
    int64_t *visible;                /* (n_heads, lk): rows that may see the key */
    const void *row_weight;          /* REAL (n_heads, lq): w; NULL = 1 */
    void *state_m, *state_l, *state_acc; /* REAL: raw state instead of out, for merging with other key ranges */
} ak_row_outputs;

typedef struct ak_row_options {
    int topk;
    int64_t sink_size;
    const int32_t *groups;       /* lk entries, negative = none */
    int n_groups;
    ak_operand sink_logits;      /* one number per (head, row); data NULL = none */
    ak_operand dropout_keep;     /* bytes (lq, lk) per head; data NULL = none */
    double dropout_scale;        /* 1 / (1 - p) */
} ak_row_options;

ak_status ak_attend(const ak_problem *problem, const ak_row_options *options, const ak_row_outputs *out);

/* Merge raw states (m, l, acc) of n_rows rows, a <- a with b, b the side of higher keys. Arrays of REAL. */
void ak_merge_states(const ak_tile_kernels *kernels, int64_t n_rows, int dv, void *a_m, void *a_l, void *a_acc, const void *b_m,
                     const void *b_l, const void *b_acc);
/* Raw states to final numbers, in place: acc becomes the output. sink: a logit per row or NULL. */
void ak_finish_states(const ak_tile_kernels *kernels, int64_t n_rows, int dv, void *m, void *l, void *acc, const double *sink, double *lse);

#endif
