/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agreement on the vocabulary.
 *
 * Mixing adds log-probabilities of the same id, so an id must be the same token for every
 * policy. Each policy is hashed over (id, text, attribute) of every id that is not padding
 * and the hashes are compared on all ranks; only on a mismatch do tables of per-token
 * hashes travel, to name the first id that differs with both texts.
 *
 * Models of one family padded to different sizes are fine: the common size is the smallest.
 */
#include "policy_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

/* Hashes that travel at a time. */
#define BLOCK_TOKENS 1024

/* What a rank sends to the others about one policy. */
struct summary {
    uint64_t hash;
    int32_t size;
    int32_t used;
    char text[256];
};

struct summaries {
    struct summary *own;      /* [own_count] of this rank's policies */
    struct summary *all;      /* [H] */
    struct summary *gathered; /* [W, own_count] on rank zero, else NULL */
    int32_t own_count;        /* policies of the rank that hosts most */
};

static uint64_t token_hash(const struct mpo_policy *policy, int32_t id)
{
    struct mpo_token token = {0};
    policy->ops->token(policy->self, id, &token);
    uint64_t seed = ((uint64_t)(uint32_t)id << 32) | token.attribute;
    return XXH64(token.text, strlen(token.text), seed);
}

static void summarise(const struct mpo_policy *policy, struct summary *out)
{
    struct mpo_vocabulary vocabulary = {0};
    policy->ops->vocabulary(policy->self, &vocabulary);
    out->size = vocabulary.size;
    out->used = vocabulary.used;
    snprintf(out->text, sizeof out->text, "%s", vocabulary.summary);
    uint64_t hash = XXH64(out->text, strlen(out->text), (uint64_t)vocabulary.used);
    for (int32_t id = 0; id < vocabulary.used; id++) {
        uint64_t one = token_hash(policy, id);
        hash = XXH64(&one, sizeof one, hash);
    }
    out->hash = hash;
}

uint64_t mpo_policy_vocabulary_hash(const struct mpo_policy *policy)
{
    struct summary summary = {0};
    summarise(policy, &summary);
    return summary.hash;
}

/* The comparison: all ranks, and the policies of this one. */
struct party {
    const struct mpo_comm *comm;
    const struct mpo_placement *placement;
    const struct mpo_policy *policies; /* of this rank */
};

/* The rank of the first group that hosts a policy and represents it. */
static const struct mpo_policy *hosted(const struct party *party, int32_t index)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(party->placement, mpo_comm_group_rank(party->comm), &first, &count);
    bool mine = mpo_comm_group(party->comm) == 0 && index >= first && index < first + count;
    return mine ? &party->policies[index - first] : NULL;
}

static enum mpo_status share_token(const struct mpo_comm *comm,
                                   const struct mpo_policy *policy, int32_t host,
                                   int32_t id, char text[MPO_TOKEN_TEXT_BYTES])
{
    memset(text, 0, MPO_TOKEN_TEXT_BYTES);
    if (policy != NULL) {
        struct mpo_token token = {0};
        policy->ops->token(policy->self, id, &token);
        snprintf(text, MPO_TOKEN_TEXT_BYTES, "'%.200s' (attribute %u)", token.text,
                 token.attribute);
    }
    return mpo_comm_broadcast(comm, text, MPO_TOKEN_TEXT_BYTES, host);
}

/* The first id below `used` at which policy `index` differs from policy 0, or `used`. Block
 * by block, because one rank might lack memory for a whole table while others wait. */
static enum mpo_status first_difference(const struct party *party, int32_t index,
                                        int32_t used, int32_t *out)
{
    enum mpo_status status = MPO_OK;
    uint64_t table[BLOCK_TOKENS] = {0};
    const struct mpo_policy *base = hosted(party, 0);
    const struct mpo_policy *other = hosted(party, index);
    int32_t host = mpo_placement_host(party->placement, index);
    *out = 0;
    for (int32_t first = 0; *out == first && first < used; first += BLOCK_TOKENS) {
        int32_t end = used - first < BLOCK_TOKENS ? used : first + BLOCK_TOKENS;
        for (int32_t id = first; base != NULL && id < end; id++)
            table[id - first] = token_hash(base, id);
        MPO_TRY(mpo_comm_broadcast(party->comm, table, sizeof table, 0));
        while (other != NULL && *out < end &&
               token_hash(other, *out) == table[*out - first])
            (*out)++;
        MPO_TRY(mpo_comm_broadcast(party->comm, out, sizeof *out, host));
    }
cleanup:
    return status;
}

/* Every rank raises the same text, so that it is printed once. */
static enum mpo_status explain_mismatch(const struct party *party,
                                        const struct mpo_policy_spec *specs,
                                        const struct summary *all, int32_t index)
{
    enum mpo_status status = MPO_OK;
    char base_text[MPO_TOKEN_TEXT_BYTES] = "";
    char other_text[MPO_TOKEN_TEXT_BYTES] = "";
    int32_t used = all[0].used < all[index].used ? all[0].used : all[index].used;
    int32_t id = 0;
    MPO_TRY(first_difference(party, index, used, &id));
    if (id < used) {
        MPO_TRY(share_token(party->comm, hosted(party, 0), 0, id, base_text));
        MPO_TRY(share_token(party->comm, hosted(party, index),
                            mpo_placement_host(party->placement, index), id, other_text));
        MPO_FAIL(
            MPO_ERR_DATA,
            "vocabularies differ: token %d is %s in policy '%s' and %s in policy '%s'; "
            "mixing needs policies of one model family",
            id, base_text, specs[0].name, other_text, specs[index].name);
    }
    MPO_CHECK(all[0].used == all[index].used, MPO_ERR_DATA,
              "vocabularies differ: policy '%s' has %d tokens and policy '%s' has %d, of "
              "which the first %d are equal; mixing needs policies of one model family",
              specs[0].name, all[0].used, specs[index].name, all[index].used, used);
    MPO_FAIL(MPO_ERR_DATA,
             "vocabularies differ: policy '%s' has %s and policy '%s' has %s; mixing needs "
             "the same special tokens",
             specs[0].name, all[0].text, specs[index].name, all[index].text);
cleanup:
    return status;
}

