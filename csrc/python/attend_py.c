/* The engine's calls: arrays in, arrays out, no arithmetic. Positional arguments only; attnkit/_engine.py is the one caller
 * and spells every option. */
#include "problem_py.h"
#include <stddef.h>
#include "../attend/attend.h"
#include "../attend/map.h"
#include "../core/cpu.h"

/* Row results by name: where the pointer goes, what the array holds. */
typedef struct row_result {
    const char *name;
    size_t member;
    enum { REALS, DOUBLES, INTEGERS } holds;
    enum { PER_ROW, PER_GROUP, PER_TOP, PER_VALUE, PER_KEY } more;
} row_result;

#define RESULT(name, holds, more) {#name, offsetof(ak_row_outputs, name), holds, more}
static const row_result row_results[] = {
    RESULT(lse, REALS, PER_ROW),          RESULT(entropy, REALS, PER_ROW),         RESULT(purity, REALS, PER_ROW),
    RESULT(max_weight, REALS, PER_ROW),   RESULT(mean_logit, REALS, PER_ROW),      RESULT(sink_logit_mass, REALS, PER_ROW),
    RESULT(distance, REALS, PER_ROW),     RESULT(distance_sq, REALS, PER_ROW),     RESULT(abs_distance, REALS, PER_ROW),
    RESULT(sink_mass, REALS, PER_ROW),    RESULT(group_mass, REALS, PER_GROUP),    RESULT(topk_weight, REALS, PER_TOP),
    RESULT(argmax, INTEGERS, PER_ROW),    RESULT(count, INTEGERS, PER_ROW),        RESULT(topk_index, INTEGERS, PER_TOP),
    RESULT(norm_max, REALS, PER_ROW),     RESULT(norm_inv, REALS, PER_ROW),        RESULT(state_m, REALS, PER_ROW),
    RESULT(state_l, REALS, PER_ROW),      RESULT(state_acc, REALS, PER_VALUE),       RESULT(received, DOUBLES, PER_KEY),
    RESULT(received_max, DOUBLES, PER_KEY), RESULT(visible, INTEGERS, PER_KEY),
};
#undef RESULT

static int add_result(ak_py_problem *parsed, const char *name, const ak_row_options *options, ak_row_outputs *outputs, PyObject *results,
                      Py_ssize_t at)
{
    for (size_t i = 0; i < sizeof row_results / sizeof row_results[0]; i++) {
        const row_result *result = &row_results[i];
        if (strcmp(result->name, name) != 0) continue;
        const npy_intp more = result->more == PER_GROUP ? options->n_groups : result->more == PER_TOP ? options->topk : parsed->problem.dv;
        const int type = result->holds == REALS ? parsed->real_type : result->holds == DOUBLES ? NPY_DOUBLE : NPY_INT64;
        const npy_intp length = (npy_intp)(result->more == PER_KEY ? parsed->problem.lk : parsed->problem.lq);
        PyArrayObject *array = ak_py_new(parsed, type, result->more == PER_ROW || result->more == PER_KEY ? 1 : 2, length, more);
        if (array == NULL) return -1;
        PyTuple_SET_ITEM(results, at, (PyObject *)array);
        void *data = PyArray_DATA(array);
        memcpy((char *)outputs + result->member, &data, sizeof data);
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "unknown row result %s", name);
    return -1;
}

static int check_count(const char *function, Py_ssize_t have, Py_ssize_t want)
{
    if (have == want) return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", function, want, have);
    return -1;
}

