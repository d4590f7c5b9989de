/* SPDX-License-Identifier: Apache-2.0 */
#include "argument.h"

#include <string.h>

/* The text of the i-th of some expressions that commas separate. */
static const char *find_name(const char *names, size_t index, size_t *bytes)
{
    for (; index > 0; index--)
        names += strcspn(names, ",") + 1;
    names += strspn(names, " ");
    *bytes = strcspn(names, ",");
    return names;
}

enum mpo_status mpo_argument_check(const char *function, const char *names,
                                   const void *const *pointer, size_t count)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        const char *name = find_name(names, i, &bytes);
        MPO_CHECK(pointer[i] != NULL, MPO_ERR_USAGE,
                  "%s: expected %.*s, found NULL; see its documentation in include/mpo",
                  function, (int)bytes, name);
    }
cleanup:
    return status;
}
