/* AArch64: a quarter of a vector each. */
#define AK_TARGET_NEON
#include "target_body.h"

AK_TARGET_TABLE(neon, "neon");