static int integer_arg(PyObject *object, int64_t *value)
{
    *value = PyLong_AsLongLong(object);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyArrayObject *array_arg(PyObject *object, const char *name, int type)
{
    if (object == Py_None) return NULL;
    if (!PyArray_Check(object) || PyArray_TYPE((PyArrayObject *)object) != type) {
        PyErr_Format(PyExc_TypeError, "%s: wrong array", name);
        return NULL;
    }
    return (PyArrayObject *)object;
}

/* Contiguous int32/int64/real vectors that C indexes directly. */
static int is_vector(PyArrayObject *array, npy_intp n)
{
    return PyArray_IS_C_CONTIGUOUS(array) && PyArray_ISALIGNED(array) && PyArray_SIZE(array) == n;
}

static int parse_row_options(ak_py_problem *parsed, PyObject *sink, PyObject *keep, PyObject *keep_scale, PyObject *topk, PyObject *sink_size,
                             PyObject *groups, PyObject *n_groups, ak_row_options *options)
{
    const ak_problem *problem = &parsed->problem;
    int64_t k, groups_wanted;
    if (integer_arg(topk, &k) < 0 || integer_arg(sink_size, &options->sink_size) < 0 || integer_arg(n_groups, &groups_wanted) < 0) return -1;
    options->topk = (int)k;
    options->n_groups = (int)groups_wanted;
    const int64_t rows[1] = {problem->lq}, map[2] = {problem->lq, problem->lk};
    PyArrayObject *array = array_arg(sink, "sink_logits", NPY_DOUBLE);
    if (PyErr_Occurred() || (array && ak_py_operand(parsed, "sink_logits", array, 1, rows, &options->sink_logits) < 0)) return -1;
    array = array_arg(keep, "dropout_mask", NPY_BOOL);
    if (PyErr_Occurred() || (array && ak_py_operand(parsed, "dropout_mask", array, 2, map, &options->dropout_keep) < 0)) return -1;
    options->dropout_scale = PyFloat_AsDouble(keep_scale);
    if (PyErr_Occurred()) return -1;
    array = array_arg(groups, "groups", NPY_INT32);
    if (PyErr_Occurred()) return -1;
    if (array) {
        if (!is_vector(array, (npy_intp)problem->lk)) {
            PyErr_SetString(PyExc_ValueError, "groups must have one entry per key");
            return -1;
        }
        options->groups = PyArray_DATA(array);
    }
    return 0;
}

static int parse_out(ak_py_problem *parsed, PyObject *out, ak_row_outputs *outputs, PyObject *results)
{
    const ak_problem *problem = &parsed->problem;
    PyArrayObject *array;
    if (out == Py_False) {
        PyTuple_SET_ITEM(results, 0, Py_NewRef(Py_None));
        return 0;
    }
    if (out == Py_None) {
        array = ak_py_new(parsed, parsed->out_type, 2, (npy_intp)problem->lq, (npy_intp)problem->dv);
        if (array == NULL) return -1;
    } else array = (PyArrayObject *)Py_NewRef(out);
    PyTuple_SET_ITEM(results, 0, (PyObject *)array);
    const int64_t tail[2] = {problem->lq, problem->dv};
    if (problem->dv) return ak_py_operand(parsed, "out", array, 2, tail, &outputs->out);
    return 0;
}

static int parse_pages(ak_py_problem *parsed, PyObject *pages)
{
    ak_problem *problem = &parsed->problem;
    PyArrayObject *numbers;
    Py_ssize_t k_stride, v_stride;
    long long rows;
    if (!PyArg_ParseTuple(pages, "O!Lnn", &PyArray_Type, &numbers, &rows, &k_stride, &v_stride)) return -1;
    if (PyArray_TYPE(numbers) != NPY_INT64 || rows < 1 || rows % problem->kernels->lanes != 0 ||
        !is_vector(numbers, (npy_intp)(problem->lk / rows + (problem->lk % rows != 0)))) {
        PyErr_SetString(PyExc_ValueError, "pages do not fit the keys");
        return -1;
    }
    problem->pages = PyArray_DATA(numbers);
    problem->page_rows = rows;
    problem->k_page_stride = k_stride;
    problem->v_page_stride = v_stride;
    return 0;
}

/* attend(q, k, v, out, scale, offset, steps, nodes, sink, keep, keep_scale, wanted, topk, sink_size, groups, n_groups, pages, row_weight)
 * -> (out, *wanted); row_weight: reals of the rows for "received", which comes with "received_max", "visible", "norm_max" and "norm_inv";
 * pages: None or (page numbers as an int64 vector, rows of a page, byte stride between pages of k, of v): k and v are then
 * views whose rows beyond the first page are never touched; out: None = new, False = none, or an array of the right shape and dtype. */
PyObject *ak_py_attend(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    ak_py_problem parsed;
    ak_row_options options = {0};
    ak_row_outputs outputs = {0};
    PyObject *results = NULL;
    if (check_count("attend", n_args, 18) < 0) return NULL;
    if (ak_py_problem_parse(args[0], args[1], args[2], args[4], args[5], args[6], args[7], &parsed) < 0) return NULL;
    if (args[16] != Py_None && parse_pages(&parsed, args[16]) < 0) goto done;
    PyArrayObject *weight = array_arg(args[17], "row_weights", parsed.real_type);
    if (PyErr_Occurred()) goto done;
    if (weight && !is_vector(weight, (npy_intp)(parsed.problem.n_heads * parsed.problem.lq))) {
        PyErr_SetString(PyExc_ValueError, "row_weights of the wrong size");
        goto done;
    }
    outputs.row_weight = weight ? PyArray_DATA(weight) : NULL;
    if (parse_row_options(&parsed, args[8], args[9], args[10], args[12], args[13], args[14], args[15], &options) < 0) goto done;
    PyObject *wanted = args[11];
    const Py_ssize_t n_wanted = PyTuple_GET_SIZE(wanted);
    results = PyTuple_New(1 + n_wanted);
    if (results == NULL) goto done;
    if (parse_out(&parsed, args[2] == Py_None ? Py_False : args[3], &outputs, results) < 0) goto failed;
    for (Py_ssize_t i = 0; i < n_wanted; i++) {
        const char *name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(wanted, i));
        if (name == NULL || add_result(&parsed, name, &options, &outputs, results, 1 + i) < 0) goto failed;
    }
    if (outputs.received && !(outputs.received_max && outputs.visible && outputs.norm_max && outputs.norm_inv)) {
        PyErr_SetString(PyExc_ValueError, "received comes with received_max, visible and the normalisers");
        goto failed;
    }
    if (!outputs.out.matrix.data && !outputs.state_acc) parsed.problem.dv = 0;
    ak_py_leave(&parsed);
    const ak_status status = ak_attend(&parsed.problem, &options, &outputs);
    ak_py_enter(&parsed);
    if (status == AK_OK) goto done;
    ak_py_raise(status);
failed:
    Py_CLEAR(results);
done:
    ak_py_problem_clear(&parsed);
    return results;
}

