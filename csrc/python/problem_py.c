#include "problem_py.h"
#include <math.h>
#include "../core/cpu.h"
#include "../core/fpmode.h"

/* "(2, 8, 128, 64)" for a message; a new reference or NULL. */
static PyObject *shape_text(PyArrayObject *array)
{
    PyObject *tuple = PyArray_IntTupleFromIntp(PyArray_NDIM(array), PyArray_DIMS(array));
    if (tuple == NULL) return NULL;
    PyObject *text = PyObject_Repr(tuple);
    Py_DECREF(tuple);
    return text;
}

static int refuse_shapes(const char *what, PyArrayObject *q, PyArrayObject *k, PyArrayObject *v)
{
    PyObject *tq = shape_text(q), *tk = shape_text(k), *tv = v ? shape_text(v) : NULL;
    if (tq && tk && (tv || !v)) {
        if (v) PyErr_Format(PyExc_ValueError, "%s: q %U, k %U, v %U", what, tq, tk, tv);
        else PyErr_Format(PyExc_ValueError, "%s: q %U, k %U", what, tq, tk);
    }
    Py_XDECREF(tq);
    Py_XDECREF(tk);
    Py_XDECREF(tv);
    return -1;
}

static int float_type(PyArrayObject *array, ak_dtype *dtype)
{
    switch (PyArray_TYPE(array)) {
    case NPY_FLOAT: *dtype = AK_F32; return 0;
    case NPY_DOUBLE: *dtype = AK_F64; return 0;
    case NPY_HALF: *dtype = AK_F16; return 0;
    case NPY_UINT16: *dtype = AK_BF16; return 0;
    default: return -1;
    }
}

static int check_array(const char *name, PyObject *object, ak_dtype *dtype)
{
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an array, got %.100s", name, Py_TYPE(object)->tp_name);
        return -1;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_ISNOTSWAPPED(array) || float_type(array, dtype) < 0) {
        PyErr_Format(PyExc_TypeError, "%s has dtype %R, expected float16, bfloat16, float32 or float64", name, (PyObject *)PyArray_DESCR(array));
        return -1;
    }
    if (PyArray_NDIM(array) < 2) {
        PyObject *text = shape_text(array);
        if (text) PyErr_Format(PyExc_ValueError, "%s needs at least 2 axes (length, features), got shape %U", name, text);
        Py_XDECREF(text);
        return -1;
    }
    return 0;
}

/* Size of batch axis `a` of `n_batch`, counted from the left of the broadcast batch; 1 where the array lacks it. */
static npy_intp batch_size(PyArrayObject *array, int n_batch, int a)
{
    const int at = PyArray_NDIM(array) - 2 - n_batch + a;
    return at < 0 ? 1 : PyArray_DIM(array, at);
}

static void batch_strides(PyArrayObject *array, int n_batch, int n_tail, ptrdiff_t *strides)
{
    for (int a = 0; a < n_batch; a++) {
        const int at = PyArray_NDIM(array) - n_tail - n_batch + a;
        strides[a] = at < 0 || PyArray_DIM(array, at) == 1 ? 0 : PyArray_STRIDE(array, at);
    }
}

static void set_matrix(PyArrayObject *array, ak_dtype dtype, int n_batch, ak_operand *out)
{
    const int nd = PyArray_NDIM(array);
    out->matrix.data = PyArray_BYTES(array);
    out->matrix.row_stride = PyArray_STRIDE(array, nd - 2);
    out->matrix.col_stride = PyArray_STRIDE(array, nd - 1);
    out->matrix.dtype = dtype;
    batch_strides(array, n_batch, 2, out->head_strides);
}

