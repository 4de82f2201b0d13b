/* Floating-point mode of the running thread: saved, set to the default, given back.
 *
 * A caller (or a library loaded before) may have switched on flush-to-zero or another rounding mode, and each
 * thread has its own control word; both would change bytes. Giving back the whole register also drops the exception
 * flags that a run raised, so NumPy sees none of them. Inline assembly keeps the order: the compiler does not move
 * memory accesses across it, and tasks are called through a pointer. */
#ifndef AK_CORE_FPMODE_H
#define AK_CORE_FPMODE_H
#include <stdint.h>

#if defined(__x86_64__)
typedef struct ak_fpmode { uint32_t mxcsr; } ak_fpmode;

static inline ak_fpmode ak_fpmode_enter(void)
{
    const uint32_t standard = 0x1F80; /* round to nearest, all exceptions masked, no FTZ, no DAZ, flags clear */
    ak_fpmode found;
    __asm__ volatile("stmxcsr %0" : "=m"(found.mxcsr) : : "memory");
    __asm__ volatile("ldmxcsr %0" : : "m"(standard) : "memory");
    return found;
}

static inline void ak_fpmode_leave(ak_fpmode found) { __asm__ volatile("ldmxcsr %0" : : "m"(found.mxcsr) : "memory"); }

#elif defined(__aarch64__)
typedef struct ak_fpmode { uint64_t fpcr, fpsr; } ak_fpmode;

static inline ak_fpmode ak_fpmode_enter(void)
{
    ak_fpmode found;
    __asm__ volatile("mrs %0, fpcr" : "=r"(found.fpcr) : : "memory");
    __asm__ volatile("mrs %0, fpsr" : "=r"(found.fpsr) : : "memory");
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
    return found;
}

static inline void ak_fpmode_leave(ak_fpmode found)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(found.fpcr) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(found.fpsr) : "memory");
}

#else
#include <fenv.h>
typedef struct ak_fpmode { fenv_t env; } ak_fpmode;

static inline ak_fpmode ak_fpmode_enter(void)
{
    ak_fpmode found;
    fegetenv(&found.env);
    fesetenv(FE_DFL_ENV);
    return found;
}

static inline void ak_fpmode_leave(ak_fpmode found) { fesetenv(&found.env); }
#endif

#endif
