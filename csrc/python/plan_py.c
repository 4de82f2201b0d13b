/* Parsing of mask plans and the module functions that ask them questions. No arithmetic on masks happens here. */
#include "plan_py.h"
#define NO_IMPORT_ARRAY
#define PY_ARRAY_UNIQUE_SYMBOL ak_array_api
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <string.h>
#include "../core/memory.h"

/* ---- parsing -------------------------------------------------------------------------------------------------- */

static int fail(PyObject *kind, const char *what, int node)
{
    PyErr_Format(kind, "mask plan, node %d: %s", node, what);
    return -1;
}

void ak_py_plan_clear(ak_py_plan *p)
{
    for (int i = 0; i < p->n_tables; ++i) ak_free(p->tables[i]);
    for (int i = 0; i < p->n_arrays; ++i) Py_DECREF(p->arrays[i]);
    ak_free(p->strides);
    ak_free(p->nodes);
    p->n_tables = p->n_arrays = 0;
    p->strides = NULL;
    p->nodes = NULL;
    p->plan = (ak_plan){NULL, 0, 0, 0, 0};
    p->first_matrix = NULL;
}

/* Integer at position `at` of a node's tuple; -1 with an exception set when it is none or does not fit. */
static int read_integer(PyObject *node, Py_ssize_t at, int64_t *value)
{
    *value = PyLong_AsLongLong(PyTuple_GET_ITEM(node, at));
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

static int read_offset(PyObject *node, Py_ssize_t at, int number, int64_t *offset)
{
    if (read_integer(node, at, offset) < 0) return -1;
    if (*offset < -AK_PLAN_MAX_EXTENT || *offset > AK_PLAN_MAX_EXTENT) return fail(PyExc_ValueError, "the offset exceeds 2**62", number);
    return 0;
}

static void keep_array(ak_py_plan *out, PyObject *array)
{
    Py_INCREF(array);
    out->arrays[out->n_arrays++] = array;
}

/* A (batch..., rows, cols) matrix of one-byte elements, any strides. */
static int read_matrix(ak_py_plan *out, PyObject *object, int64_t rows, int64_t cols, int number, ak_pattern *p)
{
    if (!PyArray_Check(object)) return fail(PyExc_TypeError, "expected an array", number);
    PyArrayObject *array = (PyArrayObject *)object;
    /* Two axes alone are one matrix for every head. */
    int n_batch = PyArray_NDIM(array) == 2 ? 0 : out->plan.n_batch, type = PyArray_TYPE(array);
    if (type != NPY_BOOL && type != NPY_UINT8) return fail(PyExc_TypeError, "expected a bool or uint8 matrix", number);
    if (PyArray_NDIM(array) != n_batch + 2) return fail(PyExc_ValueError, "the matrix has the wrong number of axes", number);
    if (PyArray_DIM(array, n_batch) != rows || PyArray_DIM(array, n_batch + 1) != cols)
        return fail(PyExc_ValueError, "the matrix does not have the shape that the lengths ask for", number);
    if (n_batch == 0) {
        p->head_strides = NULL;
    } else if (out->first_matrix) {
        for (int a = 0; a < n_batch; ++a)
            if (PyArray_DIM(array, a) != PyArray_DIM((PyArrayObject *)out->first_matrix, a))
                return fail(PyExc_ValueError, "its leading axes differ from those of an earlier matrix", number);
    } else {
        out->first_matrix = object;
    }
    p->matrix = (ak_matrix){PyArray_BYTES(array), PyArray_STRIDE(array, n_batch), PyArray_STRIDE(array, n_batch + 1), AK_BOOL};
    /* NumPy leaves the stride of an axis of length 1 free; zero keeps the address arithmetic tame. */
    if (rows == 1) p->matrix.row_stride = 0;
    if (cols == 1) p->matrix.col_stride = 0;
    if (n_batch > 0) {
        ptrdiff_t *strides = out->strides + (ptrdiff_t)number * n_batch;
        int shared = 1; /* the same matrix for every head: callers may then ask once for all */
        for (int a = 0; a < n_batch; ++a) {
            strides[a] = PyArray_DIM(array, a) == 1 ? 0 : PyArray_STRIDE(array, a);
            shared &= strides[a] == 0;
        }
        p->head_strides = shared ? NULL : strides;
    }
    keep_array(out, object);
    return 0;
}

static int read_segments(ak_py_plan *out, PyObject *object, int64_t length, int number, const int64_t **data)
{
    if (!PyArray_Check(object)) return fail(PyExc_TypeError, "expected an array of segments", number);
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) != NPY_INT64 || PyArray_NDIM(array) != 1 || !PyArray_ISCARRAY_RO(array))
        return fail(PyExc_TypeError, "segments must be contiguous int64 vectors", number);
    if (PyArray_DIM(array, 0) != length) return fail(PyExc_ValueError, "the segments do not have the length of the sequence", number);
    *data = (const int64_t *)PyArray_DATA(array);
    keep_array(out, object);
    return 0;
}