/* Local: room for the summaries, and those of this rank's policies. */
static enum mpo_status take_summaries(const struct mpo_comm *comm,
                                      const struct mpo_placement *placement,
                                      const struct mpo_policy *local, int32_t local_count,
                                      struct summaries *out)
{
    enum mpo_status status = MPO_OK;
    int32_t first = 0;
    mpo_placement_block(placement, 0, &first, &out->own_count);
    MPO_NEW(out->own_count, &out->own);
    MPO_NEW(placement->policy_count, &out->all);
    if (mpo_comm_rank(comm) == 0)
        MPO_NEW(mpo_comm_size(comm) * out->own_count, &out->gathered);
    for (int32_t i = 0; i < local_count; i++)
        summarise(&local[i], &out->own[i]);
cleanup:
    return status;
}

/* One gather and one broadcast, however many policies and ranks there are. */
static enum mpo_status share_summaries(const struct mpo_comm *comm,
                                       const struct mpo_placement *placement,
                                       struct summaries *summaries)
{
    enum mpo_status status = MPO_OK;
    size_t own_count = (size_t)summaries->own_count;
    MPO_TRY(mpo_comm_gather(comm, summaries->own, own_count * sizeof *summaries->own,
                            summaries->gathered));
    for (int32_t rank = 0; rank < mpo_comm_group_size(comm); rank++) {
        int32_t first = 0;
        int32_t count = 0;
        mpo_placement_block(placement, rank, &first, &count);
        if (summaries->gathered != NULL)
            memcpy(summaries->all + first, summaries->gathered + (size_t)rank * own_count,
                   (size_t)count * sizeof *summaries->all);
    }
    MPO_TRY(mpo_comm_broadcast(
        comm, summaries->all, (size_t)placement->policy_count * sizeof *summaries->all, 0));
cleanup:
    return status;
}

/* Group 0 represents the policies; other groups must host the same ones. */
static enum mpo_status check_own_group(const struct mpo_comm *comm,
                                       const struct mpo_policies_spec *spec,
                                       const struct summary *own, const struct summary *all)
{
    enum mpo_status status = MPO_OK;
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(&spec->placement, mpo_comm_group_rank(comm), &first, &count);
    for (int32_t i = 0; i < count; i++)
        MPO_CHECK(own[i].hash == all[first + i].hash && own[i].size == all[first + i].size,
                  MPO_ERR_DATA,
                  "policy '%s': this rank's model has a different vocabulary than the "
                  "first group's; every host needs the same file",
                  spec->policies[first + i].name);
cleanup:
    return status;
}

/* The common size and the differences; every rank gets the same result. */
static enum mpo_status compare(const struct mpo_comm *comm,
                               const struct mpo_policies_spec *spec,
                               const struct mpo_policy *local, struct summaries *summaries,
                               struct mpo_vocabulary_agreement *out)
{
    enum mpo_status status = MPO_OK;
    const struct summary *all = summaries->all;
    struct party party = {comm, &spec->placement, local};
    MPO_TRY(share_summaries(comm, &spec->placement, summaries));
    out->vocab_size = all[0].size;
    for (int32_t index = 0; index < spec->placement.policy_count; index++) {
        out->hashes[index] = all[index].hash;
        if (all[index].size < out->vocab_size)
            out->vocab_size = all[index].size;
        if (all[index].hash != all[0].hash)
            MPO_TRY(explain_mismatch(&party, spec->policies, all, index));
    }
cleanup:
    return status;
}

static enum mpo_status unite_flags(const struct mpo_comm *comm,
                                   const struct mpo_policy *local, int32_t local_count,
                                   struct mpo_vocabulary_agreement *out)
{
    for (int32_t i = 0; i < local_count; i++) {
        struct mpo_vocabulary vocabulary = {0};
        local[i].ops->vocabulary(local[i].self, &vocabulary);
        for (int32_t id = 0; id < out->vocab_size && id < vocabulary.size; id++)
            out->flags[id] |= vocabulary.flags[id];
    }
    return mpo_comm_or(comm, out->flags, (size_t)out->vocab_size);
}

enum mpo_status mpo_policy_vocabulary_agree(const struct mpo_comm *comm,
                                            const struct mpo_policies_spec *spec,
                                            const struct mpo_policy *local,
                                            int32_t local_count,
                                            struct mpo_vocabulary_agreement *out)
{
    enum mpo_status status = MPO_OK;
    struct summaries summaries = {0};
    MPO_TRY(mpo_comm_agree(
        take_summaries(comm, &spec->placement, local, local_count, &summaries)));
    MPO_TRY(mpo_comm_agree(compare(comm, spec, local, &summaries, out)));
    MPO_TRY(mpo_comm_agree(mpo_memory_take((size_t)out->vocab_size, sizeof *out->flags,
                                           "a vocabulary", (void **)&out->flags)));
    MPO_TRY(mpo_comm_agree(unite_flags(comm, local, local_count, out)));
    MPO_TRY(mpo_comm_agree(check_own_group(comm, spec, summaries.own, summaries.all)));
cleanup:
    free(summaries.gathered);
    free(summaries.all);
    free(summaries.own);
    return status;
}
