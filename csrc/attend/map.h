/* Passes over the finished map, tile by tile: plain logits, windows of the weights, column and block statistics. The
 * weights need the normaliser of each row (ak_row_outputs.norm_max and norm_inv, or a caller's own log-sum-exp). */
#ifndef AK_ATTEND_MAP_H
#define AK_ATTEND_MAP_H
#include "problem.h"

typedef struct ak_map_rows {
    const int64_t *list; /* n row numbers of each head; NULL = all lq rows */
    int64_t n;
    const void *norm_max, *norm_inv; /* REAL, (n_heads, lq); NULL = plain logits (problem->weight_units 0) */
} ak_map_rows;

/* The window rows x cols of every head, to a view of (n, n_cols) per head. cols ascend; col_to[i] is the output column of
 * cols[i]; cols NULL = all keys in order. Forbidden pairs give -inf as logits, 0 as weights. */
ak_status ak_map_window(const ak_problem *problem, const ak_map_rows *rows, const int64_t *cols, const int64_t *col_to, int64_t n_cols,
                        const ak_operand *out);

/* received[h][j] = sum of w p over the rows, largest[h][j] = max of p, visible[h][j] = rows that may see key j. row_weight:
 * REAL (n_heads, n) or NULL. Outputs are contiguous over (n_heads, lk). */
ak_status ak_map_columns(const ak_problem *problem, const ak_map_rows *rows, const void *row_weight, double *received, double *largest,
                         int64_t *visible);

/* sum and max of p over blocks of block_q x block_k, (n_heads, nQ, nK). */
ak_status ak_map_blocks(const ak_problem *problem, const ak_map_rows *rows, int64_t block_q, int64_t block_k, double *sum, double *largest);

#endif
