/* 512-bit registers: one vector of the virtual layer each. */
#define AK_TARGET_AVX512
#include "target_body.h"

AK_TARGET_TABLE(avx512, "avx512");
