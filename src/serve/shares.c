/* SPDX-License-Identifier: Apache-2.0 */
#include "shares.h"

#include <stdlib.h>

#include "base/memory.h"

#define DRAWN_WEIGHT 2

struct client {
    int64_t count;
    int32_t here; /* requests and prompts */
};

struct mpo_shares {
    int32_t client_count;
    struct client client[];
};

enum mpo_status mpo_shares_open(int32_t client_count, struct mpo_shares **out)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = sizeof(struct mpo_shares) + (size_t)client_count * sizeof(struct client);
    MPO_TRY(mpo_memory_take(1, bytes, "counts of clients", (void **)out));
    (*out)->client_count = client_count;
cleanup:
    return status;
}

void mpo_shares_close(struct mpo_shares **shares)
{
    free(*shares);
    *shares = NULL;
}

void mpo_shares_come(struct mpo_shares *shares, int32_t client)
{
    struct client *self = &shares->client[client];
    int64_t least = INT64_MAX;
    if (self->here++ > 0)
        return;
    for (int32_t c = 0; c < shares->client_count; c++)
        if (c != client && shares->client[c].here > 0 && shares->client[c].count < least)
            least = shares->client[c].count;
    if (least != INT64_MAX && self->count < least)
        self->count = least;
}

void mpo_shares_leave(struct mpo_shares *shares, int32_t client)
{
    shares->client[client].here--;
}

void mpo_shares_charge(struct mpo_shares *shares, int32_t client, int64_t prompt_tokens,
                       int64_t drawn_tokens)
{
    shares->client[client].count += prompt_tokens + DRAWN_WEIGHT * drawn_tokens;
}

int64_t mpo_shares_count(const struct mpo_shares *shares, int32_t client)
{
    return shares->client[client].count;
}