static int read_document(ak_py_plan *out, PyObject *node, int number, ak_pattern *p)
{
    int64_t lk = out->plan.lk, n_tiles = ak_plan_n_tiles(lk);
    if (read_segments(out, PyTuple_GET_ITEM(node, 1), out->plan.lq, number, &p->seg_q) < 0) return -1;
    if (read_segments(out, PyTuple_GET_ITEM(node, 2), lk, number, &p->seg_k) < 0) return -1;
    int64_t *table = ak_alloc_array((size_t)n_tiles, 2 * sizeof *table);
    if (!table) {
        PyErr_NoMemory();
        return -1;
    }
    out->tables[out->n_tables++] = table;
    p->seg_k_sorted = ak_plan_segment_bounds(p->seg_k, lk, table, table + n_tiles);
    p->seg_k_min = table;
    p->seg_k_max = table + n_tiles;
    return 0;
}

static int64_t blocks_of(int64_t length, int64_t block) { return length / block + (length % block != 0); }

static int read_blocks(ak_py_plan *out, PyObject *node, int number, ak_pattern *p)
{
    if (read_integer(node, 2, &p->block_q) < 0 || read_integer(node, 3, &p->block_k) < 0) return -1;
    if (p->block_q < 1 || p->block_k < 1) return fail(PyExc_ValueError, "block sizes must be at least 1", number);
    return read_matrix(out, PyTuple_GET_ITEM(node, 1), blocks_of(out->plan.lq, p->block_q), blocks_of(out->plan.lk, p->block_k), number, p);
}

static int read_window(PyObject *node, int number, ak_pattern *p)
{
    if (read_integer(node, 1, &p->left) < 0 || read_integer(node, 2, &p->right) < 0 || read_integer(node, 3, &p->sinks) < 0 ||
        read_integer(node, 4, &p->dilation) < 0 || read_offset(node, 5, number, &p->offset) < 0)
        return -1;
    return p->dilation < 1 ? fail(PyExc_ValueError, "the dilation must be at least 1", number) : 0;
}

/* The words of the node tuples, their sizes, and what each does to the height of the evaluation stack. */
static const struct { const char *word; ak_pattern_kind kind; Py_ssize_t size; int needs; } NODE_WORDS[] = {
    {"all", AK_PAT_ALL, 1, 0},       {"causal", AK_PAT_CAUSAL, 2, 0}, {"window", AK_PAT_WINDOW, 6, 0}, {"document", AK_PAT_DOCUMENT, 3, 0},
    {"prefix", AK_PAT_PREFIX, 2, 0}, {"blocks", AK_PAT_BLOCKS, 4, 0}, {"dense", AK_PAT_DENSE, 2, 0},   {"and", AK_PAT_AND, 1, 2},
    {"or", AK_PAT_OR, 1, 2},         {"not", AK_PAT_NOT, 1, 1},
};