static int broadcast_batch(ak_py_problem *parsed, PyArrayObject *q, PyArrayObject *k, PyArrayObject *v)
{
    ak_problem *problem = &parsed->problem;
    int nd = PyArray_NDIM(q) > PyArray_NDIM(k) ? PyArray_NDIM(q) : PyArray_NDIM(k);
    if (v && PyArray_NDIM(v) > nd) nd = PyArray_NDIM(v);
    problem->n_batch = nd - 2;
    if (problem->n_batch > AK_MAX_BATCH_DIMS - 4) return refuse_shapes("too many axes", q, k, v);
    problem->n_heads = 1;
    problem->kv_group = 1;
    for (int a = 0; a < problem->n_batch; a++) {
        const npy_intp sq = batch_size(q, problem->n_batch, a), sk = batch_size(k, problem->n_batch, a);
        const npy_intp sv = v ? batch_size(v, problem->n_batch, a) : sk;
        npy_intp skv = sk == 1 ? sv : sk, size;
        if (sk != sv && sk != 1 && sv != 1) return refuse_shapes("the leading axes of k and v do not broadcast", q, k, v);
        if (sq == skv || skv == 1) size = sq;
        else if (sq == 1) size = skv;
        else if (a == problem->n_batch - 1 && skv > 0 && sq % skv == 0) {
            size = sq;
            problem->kv_group = sq / skv;
        } else if (a == problem->n_batch - 1)
            return refuse_shapes("the heads of q (axis -3) are not a multiple of those of k and v", q, k, v);
        else return refuse_shapes("the leading axes of q and k do not broadcast", q, k, v);
        problem->shape[a] = size;
        parsed->shape[a] = size;
        if (size && problem->n_heads > PY_SSIZE_T_MAX / size) return refuse_shapes("too many heads", q, k, v);
        problem->n_heads *= size;
    }
    return 0;
}

int ak_py_operand(const ak_py_problem *parsed, const char *name, PyArrayObject *array, int n_tail, const int64_t *tail, ak_operand *out)
{
    const ak_problem *problem = &parsed->problem;
    const int nd = PyArray_NDIM(array), full = problem->n_batch + n_tail;
    int fits = nd <= full;
    for (int i = 1; fits && i <= nd; i++) {
        const npy_intp have = PyArray_DIM(array, nd - i);
        const int64_t want = i <= n_tail ? tail[n_tail - i] : problem->shape[problem->n_batch - (i - n_tail)];
        fits = have == 1 || have == want;
    }
    if (!fits) {
        PyObject *text = shape_text(array), *batch = PyArray_IntTupleFromIntp(problem->n_batch, (npy_intp *)(uintptr_t)parsed->shape);
        if (text && batch) {
            if (n_tail == 2)
                PyErr_Format(PyExc_ValueError, "%s of shape %U does not broadcast to the map: leading axes %R, then (%lld, %lld)", name, text, batch,
                             (long long)tail[0], (long long)tail[1]);
            else if (n_tail == 1)
                PyErr_Format(PyExc_ValueError, "%s of shape %U does not broadcast to the rows: leading axes %R, then (%lld,)", name, text, batch,
                             (long long)tail[0]);
            else PyErr_Format(PyExc_ValueError, "%s of shape %U does not broadcast to the leading axes %R", name, text, batch);
        }
        Py_XDECREF(text);
        Py_XDECREF(batch);
        return -1;
    }
    memset(out, 0, sizeof *out);
    out->matrix.data = PyArray_BYTES(array);
    ptrdiff_t strides[2] = {0, 0};
    for (int i = 1; i <= n_tail; i++)
        if (i <= nd && PyArray_DIM(array, nd - i) != 1) strides[n_tail - i] = PyArray_STRIDE(array, nd - i);
    out->matrix.row_stride = strides[0];
    out->matrix.col_stride = strides[1];
    if (float_type(array, &out->matrix.dtype) < 0) out->matrix.dtype = AK_BOOL;
    batch_strides(array, problem->n_batch, n_tail, out->head_strides);
    return 0;
}

