/* Instruction-set targets: which exist in this binary, which this machine can run, which one is chosen.
 *
 * The rows of isa.def are ordered from best to plainest; setup.py reads the same rows for the compiler flags. A
 * target is usable when the CPU *and* the operating system's saved state (XGETBV) allow it. */
#ifndef AK_CORE_CPU_H
#define AK_CORE_CPU_H

typedef enum ak_isa {
#define AK_ISA(name, word, machine, flags) AK_ISA_##name,
#include "isa.def"
#undef AK_ISA
    AK_ISA_COUNT
} ak_isa;

const char *ak_isa_word(ak_isa isa);      /* "avx512", "avx2", "neon", "generic" */
int ak_isa_compiled(ak_isa isa);          /* is it in this binary? */
int ak_isa_usable(ak_isa isa);            /* compiled and runnable here? */
ak_isa ak_isa_chosen(void);               /* what kernels run now */
/* Force a target by word; NULL or "" returns to the best. 0 on success, -1 when unknown, -2 when not usable. */
int ak_isa_force(const char *word);

/* Kernel tables register here, one per target, filled by csrc/kernels/target_<isa>.c. */
struct ak_kernels;
const struct ak_kernels *ak_kernels_of(ak_isa isa); /* NULL when not compiled in */

#endif