static int read_node(ak_py_plan *out, PyObject *node, int number, int *height)
{
    ak_pattern *p = &out->nodes[number];
    memset(p, 0, sizeof *p);
    if (!PyTuple_Check(node) || PyTuple_GET_SIZE(node) < 1 || !PyUnicode_Check(PyTuple_GET_ITEM(node, 0)))
        return fail(PyExc_TypeError, "expected a tuple that starts with a word", number);
    size_t w = 0, n_words = sizeof NODE_WORDS / sizeof NODE_WORDS[0];
    while (w < n_words && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(node, 0), NODE_WORDS[w].word) != 0) ++w;
    if (w == n_words) return fail(PyExc_ValueError, "unknown pattern", number);
    if (PyTuple_GET_SIZE(node) != NODE_WORDS[w].size) return fail(PyExc_ValueError, "wrong number of values", number);
    if (*height < NODE_WORDS[w].needs) return fail(PyExc_ValueError, "the operator lacks an operand", number);
    *height += 1 - NODE_WORDS[w].needs;
    if (*height > AK_PLAN_MAX_DEPTH) return fail(PyExc_ValueError, "the expression is nested too deeply", number);
    p->kind = NODE_WORDS[w].kind;
    switch (p->kind) {
    case AK_PAT_CAUSAL: return read_offset(node, 1, number, &p->offset);
    case AK_PAT_WINDOW: return read_window(node, number, p);
    case AK_PAT_DOCUMENT: return read_document(out, node, number, p);
    case AK_PAT_PREFIX: return read_integer(node, 1, &p->n);
    case AK_PAT_BLOCKS: return read_blocks(out, node, number, p);
    case AK_PAT_DENSE: return read_matrix(out, PyTuple_GET_ITEM(node, 1), out->plan.lq, out->plan.lk, number, p);
    default: return 0;
    }
}

static int parse_nodes(PyObject *items, ak_py_plan *out)
{
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    int height = 0;
    if (n > AK_PLAN_MAX_NODES) {
        PyErr_Format(PyExc_ValueError, "mask plan: %zd patterns and operators, at most %d fit", n, (int)AK_PLAN_MAX_NODES);
        return -1;
    }
    if (n == 0) return 0;
    out->nodes = ak_alloc_array((size_t)n, sizeof *out->nodes);
    if (out->plan.n_batch > 0) out->strides = ak_alloc_array((size_t)(n * out->plan.n_batch), sizeof *out->strides);
    if (!out->nodes || (out->plan.n_batch > 0 && !out->strides)) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; ++i)
        if (read_node(out, PySequence_Fast_GET_ITEM(items, i), (int)i, &height) < 0) return -1;
    if (height != 1) return fail(PyExc_ValueError, "operands are left over at the end", (int)n - 1);
    out->plan.nodes = out->nodes;
    out->plan.n_nodes = (int)n;
    return 0;
}

int ak_py_plan_parse(PyObject *nodes, int64_t lq, int64_t lk, int n_batch, ak_py_plan *out)
{
    out->plan = (ak_plan){NULL, 0, lq, lk, n_batch};
    out->nodes = NULL;
    out->strides = NULL;
    out->n_tables = out->n_arrays = 0;
    out->first_matrix = NULL;
    if (lq < 0 || lk < 0 || lq > AK_PLAN_MAX_EXTENT || lk > AK_PLAN_MAX_EXTENT || n_batch < 0 || n_batch > AK_MAX_BATCH_DIMS) {
        PyErr_SetString(PyExc_ValueError, "mask plan: lengths must lie in 0 .. 2**62 and at most 32 leading axes are supported");
        return -1;
    }
    if (nodes == Py_None) return 0;
    PyObject *items = PySequence_Fast(nodes, "mask plan: expected a list of nodes");
    if (!items) return -1;
    int status = parse_nodes(items, out);
    Py_DECREF(items);
    if (status < 0) ak_py_plan_clear(out);
    return status;
}

/* ---- module functions ----------------------------------------------------------------------------------------- */

/* A plan with one head chosen, as every module function takes it. */
typedef struct ak_py_head {
    ak_py_plan parsed;
    int64_t index[AK_MAX_BATCH_DIMS];
} ak_py_head;

