#include "status.h"

static const char *const status_words[] = {
#define AK_STATUS_WORDS(code, words) [code] = words,
    AK_STATUS_LIST(AK_STATUS_WORDS)
#undef AK_STATUS_WORDS
};

_Static_assert(sizeof status_words / sizeof status_words[0] == AK_STATUS_COUNT, "one text per status code");

const char *ak_status_words(ak_status status)
{
    /* The comparison is unsigned so that a value cast from garbage is caught on both sides. */
    return (unsigned)status < (unsigned)AK_STATUS_COUNT ? status_words[status] : "unknown status";
}
