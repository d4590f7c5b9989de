/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Pointers that a caller has to pass: what mpo/status.h promises of NULL.
 *
 * The macros come first in a function that returns a status, right after `status`, before it
 * owns anything: they return from where they are, so that `cleanup:` need not know which
 * pointers are there.
 */
#pragma once

#include <stddef.h>

#include "mpo/status.h"

/** Raise unless all pointers are there. Local.
 *
 * @param function  that was called, for the message
 * @param names     of the pointers, as in "spec, out"
 * @return MPO_ERR_USAGE with the name of the first that is NULL */
enum mpo_status mpo_argument_check(const char *function, const char *names,
                                   const void *const *pointer, size_t count);

/** MPO_ARGUMENTS_OF("mpo_x_open", spec, out): return MPO_ERR_USAGE if one of these is NULL. */
#define MPO_ARGUMENTS_OF(function, ...)                                                    \
    do {                                                                                   \
        const void *const arguments_[] = {__VA_ARGS__};                                    \
        status = mpo_argument_check(function, #__VA_ARGS__, arguments_,                    \
                                    sizeof arguments_ / sizeof *arguments_);               \
        if (status != MPO_OK)                                                              \
            return status;                                                                 \
    } while (0)

/** The same for the function that says so. */
#define MPO_ARGUMENTS(...) MPO_ARGUMENTS_OF(__func__, __VA_ARGS__)

/** MPO_ARGUMENTS_TO_OPEN(out, spec, ...): the same where *out becomes a handle. It is NULL
 *  from here on, for callers that close whatever came of the call. */
#define MPO_ARGUMENTS_TO_OPEN(out, ...)                                                    \
    do {                                                                                   \
        MPO_ARGUMENTS(out);                                                                \
        *(out) = NULL;                                                                     \
        MPO_ARGUMENTS(__VA_ARGS__);                                                        \
    } while (0)