static int read_head(PyObject *nodes, long long lq, long long lk, PyObject *index, ak_py_head *head)
{
    Py_ssize_t n = PyTuple_GET_SIZE(index);
    if (n > AK_MAX_BATCH_DIMS) n = AK_MAX_BATCH_DIMS + 1; /* parse refuses it with its own words */
    if (ak_py_plan_parse(nodes, lq, lk, (int)n, &head->parsed) < 0) return -1;
    for (Py_ssize_t a = 0; a < n; ++a) {
        PyArrayObject *matrix = (PyArrayObject *)head->parsed.first_matrix;
        if (read_integer(index, a, &head->index[a]) < 0) goto failed;
        if (head->index[a] < 0 || (matrix && head->index[a] >= PyArray_DIM(matrix, (int)a))) {
            PyErr_SetString(PyExc_IndexError, "mask plan: the head's index is out of range");
            goto failed;
        }
    }
    return 0;
failed:
    ak_py_plan_clear(&head->parsed);
    return -1;
}

static int check_blocks(long long block_q, long long block_k)
{
    if (block_q >= 1 && block_k >= 1) return 0;
    PyErr_SetString(PyExc_ValueError, "block_q and block_k must be at least 1");
    return -1;
}

static int check_rows(const ak_plan *plan, long long row0, long long row1)
{
    if (0 <= row0 && row0 <= row1 && row1 <= plan->lq) return 0;
    PyErr_SetString(PyExc_ValueError, "rows must satisfy 0 <= row0 <= row1 <= lq");
    return -1;
}

PyObject *ak_py_plan_count(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *index, *result = NULL;
    long long lq, lk, block_q, block_k;
    ak_py_head head;
    ak_tile_counts c = {0, 0, 0, 0, 0, 0};
    if (!PyArg_ParseTuple(args, "OLLO!LL:plan_count", &nodes, &lq, &lk, &PyTuple_Type, &index, &block_q, &block_k)) return NULL;
    if (check_blocks(block_q, block_k) < 0 || read_head(nodes, lq, lk, index, &head) < 0) return NULL;
    const ak_plan *plan = &head.parsed.plan;
    if (lk > 0 && lq > INT64_MAX / lk) {
        PyErr_SetString(PyExc_ValueError, "tile statistics need Lq * Lk below 2**63");
        goto done;
    }
    /* Pieces of about a million rows x tiles keep Ctrl-C alive. */
    int64_t n_blocks = blocks_of(lq, block_q), piece = 1 + ((int64_t)1 << 20) / (1 + ak_plan_n_tiles(lk)) / block_q;
    for (int64_t b = 0; b < n_blocks; b += piece) {
        int64_t last = piece < n_blocks - b ? b + piece : n_blocks;
        Py_BEGIN_ALLOW_THREADS
        ak_plan_count_rows(plan, head.index, block_q, block_k, b, last, &c);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) goto done;
    }
    result = Py_BuildValue("LLLLLL", (long long)c.tiles, (long long)c.visited, (long long)c.full, (long long)c.pairs,
                           (long long)c.visited_pairs, (long long)c.max_row_tiles);
done:
    ak_py_plan_clear(&head.parsed);
    return result;
}

/* Write the bits of one row's tile as n bytes of 0 and 1. */
static void spread_bits(const uint64_t bits[AK_TILE_WORDS], npy_bool *out, int64_t n)
{
    for (int64_t j = 0; j < n; ++j) out[j] = (npy_bool)(bits[j / 64] >> (j % 64) & 1);
}

PyObject *ak_py_plan_dense(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *index, *result = NULL;
    long long lq, lk;
    ak_py_head head;
    if (!PyArg_ParseTuple(args, "OLLO!:plan_dense", &nodes, &lq, &lk, &PyTuple_Type, &index)) return NULL;
    if (read_head(nodes, lq, lk, index, &head) < 0) return NULL;
    const ak_plan *plan = &head.parsed.plan;
    npy_intp shape[2] = {(npy_intp)lq, (npy_intp)lk};
    result = PyArray_ZEROS(2, shape, NPY_BOOL, 0);
    if (!result) goto done;
    npy_bool *out = PyArray_DATA((PyArrayObject *)result);
    for (int64_t row = 0; row < lq; ++row) {
        int64_t first, last;
        ak_plan_tile_range(plan, head.index, row, row + 1, &first, &last);
        for (int64_t tile = first; tile < last; ++tile) {
            uint64_t bits[AK_TILE_WORDS];
            int64_t left = lk - tile * AK_TILE;
            ak_plan_row_bits(plan, head.index, row, tile, bits);
            spread_bits(bits, out + row * lk + tile * AK_TILE, left < AK_TILE ? left : AK_TILE);
        }
        if (row % 1024 == 1023 && PyErr_CheckSignals() < 0) {
            Py_CLEAR(result);
            goto done;
        }
    }
done:
    ak_py_plan_clear(&head.parsed);
    return result;
}

