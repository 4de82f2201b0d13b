#include "problem.h"

void ak_head_index(const ak_problem *problem, int64_t head, int64_t *index)
{
    for (int a = problem->n_batch - 1; a >= 0; a--) {
        index[a] = head % problem->shape[a];
        head /= problem->shape[a];
    }
}

ak_matrix ak_head_matrix(const ak_problem *problem, const ak_operand *operand, int64_t head, int64_t group)
{
    ak_matrix matrix = operand->matrix;
    for (int a = problem->n_batch - 1; a >= 0; a--) {
        int64_t at = head % problem->shape[a];
        head /= problem->shape[a];
        if (a == problem->n_batch - 1) at /= group;
        matrix.data += at * operand->head_strides[a];
    }
    return matrix;
}

int64_t ak_heads_per_run(const ak_problem *problem)
{
    int64_t run = 1;
    for (int a = problem->n_batch - 1; a >= 0; a--) {
        const int shared = problem->k.head_strides[a] == 0 && (problem->v.matrix.data == NULL || problem->v.head_strides[a] == 0);
        if (shared) {
            run *= problem->shape[a];
            continue;
        }
        if (a == problem->n_batch - 1) run *= problem->kv_group;
        break;
    }
    return run;
}
