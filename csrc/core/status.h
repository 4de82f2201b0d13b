/* Status codes: the one error convention of the C core.
 *
 * Every function that can fail returns an ak_status; nothing aborts, nothing prints. The binding turns a
 * status into a Python exception in one place. Codes and their words come from the one list below. */
#ifndef AK_CORE_STATUS_H
#define AK_CORE_STATUS_H

#define AK_STATUS_LIST(X)                                                            \
    X(AK_OK, "ok")                                                                   \
    X(AK_NO_MEMORY, "out of memory")                                                 \
    X(AK_INTERRUPTED, "interrupted")                                                 \
    X(AK_CALLBACK_FAILED, "a callback reported an error")

typedef enum ak_status {
#define AK_STATUS_ENUM(code, words) code,
    AK_STATUS_LIST(AK_STATUS_ENUM)
#undef AK_STATUS_ENUM
    AK_STATUS_COUNT
} ak_status;

/* Words for a code; never NULL. */
const char *ak_status_words(ak_status status);

/* Return early when a call fails: `AK_TRY(ak_plan_build(...));` */
#define AK_TRY(call)                                                                 \
    do {                                                                             \
        ak_status ak_try_status_ = (call);                                           \
        if (ak_try_status_ != AK_OK) return ak_try_status_;                          \
    } while (0)

#endif