/* Row numbers and normalisers of a second pass; norm_max None = plain logits. */
static int parse_map_rows(ak_py_problem *parsed, PyObject *norm_max, PyObject *norm_inv, PyObject *list, ak_map_rows *rows)
{
    const npy_intp n = (npy_intp)(parsed->problem.n_heads * parsed->problem.lq);
    PyArrayObject *array = array_arg(norm_max, "norm_max", parsed->real_type), *inv = array_arg(norm_inv, "norm_inv", parsed->real_type);
    PyArrayObject *numbers = array_arg(list, "rows", NPY_INT64);
    if (PyErr_Occurred()) return -1;
    if ((array == NULL) != (inv == NULL) || (array && !(is_vector(array, n) && is_vector(inv, n))) ||
        (numbers && !is_vector(numbers, PyArray_SIZE(numbers)))) {
        PyErr_SetString(PyExc_ValueError, "rows or normalisers of the wrong size");
        return -1;
    }
    parsed->problem.weight_units = array != NULL;
    rows->norm_max = array ? PyArray_DATA(array) : NULL;
    rows->norm_inv = array ? PyArray_DATA(inv) : NULL;
    rows->list = numbers ? PyArray_DATA(numbers) : NULL;
    rows->n = numbers ? PyArray_SIZE(numbers) : parsed->problem.lq;
    for (int64_t i = 0; rows->list && i < rows->n; i++)
        if (rows->list[i] < 0 || rows->list[i] >= parsed->problem.lq) {
            PyErr_SetString(PyExc_ValueError, "rows: index out of range");
            return -1;
        }
    return 0;
}

/* map_window(q, k, scale, offset, steps, nodes, norm_max, norm_inv, rows, cols, col_to, out) -> out; cols ascending int64 with
 * their output columns col_to, or None; out: an array of the window. */
