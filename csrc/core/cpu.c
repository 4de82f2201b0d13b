#include "cpu.h"
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/* setup.py defines AK_HAVE_<NAME> for each target it compiled. */
struct ak_kernels;
#ifdef AK_HAVE_AVX512
extern const struct ak_kernels ak_kernels_avx512;
#define KERNELS_AVX512 &ak_kernels_avx512
#else
#define KERNELS_AVX512 NULL
#endif
#ifdef AK_HAVE_AVX2
extern const struct ak_kernels ak_kernels_avx2;
#define KERNELS_AVX2 &ak_kernels_avx2
#else
#define KERNELS_AVX2 NULL
#endif
#ifdef AK_HAVE_NEON
extern const struct ak_kernels ak_kernels_neon;
#define KERNELS_NEON &ak_kernels_neon
#else
#define KERNELS_NEON NULL
#endif
#ifdef AK_HAVE_GENERIC
extern const struct ak_kernels ak_kernels_generic;
#define KERNELS_GENERIC &ak_kernels_generic
#else
#define KERNELS_GENERIC NULL
#endif

static const struct ak_kernels *const kernels[AK_ISA_COUNT] = {
#define AK_ISA(name, word, machine, flags) KERNELS_##name,
#include "isa.def"
#undef AK_ISA
};

static const char *const words[AK_ISA_COUNT] = {
#define AK_ISA(name, word, machine, flags) word,
#include "isa.def"
#undef AK_ISA
};

#if defined(__x86_64__)
#include <cpuid.h>

/* The processor may have wide registers that the operating system does not save on a context switch: XCR0 tells
 * which it does. */
static unsigned long long saved_state(void)
{
    unsigned int low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((unsigned long long)high << 32) | low;
}

static int runs_here(ak_isa isa)
{
    if (isa == AK_ISA_GENERIC) return 1;
    if (isa != AK_ISA_AVX2 && isa != AK_ISA_AVX512) return 0;

    unsigned int eax, ebx, ecx, edx;
    const unsigned int leaf1 = bit_FMA | bit_POPCNT | bit_F16C | bit_OSXSAVE | bit_AVX;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & leaf1) != leaf1) return 0;
    if (!__get_cpuid(0x80000001u, &eax, &ebx, &ecx, &edx) || !(ecx & bit_LZCNT)) return 0;
    unsigned int leaf7 = bit_AVX2 | bit_BMI | bit_BMI2;
    unsigned long long state = 0x06; /* xmm, ymm */
    if (isa == AK_ISA_AVX512) {
        leaf7 |= bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
        state |= 0xE0; /* opmask, upper halves of zmm0-15, zmm16-31 */
    }
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (ebx & leaf7) != leaf7) return 0;
    return (saved_state() & state) == state;
}
#elif defined(__aarch64__)
static int runs_here(ak_isa isa) { return isa == AK_ISA_GENERIC || isa == AK_ISA_NEON; }
#else
static int runs_here(ak_isa isa) { return isa == AK_ISA_GENERIC; }
#endif

const char *ak_isa_word(ak_isa isa) { return (unsigned)isa < AK_ISA_COUNT ? words[isa] : "unknown"; }

const struct ak_kernels *ak_kernels_of(ak_isa isa) { return (unsigned)isa < AK_ISA_COUNT ? kernels[isa] : NULL; }

int ak_isa_compiled(ak_isa isa) { return ak_kernels_of(isa) != NULL; }

int ak_isa_usable(ak_isa isa) { return ak_isa_compiled(isa) && runs_here(isa); }

/* The answer cannot change while the process lives: two threads that fill it at once write the same value. */
static atomic_int chosen = -1;

static int best(void)
{
    for (int isa = 0; isa < AK_ISA_COUNT; isa++)
        if (ak_isa_usable((ak_isa)isa)) return isa;
    return AK_ISA_GENERIC; /* setup.py always compiles it */
}

ak_isa ak_isa_chosen(void)
{
    int isa = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (isa < 0) {
        /* CPUID traps in virtual machines (tens of microseconds), so it is asked once. A force that lands in
         * between wins. */
        int found = best();
        if (atomic_compare_exchange_strong_explicit(&chosen, &isa, found, memory_order_relaxed, memory_order_relaxed))
            isa = found;
    }
    return (ak_isa)isa;
}

int ak_isa_force(const char *word)
{
    if (word == NULL || word[0] == '\0') {
        atomic_store_explicit(&chosen, best(), memory_order_relaxed);
        return 0;
    }
    for (int isa = 0; isa < AK_ISA_COUNT; isa++) {
        if (strcmp(word, words[isa]) != 0) continue;
        if (!ak_isa_usable((ak_isa)isa)) return -2;
        atomic_store_explicit(&chosen, isa, memory_order_relaxed);
        return 0;
    }
    return -1;
}
