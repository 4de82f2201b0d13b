#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>
#include "../core/cpu.h"
#include "../kernels/kernels.h"
#include "../kernels/simd_probe.h"
#include "simd_py.h"

/* One letter of a signature (csrc/simd/simd_table.h): the buffer format of its elements and how many a call takes. */
typedef struct operand {
    char letter;
    const char *format;
    Py_ssize_t size, count;
} operand;

static const operand operands[] = {
    {'f', "f", 4, 16}, {'d', "d", 8, 8},   {'s', "f", 4, 1},  {'e', "d", 8, 1}, {'F', "f", 4, 256}, {'D', "d", 8, 64},
    {'h', "H", 2, 16}, {'g', "H", 2, 8},   {'w', "f", 4, 8},  {'u', "I", 4, 1}, {'i', "i", 4, 1},
};

static const operand *operand_of(char letter)
{
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
        if (operands[i].letter == letter) return &operands[i];
    return NULL;
}

static const ak_kernels *kernels_for(const char *word)
{
    for (int isa = 0; isa < AK_ISA_COUNT; isa++) {
        if (strcmp(ak_isa_word((ak_isa)isa), word) != 0) continue;
        if (!ak_isa_usable((ak_isa)isa)) {
            PyErr_Format(PyExc_ValueError, "target %s cannot be used here", word);
            return NULL;
        }
        return ak_kernels_of((ak_isa)isa);
    }
    PyErr_Format(PyExc_ValueError, "target %s is unknown", word);
    return NULL;
}

static PyObject *list_probes(const ak_kernels *kernels)
{
    PyObject *rows = PyTuple_New(kernels->n_probes);
    if (rows == NULL) return NULL;
    for (int i = 0; i < kernels->n_probes; i++) {
        PyObject *row = Py_BuildValue("(ss)", kernels->probes[i].name, kernels->probes[i].signature);
        if (row == NULL) {
            Py_DECREF(rows);
            return NULL;
        }
        PyTuple_SET_ITEM(rows, i, row);
    }
    return rows;
}

/* The number of calls that `view` feeds, or -1 with an exception. */
static Py_ssize_t calls_in(const Py_buffer *view, const operand *o, const char *name, int position)
{
    const char *format = view->format == NULL ? "B" : view->format;
    if (strcmp(format, o->format) != 0 || view->itemsize != o->size) {
        PyErr_Format(PyExc_TypeError, "%s: operand %d has elements '%s', '%s' expected", name, position, format, o->format);
        return -1;
    }
    if (view->len % (o->size * o->count) != 0) {
        PyErr_Format(PyExc_ValueError, "%s: operand %d has %zd elements, not a multiple of %zd", name, position,
                     view->len / o->size, o->count);
        return -1;
    }
    return view->len / (o->size * o->count);
}

static PyObject *run_probe(const ak_simd_probe *probe, PyObject *const *arrays, int given)
{
    const char *arrow = strchr(probe->signature, '>');
    const int wanted = (int)(arrow - probe->signature);
    if (given != wanted)
        return PyErr_Format(PyExc_TypeError, "%s takes %d operands, %d given", probe->name, wanted, given);

    Py_buffer views[3];
    Py_ssize_t steps[3] = {0, 0, 0}, calls = 0;
    PyObject *bytes = NULL, *plain = NULL, *result = NULL;
    int held = 0;
    for (; held < given; held++) {
        const operand *o = operand_of(probe->signature[held]);
        if (PyObject_GetBuffer(arrays[held], &views[held], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) goto done;
        const Py_ssize_t n = calls_in(&views[held], o, probe->name, held + 1);
        if (n >= 0 && held > 0 && n != calls)
            PyErr_Format(PyExc_ValueError, "%s: operand %d feeds %zd calls, operand 1 feeds %zd", probe->name,
                         held + 1, n, calls);
        if (PyErr_Occurred()) {
            PyBuffer_Release(&views[held]);
            goto done;
        }
        calls = n;
        steps[held] = o->size * o->count;
    }

    const operand *to = operand_of(arrow[1]);
    const Py_ssize_t step = to->size * to->count;
    if (calls > PY_SSIZE_T_MAX / step) {
        PyErr_NoMemory();
        goto done;
    }
    bytes = PyByteArray_FromStringAndSize(NULL, calls * step);
    if (bytes == NULL) goto done;
    char *out = PyByteArray_AS_STRING(bytes);
    const char *in[3] = {NULL, NULL, NULL};
    for (int i = 0; i < given; i++) in[i] = views[i].buf;
    for (Py_ssize_t call = 0; call < calls; call++) {
        probe->run(in[0], in[1], in[2], out);
        for (int i = 0; i < given; i++) in[i] += steps[i];
        out += step;
    }
    plain = PyMemoryView_FromObject(bytes);
    if (plain != NULL) result = PyObject_CallMethod(plain, "cast", "s", to->format);
done:
    Py_XDECREF(plain);
    Py_XDECREF(bytes);
    while (held > 0) PyBuffer_Release(&views[--held]);
    return result;
}

PyObject *ak_py_simd(PyObject *Py_UNUSED(self), PyObject *args)
{
    const char *word, *name = NULL;
    PyObject *arrays[3] = {NULL, NULL, NULL};
    if (!PyArg_ParseTuple(args, "s|sOOO:simd", &word, &name, &arrays[0], &arrays[1], &arrays[2])) return NULL;
    const ak_kernels *kernels = kernels_for(word);
    if (kernels == NULL) return NULL;
    if (name == NULL) return list_probes(kernels);
    for (int i = 0; i < kernels->n_probes; i++) {
        if (strcmp(kernels->probes[i].name, name) == 0)
            return run_probe(&kernels->probes[i], arrays, (arrays[0] != NULL) + (arrays[1] != NULL) + (arrays[2] != NULL));
    }
    return PyErr_Format(PyExc_ValueError, "the vector layer has no operation %s", name);
}
