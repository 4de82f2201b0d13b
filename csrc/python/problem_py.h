/* Arrays and options of a call to an ak_problem. */
#ifndef AK_PYTHON_PROBLEM_PY_H
#define AK_PYTHON_PROBLEM_PY_H
#include "module.h"
#include "plan_py.h"
#include "../attend/problem.h"

/* A parsed call. The problem points into the arrays of the caller, which the caller's arguments keep alive. */
typedef struct ak_py_problem {
    ak_problem problem;
    ak_py_plan plan;      /* parsed from a list of nodes; empty when there is none */
    ak_pattern band;      /* the plan of a call whose mask is (left, right) only */
    ak_poll poll;
    int64_t poll_due;
    PyThreadState *saved; /* while the GIL is released */
    npy_intp shape[NPY_MAXDIMS]; /* batch shape, then room for the axes of a result */
    int real_type;        /* NPY_FLOAT or NPY_DOUBLE */
    int out_type;         /* type number of the output array: that of the inputs when they agree, else real_type */
} ak_py_problem;

/* q, k: arrays of float16, uint16 (bfloat16 bits), float32 or float64 with at least 2 axes; v likewise or None.
 * scale: float or None (1 / sqrt(d)); offset: int; steps: None or a tuple of ("softcap", c), ("bias", array), ("alibi", float64 array);
 * nodes: None, (left, right) of a band around the diagonal (negative = unbounded), or the list of attnkit.masks. Returns 0, or -1 with an exception set and nothing to clear. */
int ak_py_problem_parse(PyObject *q, PyObject *k, PyObject *v, PyObject *scale, PyObject *offset, PyObject *steps, PyObject *nodes,
                        ak_py_problem *out);
void ak_py_problem_clear(ak_py_problem *parsed);

/* An array broadcast to the batch and `n_tail` (0..2) more axes of sizes tail; `name` for the message. */
int ak_py_operand(const ak_py_problem *parsed, const char *name, PyArrayObject *array, int n_tail, const int64_t *tail, ak_operand *out);

/* A new array of the batch shape and more axes. NULL with MemoryError set. */
PyArrayObject *ak_py_new(ak_py_problem *parsed, int type, int n_more, npy_intp more0, npy_intp more1);

/* Between these two the GIL is released and Ctrl-C is looked for. */
void ak_py_leave(ak_py_problem *parsed);
void ak_py_enter(ak_py_problem *parsed);
/* Exception for a status that is not AK_OK. */
void ak_py_raise(ak_status status);

#endif