PyObject *ak_py_map_window(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    ak_py_problem parsed;
    ak_map_rows rows;
    PyObject *result = NULL;
    if (check_count("map_window", n_args, 12) < 0) return NULL;
    if (ak_py_problem_parse(args[0], args[1], Py_None, args[2], args[3], args[4], args[5], &parsed) < 0) return NULL;
    if (parse_map_rows(&parsed, args[6], args[7], args[8], &rows) < 0) goto done;
    PyArrayObject *cols = array_arg(args[9], "cols", NPY_INT64), *col_to = array_arg(args[10], "col_to", NPY_INT64);
    if (PyErr_Occurred()) goto done;
    const npy_intp n_cols = cols ? PyArray_SIZE(cols) : (npy_intp)parsed.problem.lk;
    if (cols && !(col_to && is_vector(cols, n_cols) && is_vector(col_to, n_cols))) {
        PyErr_SetString(PyExc_ValueError, "cols and col_to must be vectors of one length");
        goto done;
    }
    ak_operand out;
    const int64_t window[2] = {rows.n, n_cols};
    if (!PyArray_Check(args[11]) || ak_py_operand(&parsed, "out", (PyArrayObject *)args[11], 2, window, &out) < 0) goto done;
    ak_py_leave(&parsed);
    ak_status status = AK_OK;
    if (parsed.problem.n_heads && rows.n && n_cols)
        status = ak_map_window(&parsed.problem, &rows, cols ? PyArray_DATA(cols) : NULL, cols ? PyArray_DATA(col_to) : NULL, n_cols, &out);
    ak_py_enter(&parsed);
    if (status == AK_OK) result = Py_NewRef(args[11]);
    else ak_py_raise(status);
done:
    ak_py_problem_clear(&parsed);
    return result;
}

/* map_columns(q, k, scale, offset, steps, nodes, norm_max, norm_inv, rows, row_weight)
 * -> (received, largest, visible), double, double, int64 over (batch, lk) */
PyObject *ak_py_map_columns(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    ak_py_problem parsed;
    ak_map_rows rows;
    PyArrayObject *received = NULL, *largest = NULL, *visible = NULL;
    PyObject *result = NULL;
    if (check_count("map_columns", n_args, 10) < 0) return NULL;
    if (ak_py_problem_parse(args[0], args[1], Py_None, args[2], args[3], args[4], args[5], &parsed) < 0) return NULL;
    if (parse_map_rows(&parsed, args[6], args[7], args[8], &rows) < 0) goto done;
    PyArrayObject *weight = array_arg(args[9], "row_weights", parsed.real_type);
    if (PyErr_Occurred()) goto done;
    if (weight && !is_vector(weight, (npy_intp)(parsed.problem.n_heads * rows.n))) {
        PyErr_SetString(PyExc_ValueError, "row_weights of the wrong size");
        goto done;
    }
    const npy_intp lk = (npy_intp)parsed.problem.lk;
    received = ak_py_new(&parsed, NPY_DOUBLE, 1, lk, 0);
    largest = ak_py_new(&parsed, NPY_DOUBLE, 1, lk, 0);
    visible = ak_py_new(&parsed, NPY_INT64, 1, lk, 0);
    if (!received || !largest || !visible) goto done;
    ak_py_leave(&parsed);
    ak_status status = AK_OK;
    if (PyArray_SIZE(received))
        status = ak_map_columns(&parsed.problem, &rows, weight ? PyArray_DATA(weight) : NULL, PyArray_DATA(received), PyArray_DATA(largest),
                                PyArray_DATA(visible));
    ak_py_enter(&parsed);
    if (status == AK_OK) result = PyTuple_Pack(3, received, largest, visible);
    else ak_py_raise(status);
done:
    Py_XDECREF(received);
    Py_XDECREF(largest);
    Py_XDECREF(visible);
    ak_py_problem_clear(&parsed);
    return result;
}

