/* The engine on every target of this machine: a checksum per case, equal for all targets (checked here) and for all
 * machines (.ci/c_tests compares the output). Prints no target's name. */
#include <stdio.h>
#include <string.h>
#include "../../csrc/attend/attend.h"
#include "../../csrc/attend/map.h"
#include "../../csrc/core/cpu.h"
#include "../../csrc/core/memory.h"
#include "../../csrc/core/threads.h"

enum { HEADS = 2, MAX_FLOATS = 800000 };

static double q[MAX_FLOATS], k[MAX_FLOATS], v[MAX_FLOATS], bias[MAX_FLOATS]; /* used as float or double */
static double out[MAX_FLOATS], rows[6][4096], columns[2][HEADS * 16384];
static int64_t argmax[4096], visible[HEADS * 16384];

/* Scrambled numbers in [-2, 2): multiples of 2^-20, exact in float. */
static void fill(void *to, size_t n, uint32_t seed, size_t real_size)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)i + seed * 7919u;
        x = (x ^ x >> 16) * 0x7feb352du;
        x = (x ^ x >> 15) * 0x846ca68bu;
        x ^= x >> 16;
        const double number = ((double)(x >> 10) - 0x1p21) * 0x1p-20;
        if (real_size == 4) ((float *)to)[i] = (float)number;
        else ((double *)to)[i] = number;
    }
}

static uint64_t fnv(uint64_t hash, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

static ak_operand operand(const void *data, int64_t n_rows, int64_t n_cols, size_t real_size, int heads)
{
    ak_operand x = {.matrix = {data, (ptrdiff_t)((size_t)n_cols * real_size), (ptrdiff_t)real_size, real_size == 4 ? AK_F32 : AK_F64}};
    x.head_strides[0] = heads > 1 ? (ptrdiff_t)((size_t)(n_rows * n_cols) * real_size) : 0;
    return x;
}

typedef struct test_case { int64_t lq, lk; int d, dv; size_t real_size; int causal, program; } test_case;

/* Everything that one case computes, as one number; 0 on failure. */
static uint64_t checksum(const test_case *c, ak_isa isa, int n_threads)
{
    const size_t real = c->real_size, n_rows = (size_t)(HEADS * c->lq), n_cols = (size_t)(HEADS * c->lk);
    const ak_kernels *kernels = ak_kernels_of(isa);
    const ak_pattern causal = {.kind = AK_PAT_CAUSAL, .offset = c->lk - c->lq};
    ak_problem p = {
        .n_batch = 1, .shape = {HEADS}, .n_heads = HEADS, .kv_group = HEADS, .lq = c->lq, .lk = c->lk, .d = c->d, .dv = c->dv,
        .offset = c->lk - c->lq, .scale = 0.25, .plan = {&causal, c->causal, c->lq, c->lk, 1}, .weight_units = 1,
        .kernels = real == 4 ? kernels->f32 : kernels->f64, .real_size = real,
    };
    p.q = operand(q, c->lq, c->d, real, HEADS);
    p.k = operand(k, c->lk, c->d, real, 1);
    p.v = operand(v, c->lk, c->dv, real, 1);
    if (c->program) {
        p.steps[p.n_steps++] = (ak_score_step){.kind = AK_SCORE_SOFTCAP, .value = 3};
        p.steps[p.n_steps++] = (ak_score_step){.kind = AK_SCORE_BIAS, .operand = operand(bias, c->lq, c->lk, real, 1)};
    }
    const ak_row_options options = {.dropout_scale = 1};
    ak_row_outputs o = {.out = operand(out, c->lq, c->dv, real, HEADS), .lse = rows[0], .entropy = rows[1], .purity = rows[2],
                        .distance = rows[3], .norm_max = rows[4], .norm_inv = rows[5], .argmax = argmax};
    ak_threads_set(n_threads);
    if (ak_attend(&p, &options, &o) != AK_OK) return 0;
    const ak_map_rows all = {.n = c->lq, .norm_max = rows[4], .norm_inv = rows[5]};
    p.dv = 0;
    if (ak_map_columns(&p, &all, NULL, columns[0], columns[1], visible) != AK_OK) return 0;

    uint64_t hash = fnv(0xcbf29ce484222325u, out, n_rows * (size_t)c->dv * real);
    for (int i = 0; i < 6; i++) hash = fnv(hash, rows[i], n_rows * real);
    hash = fnv(hash, argmax, n_rows * sizeof *argmax);
    for (int i = 0; i < 2; i++) hash = fnv(hash, columns[i], n_cols * sizeof **columns);
    return fnv(hash, visible, n_cols * sizeof *visible);
}

int main(void)
{
    /* One row and blocks, tails of every kind, partial tiles, three chunks of keys. */
    static const int64_t lengths[][2] = {{1, 1}, {1, 700}, {5, 33}, {50, 50}, {97, 300}, {2, 9001}};
    static const int features[][2] = {{1, 3}, {24, 16}, {64, 80}};
    int failures = 0;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t f = 0; f < sizeof features / sizeof *features; f++)
            for (int variant = 0; variant < 8; variant++) {
                const test_case c = {lengths[l][0], lengths[l][1], features[f][0], features[f][1], variant & 1 ? 8 : 4,
                                     variant >> 1 & 1, variant >> 2};
                fill(q, (size_t)(HEADS * c.lq * c.d), 1, c.real_size);
                fill(k, (size_t)(c.lk * c.d), 2, c.real_size);
                fill(v, (size_t)(c.lk * c.dv), 3, c.real_size);
                fill(bias, (size_t)(c.lq * c.lk), 4, c.real_size);
                const uint64_t expected = checksum(&c, AK_ISA_GENERIC, 1);
                for (int isa = 0; isa < AK_ISA_COUNT; isa++)
                    for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
                        if (!ak_isa_usable((ak_isa)isa)) continue;
                        if (checksum(&c, (ak_isa)isa, n_threads) == expected && expected != 0) continue;
                        printf("target %s with %d threads differs:\n", ak_isa_word((ak_isa)isa), n_threads);
                        failures++;
                    }
                printf("%d x %d, d %d, dv %d, float%d%s%s: %016llx\n", (int)c.lq, (int)c.lk, c.d, c.dv, (int)c.real_size * 8,
                       c.causal ? ", causal" : "", c.program ? ", softcap and bias" : "", (unsigned long long)expected);
            }
    if (ak_alloc_live() != 0) failures++;
    printf("%s\n", failures ? "FAILED" : "all equal");
    return failures != 0;
}
