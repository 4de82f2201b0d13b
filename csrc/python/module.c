/* attnkit._core: the method table. Private to the package; every public function is in attnkit/. */
#define AK_OWNS_ARRAY_API
#include "module.h"
#include "plan_py.h"
#include "runtime_py.h"
#include "simd_py.h"

static PyMethodDef methods[] = {
    {"attend", (PyCFunction)(void (*)(void))ak_py_attend, METH_FASTCALL, NULL},
    {"map_window", (PyCFunction)(void (*)(void))ak_py_map_window, METH_FASTCALL, NULL},
    {"map_columns", (PyCFunction)(void (*)(void))ak_py_map_columns, METH_FASTCALL, NULL},
    {"map_blocks", (PyCFunction)(void (*)(void))ak_py_map_blocks, METH_FASTCALL, NULL},
    {"merge_states", (PyCFunction)(void (*)(void))ak_py_merge_states, METH_FASTCALL, NULL},
    {"finish_states", (PyCFunction)(void (*)(void))ak_py_finish_states, METH_FASTCALL, NULL},
    AK_PY_PLAN_METHODS,
    {"simd", ak_py_simd, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module)
{
    import_array1(-1);
    attnkit_runtime_init();
    return PyModule_AddFunctions(module, attnkit_runtime_methods);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)exec_module},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "attnkit._core", .m_doc = "C engine of attnkit.", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
