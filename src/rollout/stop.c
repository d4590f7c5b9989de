/*
 * Texts at which a response stops.
 *
 * Only the group's root knows the tokens of a response, so it alone looks at their text; it
 * marks the token of a row that stops by its complement, and the broadcast of the tokens
 * tells everybody. A text may begin and end inside a token: the last tokens are looked at
 * together, so many that a text ending in the newest one cannot begin before them.
 */
#include "rollout_impl.h"

#include <string.h>

#include "base/memory.h"

/* Bytes of a token at most, and tokens without text that a window allows for. */
#define TOKEN_BYTES  256
#define SILENT_COUNT 16

enum mpo_status mpo_rollout_stop_open(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    size_t longest = 0;
    for (int32_t i = 0; i < rollout->spec.stop_count; i++)
        if (strlen(rollout->spec.stop[i]) > longest)
            longest = strlen(rollout->spec.stop[i]);
    if (longest == 0)
        return MPO_OK;
    MPO_CHECK(longest <= MPO_ROLLOUT_STOP_BYTES_MAX, MPO_ERR_USAGE,
              "a text to stop at has %zu bytes, expected at most %d", longest,
              MPO_ROLLOUT_STOP_BYTES_MAX);
    rollout->window_tokens = (int32_t)longest + SILENT_COUNT;
    rollout->window_bytes = rollout->window_tokens * TOKEN_BYTES;
    MPO_NEW(rollout->window_bytes, &rollout->window);
cleanup:
    return status;
}

bool mpo_rollout_stops(struct mpo_rollout *rollout, const int32_t *token, int32_t count)
{
    int32_t first = count > rollout->window_tokens ? count - rollout->window_tokens : 0;
    if (rollout->window == NULL)
        return false;
    if (mpo_policies_text(rollout->spec.policies, token + first, count - first,
                          rollout->window, rollout->window_bytes) < 0)
        return false;
    for (int32_t i = 0; i < rollout->spec.stop_count; i++)
        if (rollout->spec.stop[i][0] != '\0' &&
            strstr(rollout->window, rollout->spec.stop[i]) != NULL)
            return true;
    return false;
}