static int parse_steps(PyObject *steps, ak_py_problem *parsed)
{
    ak_problem *problem = &parsed->problem;
    if (steps == Py_None) return 0;
    const Py_ssize_t n = PyTuple_Check(steps) ? PyTuple_GET_SIZE(steps) : -1;
    if (n < 0 || n > AK_MAX_STEPS) {
        PyErr_SetString(PyExc_TypeError, "steps must be a short tuple");
        return -1;
    }
    const int64_t map[2] = {problem->lq, problem->lk};
    for (Py_ssize_t i = 0; i < n; i++) {
        const char *word;
        PyObject *operand;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(steps, i), "sO", &word, &operand)) return -1;
        ak_score_step *step = &problem->steps[problem->n_steps++];
        memset(step, 0, sizeof *step);
        if (strcmp(word, "softcap") == 0) {
            step->kind = AK_SCORE_SOFTCAP;
            step->value = PyFloat_AsDouble(operand);
            if (step->value == -1.0 && PyErr_Occurred()) return -1;
        } else if (strcmp(word, "bias") == 0 && PyArray_Check(operand)) {
            step->kind = AK_SCORE_BIAS;
            if (ak_py_operand(parsed, "bias", (PyArrayObject *)operand, 2, map, &step->operand) < 0) return -1;
        } else if (strcmp(word, "alibi") == 0 && PyArray_Check(operand) && PyArray_TYPE((PyArrayObject *)operand) == NPY_DOUBLE) {
            step->kind = AK_SCORE_ALIBI;
            if (ak_py_operand(parsed, "alibi_slopes", (PyArrayObject *)operand, 0, NULL, &step->operand) < 0) return -1;
        } else {
            PyErr_Format(PyExc_TypeError, "unknown score step %s", word);
            return -1;
        }
    }
    return 0;
}

/* (left, right): one band around the diagonal, kept in the problem itself. */
static int parse_band(PyObject *band, ak_py_problem *parsed)
{
    ak_problem *problem = &parsed->problem;
    long long left, right;
    if (!PyArg_ParseTuple(band, "LL", &left, &right)) return -1;
    parsed->band = (ak_pattern){.kind = AK_PAT_WINDOW, .offset = problem->offset, .left = left, .right = right, .dilation = 1};
    memset(&parsed->plan, 0, sizeof parsed->plan);
    problem->plan = (ak_plan){.nodes = &parsed->band, .n_nodes = 1, .lq = problem->lq, .lk = problem->lk, .n_batch = problem->n_batch};
    return 0;
}

static int should_stop(void *arg)
{
    ak_py_problem *parsed = arg;
    PyEval_RestoreThread(parsed->saved);
    const int stop = PyErr_CheckSignals() < 0;
    parsed->saved = PyEval_SaveThread();
    return stop;
}

/* 1 / sqrt(d) in the default rounding, whatever the caller's mode; volatile keeps the arithmetic inside. */
static double default_scale(npy_intp d)
{
    const ak_fpmode found = ak_fpmode_enter();
    volatile double x = (double)d;
    x = 1 / sqrt(x);
    ak_fpmode_leave(found);
    return x;
}

