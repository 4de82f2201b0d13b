/* 256-bit registers and fused multiply-add: half a vector each. */
#define AK_TARGET_AVX2
#include "target_body.h"

AK_TARGET_TABLE(avx2, "avx2");
