/* The machine's own limits, in the widest vectors that the compiler flags allow: fused multiply-adds and reads.
 *
 * bench_fma32/64 run `rounds` rounds of BENCH_CHAINS independent chains x = x * a + b and return a number that depends
 * on every lane of every chain, so nothing can be left out; the starting values come from memory, so no two chains can
 * be merged. bench_read sums a buffer. The caller takes the time.
 *
 * Chains: latency 4 times 2 units needs 8; machines with 32 registers get 16 because some have four units.
 * gcc unrolls no loop of more than 16 rounds, and chains that are not unrolled would live in memory.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define BENCH_BYTES 64
#define BENCH_CHAINS 16
#elif defined(__AVX__)
#define BENCH_BYTES 32
#define BENCH_CHAINS 12
#elif defined(__aarch64__)
#define BENCH_BYTES 16
#define BENCH_CHAINS 16
#else
#define BENCH_BYTES 16
#define BENCH_CHAINS 12
#endif

#define BENCH_FMA(name, real)                                                                 \
    typedef real name##_vec __attribute__((vector_size(BENCH_BYTES)));                        \
    enum { name##_lanes = (int)(BENCH_BYTES / sizeof(real)) };                                \
    double name(const real *start, ptrdiff_t rounds)                                          \
    {                                                                                         \
        name##_vec x[BENCH_CHAINS], a, b;                                                     \
        memcpy(&a, start, sizeof a);                                                          \
        memcpy(&b, start + name##_lanes, sizeof b);                                           \
        for (int c = 0; c < BENCH_CHAINS; c++)                                                \
            memcpy(&x[c], start + (c + 2) * name##_lanes, sizeof x[c]);                       \
        for (ptrdiff_t r = 0; r < rounds; r++)                                                \
            for (int c = 0; c < BENCH_CHAINS; c++)                                            \
                x[c] = x[c] * a + b;                                                          \
        double sum = 0.0;                                                                     \
        for (int c = 0; c < BENCH_CHAINS; c++)                                                \
            for (int i = 0; i < name##_lanes; i++)                                            \
                sum += (double)x[c][i];                                                       \
        return sum;                                                                           \
    }                                                                                         \
    double name##_flops(void) { return 2.0 * BENCH_CHAINS * name##_lanes; }                   \
    ptrdiff_t name##_values(void) { return (BENCH_CHAINS + 2) * name##_lanes; }

BENCH_FMA(bench_fma32, float)
BENCH_FMA(bench_fma64, double)

typedef uint32_t bench_words __attribute__((vector_size(BENCH_BYTES)));

/* Sum of the 32-bit words of `bytes` bytes (a multiple of 8 vectors), as a checksum. */
uint32_t bench_read(const void *data, ptrdiff_t bytes)
{
    const char *p = data;
    bench_words sum[8] = {{0}};
    for (ptrdiff_t i = 0; i < bytes; i += 8 * BENCH_BYTES)
        for (int c = 0; c < 8; c++) {
            bench_words w;
            memcpy(&w, p + i + c * BENCH_BYTES, sizeof w);
            sum[c] += w;
        }
    uint32_t total = 0;
    for (int c = 0; c < 8; c++)
        for (int i = 0; i < (int)(BENCH_BYTES / 4); i++)
            total += sum[c][i];
    return total;
}

int bench_vector_bytes(void) { return BENCH_BYTES; }
