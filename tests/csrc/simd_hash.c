/* One checksum over every operation of the vector layer on a fixed set of inputs: equal for all targets, compilers
 * and optimisation levels.
 *
 *     simd_hash [-v]
 *
 * Inputs are edge values in all pairings and pseudo-random bit patterns. -v prints a checksum per operation, to find
 * the one that differs. It also checks, with a page that cannot be touched, that the *_first forms read and write
 * nothing beyond. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define AK_SIMD_PROBES probes
#include "kernels/simd_probe.h"

enum { CALLS = 4000, LARGEST = 1024 };

static uint64_t state;

/* splitmix64 */
static uint64_t random_bits(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static const uint32_t edges32[] = {
    0x00000000, 0x00000001, 0x00400000, 0x007fffff, 0x00800000, 0x00800001, 0x33000000, 0x337fffff, 0x38800000,
    0x387fffff, 0x3d4ccccd, 0x3e800000, 0x3eb17218, 0x3f000000, 0x3f3504f3, 0x3f317218, 0x3f7fffff, 0x3f800000,
    0x3f800001, 0x3fb504f3, 0x40000000, 0x40200000, 0x41100000, 0x42b17218, 0x42cff1b5, 0x42fc0000, 0x42fd0000,
    0x42fe0000, 0x43000000, 0x43160000, 0x477fe000, 0x477ff000, 0x47800000, 0x4b000000, 0x4b400000, 0x4b7fffff,
    0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fa00000, 0x7fbfffff, 0x7fc00000, 0x7fc00001, 0x7fc007a2, 0x7fffffff,
};
static const uint64_t edges64[] = {
    0x0000000000000000, 0x0000000000000001, 0x0008000000000000, 0x000fffffffffffff, 0x0010000000000000,
    0x3ca0000000000000, 0x3fd0000000000000, 0x3fd62e42fefa39ef, 0x3fe0000000000000, 0x3fe6a09e667f3bcd,
    0x3fe62e42fefa39ef, 0x3fefffffffffffff, 0x3ff0000000000000, 0x3ff0000000000001, 0x3ff6a09e667f3bcd,
    0x4000000000000000, 0x4004000000000000, 0x40331999999999a0, 0x40862e42fefa39ef, 0x4087490000000000,
    0x408ff00000000000, 0x408ff40000000000, 0x408ff80000000000, 0x4090cc0000000000, 0x4330000000000000,
    0x4338000000000000, 0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff0000000000001, 0x7ff4000000000000,
    0x7ff8000000000000, 0x7ff80000000007a2, 0x7fffffffffffffff,
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static uint32_t word32(uint64_t position)
{
    const uint64_t r = random_bits();
    switch (r % 4) {
    case 0: return edges32[(r >> 8) % COUNT(edges32)] | (uint32_t)(r >> 63) << 31;
    case 1: return (uint32_t)(r >> 32); /* any bits */
    case 2: return ak_f32_bits((float)((double)(int64_t)(r >> 2) * 0x1p-61 * (double)(1 << position % 9)));
    default: return (uint32_t)(r >> 41) | (uint32_t)(112 + (r >> 8) % 30) << 23 | (uint32_t)(r >> 20 & 1) << 31;
    }
}

static uint64_t word64(uint64_t position)
{
    const uint64_t r = random_bits(), more = random_bits();
    switch (r % 4) {
    case 0: return edges64[(r >> 8) % COUNT(edges64)] | (more & 1) << 63;
    case 1: return more;
    case 2: return ak_f64_bits((double)((int64_t)more >> 11) * 0x1p-52 * (double)(1 << position % 12));
    default: return more >> 12 | (1008 + (r >> 8) % 30) << 52 | (more & 1) << 63;
    }
}

static size_t bytes_of(char letter)
{
    switch (letter) {
    case 'F': return 1024;
    case 'D': return 512;
    case 'f': case 'd': return 64;
    case 'h': case 'w': return 32;
    case 'g': return 16;
    case 'e': return 8;
    default: return 4;
    }
}

static void fill(char letter, unsigned char *to)
{
    const size_t bytes = bytes_of(letter);
    const int doubles = letter == 'd' || letter == 'D' || letter == 'e';
    for (size_t i = 0; i < bytes; i += doubles ? 8 : 4) {
        uint32_t w32 = 0;
        uint64_t w64 = 0;
        if (doubles) w64 = word64(i / 8);
        else if (letter == 'u' || letter == 'i' || letter == 'h' || letter == 'g') w32 = (uint32_t)random_bits();
        else w32 = word32(i / 4);
        memcpy(to + i, doubles ? (const void *)&w64 : (const void *)&w32, doubles ? 8 : 4);
    }
}

/* The *_first forms, up against a page that may not be touched. Returns the number of wrong values. */
static int check_tails(unsigned char *end)
{
    int bad = 0;
    for (int n = 0; n <= VF_LANES; n++) {
        float x[VF_LANES], *p = (float *)(void *)(end - (size_t)n * sizeof *p);
        for (int i = 0; i < n; i++) p[i] = (float)(i + 1);
        vf_store(x, vf_load_first(p, n));
        for (int i = 0; i < VF_LANES; i++) bad += x[i] != (i < n ? (float)(i + 1) : 0);
        vf_store_first(p, vf_set1(7), n);
        for (int i = 0; i < n; i++) bad += p[i] != 7;
        uint16_t *h = (uint16_t *)(void *)(end - (size_t)n * sizeof *h);
        vf_store_f16_first(h, vf_set1(2), n);
        vf_store(x, vf_load_f16_first(h, n));
        for (int i = 0; i < VF_LANES; i++) bad += x[i] != (i < n ? 2.0f : 0);
        vf_store_bf16_first(h, vf_set1(3), n);
        vf_store(x, vf_load_bf16_first(h, n));
        for (int i = 0; i < VF_LANES; i++) bad += x[i] != (i < n ? 3.0f : 0);
    }
    for (int n = 0; n <= VD_LANES; n++) {
        double x[VD_LANES], *p = (double *)(void *)(end - (size_t)n * sizeof *p);
        for (int i = 0; i < n; i++) p[i] = i + 1;
        vd_store(x, vd_load_first(p, n));
        for (int i = 0; i < VD_LANES; i++) bad += x[i] != (i < n ? i + 1 : 0);
        vd_store_first(p, vd_set1(7), n);
        for (int i = 0; i < n; i++) bad += p[i] != 7;
        float *w = (float *)(void *)(end - (size_t)n * sizeof *w);
        for (int i = 0; i < n; i++) w[i] = (float)(i + 1);
        vd_store(x, vd_load_f32_first(w, n));
        for (int i = 0; i < VD_LANES; i++) bad += x[i] != (i < n ? i + 1 : 0);
    }
    return bad;
}

static uint64_t fnv(uint64_t hash, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

int main(int argc, char **argv)
{
    static _Alignas(64) unsigned char in[3][LARGEST + 64], out[LARGEST + 64];
    const int verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
    uint64_t total = 0xcbf29ce484222325u;
    for (size_t i = 0; i < COUNT(probes); i++) {
        const char *signature = probes[i].signature, *arrow = strchr(signature, '>');
        const size_t bytes = bytes_of(arrow[1]);
        uint64_t hash = 0xcbf29ce484222325u;
        state = i;
        for (int call = 0; call < CALLS; call++) {
            /* Alignment of the element type only. */
            const size_t shift = call % 2 ? 8 : 0;
            for (const char *s = signature; s < arrow; s++) fill(*s, in[s - signature] + shift);
            memset(out, 0xa5, sizeof out);
            probes[i].run(in[0] + shift, in[1] + shift, in[2] + shift, out + shift);
            hash = fnv(hash, out, bytes + 64);
        }
        if (verbose) printf("%-20s %-6s %016llx\n", probes[i].name, signature, (unsigned long long)hash);
        total = fnv(total, (const unsigned char *)&hash, sizeof hash);
    }
    const size_t page = 65536; /* a multiple of every page size in use */
    unsigned char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE) != 0) return 2;
    const int bad = check_tails(pages + page);
    printf("%016llx %zu operations, %d wrong tails\n", (unsigned long long)total, COUNT(probes), bad);
    return bad != 0;
}