/* map_blocks(q, k, scale, offset, steps, nodes, norm_max, norm_inv, block_q, block_k) -> (sum, largest), double (batch, nQ, nK) */
PyObject *ak_py_map_blocks(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    ak_py_problem parsed;
    ak_map_rows rows;
    PyArrayObject *sum = NULL, *largest = NULL;
    PyObject *result = NULL;
    int64_t block_q, block_k;
    if (check_count("map_blocks", n_args, 10) < 0) return NULL;
    if (integer_arg(args[8], &block_q) < 0 || integer_arg(args[9], &block_k) < 0) return NULL;
    if (ak_py_problem_parse(args[0], args[1], Py_None, args[2], args[3], args[4], args[5], &parsed) < 0) return NULL;
    if (parse_map_rows(&parsed, args[6], args[7], Py_None, &rows) < 0) goto done;
    if (block_q < 1 || block_k < 1) {
        PyErr_SetString(PyExc_ValueError, "block sizes must be at least 1");
        goto done;
    }
    const int64_t lq = parsed.problem.lq, lk = parsed.problem.lk;
    const npy_intp n_q = (npy_intp)(lq / block_q + (lq % block_q != 0)), n_k = (npy_intp)(lk / block_k + (lk % block_k != 0));
    sum = ak_py_new(&parsed, NPY_DOUBLE, 2, n_q, n_k);
    largest = ak_py_new(&parsed, NPY_DOUBLE, 2, n_q, n_k);
    if (!sum || !largest) goto done;
    ak_py_leave(&parsed);
    ak_status status = AK_OK;
    if (PyArray_SIZE(sum)) status = ak_map_blocks(&parsed.problem, &rows, block_q, block_k, PyArray_DATA(sum), PyArray_DATA(largest));
    ak_py_enter(&parsed);
    if (status == AK_OK) result = PyTuple_Pack(2, sum, largest);
    else ak_py_raise(status);
done:
    Py_XDECREF(sum);
    Py_XDECREF(largest);
    ak_py_problem_clear(&parsed);
    return result;
}

/* m, l and acc of raw states: contiguous arrays of one real type, acc with dv values per row. */
static int state_args(PyObject *const *args, int n_states, void **data, const ak_tile_kernels **kernels, npy_intp *n, int *dv)
{
    const ak_kernels *chosen = ak_kernels_of(ak_isa_chosen());
    for (int i = 0; i < 3 * n_states; i++) {
        if (!PyArray_Check(args[i])) {
            PyErr_SetString(PyExc_TypeError, "raw states are arrays");
            return -1;
        }
        PyArrayObject *array = (PyArrayObject *)args[i];
        if (i == 0) *n = PyArray_SIZE(array);
        if (i == 2) *dv = PyArray_NDIM(array) ? (int)PyArray_DIM(array, PyArray_NDIM(array) - 1) : 0;
        const int type = PyArray_TYPE(array);
        if ((type != NPY_FLOAT && type != NPY_DOUBLE) || type != PyArray_TYPE((PyArrayObject *)args[0]) ||
            (i % 3 < 2 && !is_vector(array, *n)) || (i % 3 == 2 && !is_vector(array, *n * *dv))) {
            PyErr_SetString(PyExc_ValueError, "raw states of different shapes or types");
            return -1;
        }
        *kernels = type == NPY_FLOAT ? chosen->f32 : chosen->f64;
        data[i] = PyArray_DATA(array);
    }
    return 0;
}

/* merge_states(m, l, acc, m2, l2, acc2): the first three become the merged state. */
PyObject *ak_py_merge_states(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    void *data[6];
    const ak_tile_kernels *kernels;
    npy_intp n = 0;
    int dv = 0;
    if (check_count("merge_states", n_args, 6) < 0 || state_args(args, 2, data, &kernels, &n, &dv) < 0) return NULL;
    ak_merge_states(kernels, n, dv, data[0], data[1], data[2], data[3], data[4], data[5]);
    Py_RETURN_NONE;
}

/* finish_states(m, l, acc, sink, lse): acc becomes the output, lse (double) is filled; m and l are used up. */
PyObject *ak_py_finish_states(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    (void)module;
    void *data[3];
    const ak_tile_kernels *kernels;
    npy_intp n = 0;
    int dv = 0;
    if (check_count("finish_states", n_args, 5) < 0 || state_args(args, 1, data, &kernels, &n, &dv) < 0) return NULL;
    PyArrayObject *sink = array_arg(args[3], "sink_logits", NPY_DOUBLE);
    PyArrayObject *lse = PyErr_Occurred() ? NULL : array_arg(args[4], "lse", NPY_DOUBLE);
    if (PyErr_Occurred()) return NULL;
    if (!lse || !is_vector(lse, n) || (sink && !is_vector(sink, n))) {
        PyErr_SetString(PyExc_ValueError, "sink_logits and lse must have one entry per row");
        return NULL;
    }
    ak_finish_states(kernels, n, dv, data[0], data[1], data[2], sink ? PyArray_DATA(sink) : NULL, PyArray_DATA(lse));
    Py_RETURN_NONE;
}
