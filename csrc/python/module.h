/* What the files of the binding share. Each file includes this first; module.c alone owns the NumPy API table. */
#ifndef AK_PYTHON_MODULE_H
#define AK_PYTHON_MODULE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL ak_array_api
#ifndef AK_OWNS_ARRAY_API
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

/* Rows for the method table of attend_py.c. */
PyObject *ak_py_attend(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ak_py_map_window(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ak_py_map_columns(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ak_py_map_blocks(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ak_py_merge_states(PyObject *module, PyObject *const *args, Py_ssize_t n_args);
PyObject *ak_py_finish_states(PyObject *module, PyObject *const *args, Py_ssize_t n_args);

#endif