PyObject *ak_py_plan_classify(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *index, *result = NULL;
    long long lq, lk, row0, row1, tile;
    ak_py_head head;
    if (!PyArg_ParseTuple(args, "OLLO!LLL:plan_classify", &nodes, &lq, &lk, &PyTuple_Type, &index, &row0, &row1, &tile)) return NULL;
    if (read_head(nodes, lq, lk, index, &head) < 0) return NULL;
    if (check_rows(&head.parsed.plan, row0, row1) == 0)
        result = PyLong_FromLong((long)ak_plan_classify(&head.parsed.plan, head.index, row0, row1, tile));
    ak_py_plan_clear(&head.parsed);
    return result;
}

PyObject *ak_py_plan_range(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *index, *result = NULL;
    long long lq, lk, row0, row1;
    int64_t first, last;
    ak_py_head head;
    if (!PyArg_ParseTuple(args, "OLLO!LL:plan_range", &nodes, &lq, &lk, &PyTuple_Type, &index, &row0, &row1)) return NULL;
    if (read_head(nodes, lq, lk, index, &head) < 0) return NULL;
    if (check_rows(&head.parsed.plan, row0, row1) == 0) {
        ak_plan_tile_range(&head.parsed.plan, head.index, row0, row1, &first, &last);
        result = Py_BuildValue("LL", (long long)first, (long long)last);
    }
    ak_py_plan_clear(&head.parsed);
    return result;
}

PyObject *ak_py_plan_row(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *index, *result = NULL;
    long long lq, lk, row, tile;
    npy_intp shape[1] = {AK_TILE};
    ak_py_head head;
    if (!PyArg_ParseTuple(args, "OLLO!LL:plan_row", &nodes, &lq, &lk, &PyTuple_Type, &index, &row, &tile)) return NULL;
    if (read_head(nodes, lq, lk, index, &head) < 0) return NULL;
    if (row < 0 || row >= lq) {
        PyErr_SetString(PyExc_IndexError, "row is out of range");
    } else if ((result = PyArray_SimpleNew(1, shape, NPY_BOOL)) != NULL) {
        uint64_t bits[AK_TILE_WORDS];
        ak_plan_row_bits(&head.parsed.plan, head.index, row, tile, bits);
        spread_bits(bits, PyArray_DATA((PyArrayObject *)result), AK_TILE);
    }
    ak_py_plan_clear(&head.parsed);
    return result;
}

PyObject *ak_py_plan_states(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *nodes, *index, *result = NULL;
    long long lq, lk, block_q, block_k;
    ak_py_head head;
    if (!PyArg_ParseTuple(args, "OLLO!LL:plan_states", &nodes, &lq, &lk, &PyTuple_Type, &index, &block_q, &block_k)) return NULL;
    if (check_blocks(block_q, block_k) < 0 || read_head(nodes, lq, lk, index, &head) < 0) return NULL;
    npy_intp shape[2] = {(npy_intp)blocks_of(lq, block_q), (npy_intp)blocks_of(lk, block_k)};
    result = PyArray_SimpleNew(2, shape, NPY_UINT8);
    if (!result) goto done;
    npy_uint8 *out = PyArray_DATA((PyArrayObject *)result);
    for (int64_t b = 0; b < shape[0]; ++b) {
        int64_t row0 = b * block_q, row1 = block_q < lq - row0 ? row0 + block_q : lq;
        for (int64_t k = 0; k < shape[1]; ++k) {
            int64_t key0 = k * block_k, key1 = block_k < lk - key0 ? key0 + block_k : lk;
            *out++ = (npy_uint8)ak_plan_rect_state(&head.parsed.plan, head.index, row0, row1, key0, key1);
        }
        if (PyErr_CheckSignals() < 0) {
            Py_CLEAR(result);
            goto done;
        }
    }
done:
    ak_py_plan_clear(&head.parsed);
    return result;
}
