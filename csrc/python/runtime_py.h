/* Python functions about the machine: targets, threads, memory hooks, build. Include after Python.h. */
#ifndef AK_PYTHON_RUNTIME_PY_H
#define AK_PYTHON_RUNTIME_PY_H

/* Ends with a NULL row: for PyModule_AddFunctions. */
extern PyMethodDef attnkit_runtime_methods[];

/* Once, when the module is loaded, before any other function runs. Cannot fail. */
void attnkit_runtime_init(void);

#endif
