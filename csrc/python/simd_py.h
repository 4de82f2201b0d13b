/* The vector layer of every target, for tests. Include after Python.h. */
#ifndef AK_PYTHON_SIMD_PY_H
#define AK_PYTHON_SIMD_PY_H

/* simd(target) -> ((name, signature), ...); simd(target, name, a[, b[, c]]) -> memoryview. METH_VARARGS. */
PyObject *ak_py_simd(PyObject *self, PyObject *args);

#endif
