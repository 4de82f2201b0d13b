/* Mask plans across the border: the postfix list that attnkit.masks lowers a mask to becomes an ak_plan. */
#ifndef AK_PYTHON_PLAN_PY_H
#define AK_PYTHON_PLAN_PY_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "../attend/plan.h"

/* A parsed plan. It owns its tables and holds a reference to every array that `plan` points into, so it may be
 * used without the GIL between parse and clear. */
typedef struct ak_py_plan {
    ak_plan plan;
    ak_pattern *nodes;
    ptrdiff_t *strides;             /* head strides of all matrices, n_batch each */
    int64_t *tables[AK_PLAN_MAX_NODES]; /* minima and maxima of the DOCUMENT nodes */
    PyObject *arrays[2 * AK_PLAN_MAX_NODES];
    int n_tables, n_arrays;
    PyObject *first_matrix;         /* borrowed from `arrays`: its leading axes are the batch; NULL without a matrix */
} ak_py_plan;

/* Parse a list (or tuple) of node tuples:
 *   ("all",), ("causal", offset), ("window", left, right, sinks, dilation, offset), ("document", seg_q, seg_k),
 *   ("prefix", n), ("blocks", matrix, block_q, block_k), ("dense", matrix), ("and",), ("or",), ("not",)
 * in postfix order. Matrices have n_batch leading axes, all matrices the same ones, or none; None as `nodes` is an empty list
 * (every pair). Returns 0, or -1 with a Python exception set and *out cleared. Needs the GIL, like clear. */
int ak_py_plan_parse(PyObject *nodes, int64_t lq, int64_t lk, int n_batch, ak_py_plan *out);
void ak_py_plan_clear(ak_py_plan *plan); /* fine on a cleared one */

/* Module functions (METH_VARARGS); `index` is a tuple with one integer for each batch axis. */
/* plan_count(nodes, lq, lk, index, block_q, block_k) -> (tiles, visited, full, pairs, visited_pairs, max_row_tiles) */
PyObject *ak_py_plan_count(PyObject *module, PyObject *args);
/* plan_dense(nodes, lq, lk, index) -> bool array (lq, lk) */
PyObject *ak_py_plan_dense(PyObject *module, PyObject *args);
/* plan_classify(nodes, lq, lk, index, row0, row1, tile) -> 0 empty, 1 full, 2 partial */
PyObject *ak_py_plan_classify(PyObject *module, PyObject *args);
/* plan_range(nodes, lq, lk, index, row0, row1) -> (first, last) tile */
PyObject *ak_py_plan_range(PyObject *module, PyObject *args);
/* plan_row(nodes, lq, lk, index, row, tile) -> bool array (256,) */
PyObject *ak_py_plan_row(PyObject *module, PyObject *args);
/* plan_states(nodes, lq, lk, index, block_q, block_k) -> uint8 array (nQ, nK) of exact states, as plan_classify */
PyObject *ak_py_plan_states(PyObject *module, PyObject *args);

/* Rows for the module's method table. */
#define AK_PY_PLAN_METHODS                                                                                        \
    {"plan_count", ak_py_plan_count, METH_VARARGS, NULL}, {"plan_dense", ak_py_plan_dense, METH_VARARGS, NULL},   \
    {"plan_classify", ak_py_plan_classify, METH_VARARGS, NULL}, {"plan_range", ak_py_plan_range, METH_VARARGS, NULL}, \
    {"plan_row", ak_py_plan_row, METH_VARARGS, NULL}, {"plan_states", ak_py_plan_states, METH_VARARGS, NULL}

#endif
