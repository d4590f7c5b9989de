/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Statuses, the error text and the macros that raise and relay them.
 *
 * A fallible function begins `enum mpo_status status = MPO_OK;` and ends at its one label
 * `cleanup:`.  MPO_FAIL raises, MPO_CHECK raises unless a condition holds, MPO_TRY relays.
 * The text belongs to the calling thread and is valid until that thread raises again. Every
 * call that returns a status other than MPO_OK leaves one.
 *
 * NULL. Where nothing is said of NULL a pointer is there. What is checked is the same everywhere:
 *   - what returns a status and opens something, or takes a file, a prompt, a response, a step
 *     or a row of a caller, looks at its pointers and answers MPO_ERR_USAGE with the name of
 *     the one that is NULL. An opener's *out is NULL after any failure
 *   - what is called for each token inside of a step (the verbs of mpo/policy.h,
 *     mpo/exchange.h, mpo/mixture.h), moves bytes between ranks (mpo/comm.h), or asks a handle
 *     for a figure does not look: NULL there ends the process
 *   - mpo_x_close and _discard take NULL and handles that are NULL. Closing
 *     sets the caller's handle to NULL, so that it may be closed twice
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* name, exit code (sysexits where one fits), sentence */
#define MPO_STATUS_LIST(X)                                                                 \
    X(OK, 0, "success")                                                                    \
    X(ERR_USAGE, 64, "wrong command line")                                                 \
    X(ERR_DATA, 65, "bad data, or policies that do not fit together")                      \
    X(ERR_INPUT, 66, "an input is missing or cannot be read")                              \
    X(ERR_DEVICE, 69, "a device or a backend is not available")                            \
    X(ERR_INTERNAL, 70, "a bug in mpo; please report it")                                  \
    X(ERR_MEMORY, 71, "out of memory, or beyond a limit (ulimit)")                         \
    X(ERR_OUTPUT, 73, "the output exists already or cannot be made")                       \
    X(ERR_IO, 74, "input/output error, or the disk is full")                               \
    X(ERR_PEER, 75, "a rank was lost or a deadline passed; try again")                     \
    X(ERR_PERMISSION, 77, "permission denied")                                             \
    X(ERR_CONFIG, 78, "the configuration is wrong")                                        \
    X(REQUEUE, 85, "stopped on request; the run can be resumed")

enum mpo_status {
#define MPO_STATUS_ENUM(name, code, sentence) MPO_##name,
    MPO_STATUS_LIST(MPO_STATUS_ENUM)
#undef MPO_STATUS_ENUM
        MPO_STATUS_COUNT
};

/** Exit code of the process for a status. Local. */
int mpo_status_exit_code(enum mpo_status status);

/** The sentence of a status; never NULL. Local. */
const char *mpo_status_sentence(enum mpo_status status);

/** The text of the last failure on this thread, "" when there was none. Local. */
const char *mpo_error_text(void);

/** The functions that the last failure passed through, one a line, innermost first; "" when
 *  it was raised elsewhere. Local. */
const char *mpo_error_trace(void);

/** Replace the text by one that was raised elsewhere, without a trace (a copy
 *  is kept; NULL: ""). Local. */
void mpo_error_set(const char *text);

/** Bytes of a text and of a trace at most; longer ones are cut. */
#define MPO_ERROR_TEXT_BYTES 2048

/** Text and trace, kept while something else is tried that may fail. */
struct mpo_error {
    char text[MPO_ERROR_TEXT_BYTES];
    char trace[MPO_ERROR_TEXT_BYTES];
};

/** Keep those of the last failure; have them back. Local. */
void mpo_error_keep(struct mpo_error *error);
void mpo_error_restore(const struct mpo_error *error);

/** A failure kept for later, for callers that collect all failures. */
struct mpo_failure {
    enum mpo_status status;
    char text[1024];
};

/** Keep a status, and the text that was raised with it. Local. */
void mpo_failure_keep(struct mpo_failure *failure, enum mpo_status status);

/** Raise a kept failure again; MPO_OK if it was none. Local. */
enum mpo_status mpo_failure_raise(const struct mpo_failure *failure);

/** Format the text and begin a new trace; use MPO_FAIL. Local. */
enum mpo_status mpo_error_raise(enum mpo_status status, const char *file, int line,
                                const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/** Add a line to the trace; use MPO_TRY. Local. */
void mpo_error_relay(const char *function, const char *file, int line);

#define MPO_FAIL(code, ...)                                                                \
    do {                                                                                   \
        status = mpo_error_raise((code), __FILE__, __LINE__, __VA_ARGS__);                 \
        goto cleanup;                                                                      \
    } while (0)

#define MPO_CHECK(condition, code, ...)                                                    \
    do {                                                                                   \
        if (!(condition))                                                                  \
            MPO_FAIL(code, __VA_ARGS__);                                                   \
    } while (0)

#define MPO_TRY(call)                                                                      \
    do {                                                                                   \
        status = (call);                                                                   \
        if (status != MPO_OK) {                                                            \
            mpo_error_relay(__func__, __FILE__, __LINE__);                                 \
            goto cleanup;                                                                  \
        }                                                                                  \
    } while (0)

#ifdef __cplusplus
}
#endif
