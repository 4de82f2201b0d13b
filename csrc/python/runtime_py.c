#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "../core/cpu.h"
#include "../core/fpmode.h"
#include "../core/memory.h"
#include "../core/quota.h"
#include "../core/threads.h"
#include "runtime_py.h"

/* setup.py hands these three in; an empty text stands for "unknown" in a build by hand. */
#ifndef AK_BUILD_COMPILER
#define AK_BUILD_COMPILER ""
#define AK_BUILD_FLAGS ""
#define AK_BUILD_SANITIZERS ""
#endif

/* A team is made by the OpenMP runtime, which ends the process when the system refuses it a thread: a mistyped number
 * must not get that far. */
enum { MAX_THREADS = 1024 };

static PyObject *isa_table(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *rows = PyTuple_New(AK_ISA_COUNT);
    if (rows == NULL) return NULL;
    for (int isa = 0; isa < AK_ISA_COUNT; isa++) {
        PyObject *row = Py_BuildValue("(sNN)", ak_isa_word((ak_isa)isa), PyBool_FromLong(ak_isa_compiled((ak_isa)isa)),
                                      PyBool_FromLong(ak_isa_usable((ak_isa)isa)));
        if (row == NULL) {
            Py_DECREF(rows);
            return NULL;
        }
        PyTuple_SET_ITEM(rows, isa, row);
    }
    return rows;
}

static PyObject *isa_chosen(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyUnicode_FromString(ak_isa_word(ak_isa_chosen()));
}

/* "avx512 (not on this machine), avx2, generic" */
static PyObject *isa_choices(void)
{
    PyObject *parts = PyList_New(0), *comma = PyUnicode_FromString(", "), *text = NULL;
    if (parts == NULL || comma == NULL) goto done;
    for (int i = 0; i < AK_ISA_COUNT; i++) {
        ak_isa isa = (ak_isa)i;
        const char *note = ak_isa_usable(isa)     ? ""
                           : ak_isa_compiled(isa) ? " (this machine cannot run it)"
                                                  : " (not in this build)";
        PyObject *part = PyUnicode_FromFormat("%s%s", ak_isa_word(isa), note);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_XDECREF(part);
            goto done;
        }
        Py_DECREF(part);
    }
    text = PyUnicode_Join(comma, parts);
done:
    Py_XDECREF(parts);
    Py_XDECREF(comma);
    return text;
}

static PyObject *isa_force(PyObject *Py_UNUSED(module), PyObject *arg)
{
    const char *word = NULL;
    if (arg != Py_None) {
        word = PyUnicode_AsUTF8(arg);
        if (word == NULL) return NULL;
    }
    int failed = ak_isa_force(word);
    if (failed) {
        PyObject *choices = isa_choices();
        if (choices == NULL) return NULL;
        PyErr_Format(PyExc_ValueError, "target %R %s; choices: %U", arg,
                     failed == -1 ? "is unknown" : "cannot be used here", choices);
        Py_DECREF(choices);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *threads_get(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(ak_threads_get());
}

static PyObject *threads_set(PyObject *Py_UNUSED(module), PyObject *arg)
{
    long n = PyLong_AsLong(arg);
    if (n == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return NULL;
        PyErr_Clear(); /* the message below names the range */
    }
    if (n < 0 || n > MAX_THREADS)
        return PyErr_Format(PyExc_ValueError, "number of threads must be in 1..%d, got %R", MAX_THREADS, arg);
    return PyLong_FromLong(ak_threads_set((int)n));
}

static PyObject *have_openmp(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(ak_threads_have_openmp());
}

static PyObject *cpus_affinity(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(ak_cpus_affinity());
}

static PyObject *cgroup_quota(PyObject *Py_UNUSED(module), PyObject *arg)
{
    const char *root = PyUnicode_AsUTF8(arg);
    return root == NULL ? NULL : PyLong_FromLong(ak_cgroup_quota(root));
}

static PyObject *alloc_fail_after(PyObject *Py_UNUSED(module), PyObject *arg)
{
    long k = PyLong_AsLong(arg);
    if (k == -1 && PyErr_Occurred()) return NULL;
    ak_alloc_fail_after(k);
    Py_RETURN_NONE;
}

static PyObject *alloc_live(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(ak_alloc_live());
}

static PyObject *fp_enter(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    const ak_fpmode found = ak_fpmode_enter();
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)&found, sizeof found);
    if (bytes == NULL) ak_fpmode_leave(found);
    return bytes;
}

static PyObject *fp_leave(PyObject *Py_UNUSED(module), PyObject *arg)
{
    ak_fpmode found;
    if (!PyBytes_Check(arg) || PyBytes_GET_SIZE(arg) != (Py_ssize_t)sizeof found) {
        PyErr_SetString(PyExc_TypeError, "fp_leave takes what fp_enter returned");
        return NULL;
    }
    memcpy(&found, PyBytes_AS_STRING(arg), sizeof found);
    ak_fpmode_leave(found);
    Py_RETURN_NONE;
}

static PyObject *build_info(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
#ifdef AK_DEBUG
    const int debug = 1;
#else
    const int debug = 0;
#endif
    return Py_BuildValue("{s:s,s:s,s:s,s:N,s:N}", "compiler", AK_BUILD_COMPILER, "flags", AK_BUILD_FLAGS, "sanitizers",
                         AK_BUILD_SANITIZERS, "debug", PyBool_FromLong(debug), "openmp",
                         PyBool_FromLong(ak_threads_have_openmp()));
}

PyMethodDef attnkit_runtime_methods[] = {
    {"isa_table", isa_table, METH_NOARGS, "((word, compiled, usable), ...), best target first."},
    {"isa_chosen", isa_chosen, METH_NOARGS, "Word of the target whose kernels run."},
    {"isa_force", isa_force, METH_O, "Run the kernels of the target with this word; None returns to the best."},
    {"threads_get", threads_get, METH_NOARGS, "Threads that a call from this thread may use."},
    {"threads_set", threads_set, METH_O, "Set this thread's number (0 = default); returns the setting before."},
    {"have_openmp", have_openmp, METH_NOARGS, "Was the extension built with OpenMP?"},
    {"cpus_affinity", cpus_affinity, METH_NOARGS, "CPUs in this thread's affinity mask."},
    {"cgroup_quota", cgroup_quota, METH_O, "CPU quota, whole CPUs, 0 = none, read under this root (\"\" = the system)."},
    {"alloc_fail_after", alloc_fail_after, METH_O, "Test hook: the k-th scratch allocation from now fails; 0 = off."},
    {"alloc_live", alloc_live, METH_NOARGS, "Test hook: scratch blocks allocated and not freed."},
    {"fp_enter", fp_enter, METH_NOARGS, "Default floating-point mode for this thread; returns the mode found."},
    {"fp_leave", fp_leave, METH_O, "Give back what fp_enter returned."},
    {"build_info", build_info, METH_NOARGS, "Compiler, flags and options of this build."},
    {NULL, NULL, 0, NULL},
};

void attnkit_runtime_init(void) { ak_threads_init(); }
