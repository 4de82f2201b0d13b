/* Plain C with a correctly rounded fma: any machine. */
#define AK_TARGET_GENERIC
#include "target_body.h"

AK_TARGET_TABLE(generic, "generic");