int ak_py_problem_parse(PyObject *q_, PyObject *k_, PyObject *v_, PyObject *scale, PyObject *offset, PyObject *steps, PyObject *nodes,
                        ak_py_problem *out)
{
    ak_problem *problem = &out->problem;
    ak_dtype tq, tk, tv;
    if (check_array("q", q_, &tq) < 0 || check_array("k", k_, &tk) < 0) return -1;
    if (v_ != Py_None && check_array("v", v_, &tv) < 0) return -1;
    PyArrayObject *q = (PyArrayObject *)q_, *k = (PyArrayObject *)k_, *v = v_ == Py_None ? NULL : (PyArrayObject *)v_;
    if (!v) tv = tk;
    const npy_intp d = PyArray_DIM(q, PyArray_NDIM(q) - 1), dk = PyArray_DIM(k, PyArray_NDIM(k) - 1);
    problem->lq = PyArray_DIM(q, PyArray_NDIM(q) - 2);
    problem->lk = PyArray_DIM(k, PyArray_NDIM(k) - 2);
    const npy_intp dv = v ? PyArray_DIM(v, PyArray_NDIM(v) - 1) : 0;
    if (d != dk) return refuse_shapes("q and k must have the same number of features (last axis)", q, k, v);
    if (v && PyArray_DIM(v, PyArray_NDIM(v) - 2) != problem->lk) return refuse_shapes("k and v must have the same length (axis -2)", q, k, v);
    if (d > 1 << 20 || dv > 1 << 20) return refuse_shapes("more than 2**20 features", q, k, v);
    problem->d = (int)d;
    problem->dv = (int)dv;
    if (broadcast_batch(out, q, k, v) < 0) return -1;
    set_matrix(q, tq, problem->n_batch, &problem->q);
    set_matrix(k, tk, problem->n_batch, &problem->k);
    memset(&problem->v, 0, sizeof problem->v);
    if (v) set_matrix(v, tv, problem->n_batch, &problem->v);

    const int wide = tq == AK_F64 || tk == AK_F64 || tv == AK_F64;
    const ak_kernels *kernels = ak_kernels_of(ak_isa_chosen());
    problem->kernels = wide ? kernels->f64 : kernels->f32;
    problem->real_size = wide ? sizeof(double) : sizeof(float);
    out->real_type = wide ? NPY_DOUBLE : NPY_FLOAT;
    out->out_type = tq == tk && tk == tv ? PyArray_TYPE(q) : out->real_type;
    problem->scale = scale == Py_None ? default_scale(d) : PyFloat_AsDouble(scale);
    if (problem->scale == -1.0 && PyErr_Occurred()) return -1;
    problem->offset = PyLong_AsLongLong(offset);
    if (problem->offset == -1 && PyErr_Occurred()) return -1;
    problem->n_steps = 0;
    problem->pages = NULL;
    problem->weight_units = 1;
    out->poll_due = 0;
    out->poll = (ak_poll){.should_stop = should_stop, .arg = out, .due = &out->poll_due};
    problem->poll = &out->poll;
    if (parse_steps(steps, out) < 0) return -1;
    problem->plan_per_head = 0;
    if (nodes == Py_None) {
        memset(&problem->plan, 0, sizeof problem->plan);
        memset(&out->plan, 0, sizeof out->plan);
        return 0;
    }
    if (PyTuple_Check(nodes)) return parse_band(nodes, out);
    if (ak_py_plan_parse(nodes, problem->lq, problem->lk, problem->n_batch, &out->plan) < 0) return -1;
    problem->plan = out->plan.plan;
    for (int i = 0; i < problem->plan.n_nodes; i++) problem->plan_per_head |= problem->plan.nodes[i].head_strides != NULL;
    return 0;
}

void ak_py_problem_clear(ak_py_problem *parsed) { ak_py_plan_clear(&parsed->plan); }

PyArrayObject *ak_py_new(ak_py_problem *parsed, int type, int n_more, npy_intp more0, npy_intp more1)
{
    const int n_batch = parsed->problem.n_batch;
    parsed->shape[n_batch] = more0;
    parsed->shape[n_batch + 1] = more1;
    return (PyArrayObject *)PyArray_SimpleNew(n_batch + n_more, parsed->shape, type);
}

void ak_py_leave(ak_py_problem *parsed) { parsed->saved = PyEval_SaveThread(); }

void ak_py_enter(ak_py_problem *parsed) { PyEval_RestoreThread(parsed->saved); }

void ak_py_raise(ak_status status)
{
    if (PyErr_Occurred()) return; /* Ctrl-C and the like have set theirs */
    if (status == AK_NO_MEMORY) PyErr_NoMemory();
    else PyErr_SetString(PyExc_RuntimeError, ak_status_words(status));
}
