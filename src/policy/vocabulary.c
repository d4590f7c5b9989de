/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agreement on the vocabulary.
 *
 * Mixing adds log-probabilities of the same id, so an id must be the same token for every
 * policy, and texts must become ids by the same rules. Three lists are compared with the
 * first policy's, each by one hash over all of it; only where hashes differ do blocks of
 * hashes of single entries travel, to find the first that differs:
 *
 *     rules   how texts become tokens; a difference is refused
 *     texts   of the ids that no policy takes for padding; a difference is refused
 *     types   of the same ids; a difference is a warning
 *
 * Policies of one family may have other special tokens (the end tokens are the union), a
 * few tokens more at the end (masked, because some policy gives them no probability), and
 * any amount of padding (the common size is the smallest).
 */
#include "policy_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

/* Hashes that travel at a time. */
#define BLOCK_ENTRIES 1024

/* Tokens that a policy may have beyond those of another. */
#define EXTRA_TOKENS_MAX 256

enum list { RULES, TEXTS, TYPES, LIST_COUNT };

/* What a rank sends to the others about one policy. */
struct summary {
    uint64_t identity;         /* what records keep: texts, types and special tokens */
    uint64_t hash[LIST_COUNT]; /* of as many entries as all policies have */
    int32_t size;
    int32_t used;
    int32_t rule_count;
    int32_t end_token;
    char text[256];
};

struct summaries {
    struct summary *own;      /* [own_count] of this rank's policies */
    struct summary *all;      /* [H] */
    struct summary *gathered; /* [W, own_count] on rank zero, else NULL */
    int32_t own_count;        /* policies of the rank that hosts most */
};

/* ---- hashes ---- */

static uint64_t entry_hash(const struct mpo_policy *policy, enum list list, int32_t index)
{
    struct mpo_token token = {0};
    if (list == RULES) {
        const char *rule = policy->ops->rule(policy->self, index);
        return XXH64(rule, strlen(rule), (uint64_t)(uint32_t)index);
    }
    policy->ops->token(policy->self, index, &token);
    if (list == TYPES)
        return token.attribute;
    return XXH64(token.text, strlen(token.text), (uint64_t)(uint32_t)index);
}

static uint64_t list_hash(const struct mpo_policy *policy, enum list list, int32_t count)
{
    uint64_t hash = 0;
    for (int32_t index = 0; index < count; index++) {
        uint64_t one = entry_hash(policy, list, index);
        hash = XXH64(&one, sizeof one, hash);
    }
    return hash;
}

/* Older records have this hash, so it stays as it is. */
uint64_t mpo_policy_vocabulary_hash(const struct mpo_policy *policy)
{
    struct mpo_vocabulary vocabulary = {0};
    policy->ops->vocabulary(policy->self, &vocabulary);
    uint64_t hash =
        XXH64(vocabulary.summary, strlen(vocabulary.summary), (uint64_t)vocabulary.used);
    for (int32_t id = 0; id < vocabulary.used; id++) {
        struct mpo_token token = {0};
        policy->ops->token(policy->self, id, &token);
        uint64_t seed = ((uint64_t)(uint32_t)id << 32) | token.attribute;
        uint64_t one = XXH64(token.text, strlen(token.text), seed);
        hash = XXH64(&one, sizeof one, hash);
    }
    return hash;
}

static void summarise_policy(const struct mpo_policy *policy, struct summary *out)
{
    struct mpo_vocabulary vocabulary = {0};
    policy->ops->vocabulary(policy->self, &vocabulary);
    out->identity = mpo_policy_vocabulary_hash(policy);
    out->size = vocabulary.size;
    out->used = vocabulary.used;
    out->rule_count = vocabulary.rule_count;
    out->end_token = vocabulary.end_token;
    snprintf(out->text, sizeof out->text, "%s", vocabulary.summary);
}

static int32_t smaller_count(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* ---- one entry ---- */

/* The comparison: all ranks, and the policies of this one. */
struct party {
    const struct mpo_comm *comm;
    const struct mpo_placement *placement;
    const struct mpo_policy_spec *specs; /* [H] */
    const struct mpo_policy *policies;   /* [policy_count] of this rank */
    int32_t policy_count;
};

/* The rank of the first group that hosts a policy and represents it. */
static const struct mpo_policy *hosted_policy(const struct party *party, int32_t index)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(party->placement, mpo_comm_group_rank(party->comm), &first, &count);
    bool mine = mpo_comm_group(party->comm) == 0 && index >= first && index < first + count;
    return mine ? &party->policies[index - first] : NULL;
}

/* One entry of a list, as a message has it. */
static void describe_entry(const struct mpo_policy *policy, enum list list, int32_t index,
                           char text[MPO_TOKEN_TEXT_BYTES])
{
    struct mpo_token token = {0};
    if (list == RULES) {
        snprintf(text, MPO_TOKEN_TEXT_BYTES, "%.300s",
                 policy->ops->rule(policy->self, index));
        return;
    }
    policy->ops->token(policy->self, index, &token);
    snprintf(text, MPO_TOKEN_TEXT_BYTES, "'%.200s' (attribute %u)", token.text,
             token.attribute);
}

/* Entry `index` of policy `policy_index`, on every rank. */
static enum mpo_status share_entry(const struct party *party, enum list list,
                                   int32_t policy_index, int32_t index,
                                   char text[MPO_TOKEN_TEXT_BYTES])
{
    const struct mpo_policy *policy = hosted_policy(party, policy_index);
    memset(text, 0, MPO_TOKEN_TEXT_BYTES);
    if (policy != NULL)
        describe_entry(policy, list, index, text);
    return mpo_comm_broadcast(party->comm, text, MPO_TOKEN_TEXT_BYTES,
                              mpo_placement_host(party->placement, policy_index));
}

/* The first entry of the first `count` in which policy `index` differs from policy 0, or
 * `count`. Block by block, because one rank might lack memory for a whole table while
 * others wait. */
static enum mpo_status first_difference(const struct party *party, enum list list,
                                        int32_t index, int32_t count, int32_t *out)
{
    enum mpo_status status = MPO_OK;
    uint64_t table[BLOCK_ENTRIES] = {0};
    const struct mpo_policy *base = hosted_policy(party, 0);
    const struct mpo_policy *other = hosted_policy(party, index);
    int32_t host = mpo_placement_host(party->placement, index);
    *out = 0;
    for (int32_t first = 0; *out == first && first < count; first += BLOCK_ENTRIES) {
        int32_t end = count - first < BLOCK_ENTRIES ? count : first + BLOCK_ENTRIES;
        for (int32_t at = first; base != NULL && at < end; at++)
            table[at - first] = entry_hash(base, list, at);
        MPO_TRY(mpo_comm_broadcast(party->comm, table, sizeof table, 0));
        while (other != NULL && *out < end &&
               entry_hash(other, list, *out) == table[*out - first])
            (*out)++;
        MPO_TRY(mpo_comm_broadcast(party->comm, out, sizeof *out, host));
    }
cleanup:
    return status;
}

/* The first entry that differs, as both have it. */
struct difference {
    int32_t index; /* the count when there is none, and then no texts */
    char base[MPO_TOKEN_TEXT_BYTES];
    char other[MPO_TOKEN_TEXT_BYTES];
};

static enum mpo_status find_difference(const struct party *party, enum list list,
                                       int32_t index, int32_t count, struct difference *out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(first_difference(party, list, index, count, &out->index));
    if (out->index == count)
        return MPO_OK;
    MPO_TRY(share_entry(party, list, 0, out->index, out->base));
    MPO_TRY(share_entry(party, list, index, out->index, out->other));
cleanup:
    return status;
}

/* ---- what is refused; every rank raises the same text, so that it is printed once ---- */

static enum mpo_status refuse_rules(const struct party *party, const struct summary *all,
                                    int32_t index)
{
    enum mpo_status status = MPO_OK;
    struct difference difference = {0};
    const char *base_name = party->specs[0].name;
    const char *other_name = party->specs[index].name;
    int32_t count = smaller_count(all[0].rule_count, all[index].rule_count);
    MPO_TRY(find_difference(party, RULES, index, count, &difference));
    MPO_CHECK(difference.index < count, MPO_ERR_DATA,
              "vocabularies differ: policy '%s' has %d rules of its tokenizer and policy "
              "'%s' has %d, of which the first %d are equal; mixing needs policies of one "
              "model family",
              base_name, all[0].rule_count, other_name, all[index].rule_count, count);
    MPO_FAIL(MPO_ERR_DATA,
             "vocabularies differ: policy '%s' has %s and policy '%s' has %s; mixing needs "
             "policies of one model family",
             base_name, difference.base, other_name, difference.other);
cleanup:
    return status;
}

static enum mpo_status refuse_texts(const struct party *party, int32_t index, int32_t used)
{
    enum mpo_status status = MPO_OK;
    struct difference first = {0};
    MPO_TRY(find_difference(party, TEXTS, index, used, &first));
    MPO_FAIL(MPO_ERR_DATA,
             "vocabularies differ: token %d is %s in policy '%s' and %s in policy '%s'; "
             "mixing needs policies of one model family",
             first.index, first.base, party->specs[0].name, first.other,
             party->specs[index].name);
cleanup:
    return status;
}

/* ---- warnings ---- */

/* Types differ where one family's files come from several converters. */
static enum mpo_status note_types(const struct party *party, int32_t index, int32_t used,
                                  struct mpo_remarks *remarks)
{
    enum mpo_status status = MPO_OK;
    struct difference first = {0};
    MPO_TRY(find_difference(party, TYPES, index, used, &first));
    mpo_remarks_add(remarks,
                    "token types differ: token %d is %s in policy '%s' and %s in policy "
                    "'%s', and perhaps more; tokens are compared by their texts alone",
                    first.index, first.base, party->specs[0].name, first.other,
                    party->specs[index].name);
cleanup:
    return status;
}

static void note_sizes(const struct party *party, const struct summary *all, int32_t index,
                       struct mpo_remarks *remarks)
{
    bool more = all[index].used > all[0].used;
    const struct summary *longer = &all[more ? index : 0];
    int32_t common = smaller_count(all[0].used, all[index].used);
    mpo_remarks_add(remarks,
                    "policy '%s' has %d token%s that policy '%s' lacks, from id %d on; "
                    "%s masked: never drawn, and without probability%s",
                    party->specs[more ? index : 0].name, longer->used - common,
                    longer->used - common == 1 ? "" : "s",
                    party->specs[more ? 0 : index].name, common,
                    longer->used - common == 1 ? "it is" : "they are",
                    longer->end_token >= common ? "; its own end token is among them" : "");
}

/* The special tokens of prompts are each policy's own, and the end tokens are the union. */
static void note_special_tokens(const struct party *party, const struct summary *all,
                                int32_t index, struct mpo_remarks *remarks)
{
    mpo_remarks_add(remarks,
                    "special tokens differ: policy '%s' has %s and policy '%s' has %s; a "
                    "response ends with an end token of either",
                    party->specs[0].name, all[0].text, party->specs[index].name,
                    all[index].text);
}

/* ---- summaries ---- */

/* Local: room for the summaries, and those of this rank's policies. */
static enum mpo_status allocate_summaries(const struct mpo_comm *comm,
                                          const struct mpo_placement *placement,
                                          const struct mpo_policy *local,
                                          int32_t local_count, struct summaries *out)
{
    enum mpo_status status = MPO_OK;
    int32_t first = 0;
    mpo_placement_block(placement, 0, &first, &out->own_count);
    MPO_NEW(out->own_count, &out->own);
    MPO_NEW(placement->policy_count, &out->all);
    if (mpo_comm_rank(comm) == 0)
        MPO_NEW(mpo_comm_size(comm) * out->own_count, &out->gathered);
    for (int32_t i = 0; i < local_count; i++)
        summarise_policy(&local[i], &out->own[i]);
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
        MPO_CHECK(own[i].identity == all[first + i].identity &&
                      own[i].hash[RULES] == all[first + i].hash[RULES] &&
                      own[i].size == all[first + i].size,
                  MPO_ERR_DATA,
                  "policy '%s': this rank's model has a different vocabulary than the "
                  "first group's; every host needs the same file",
                  spec->policies[first + i].name);
cleanup:
    return status;
}

/* Hashes over what all policies have can be taken when all know how much that is. */
static enum mpo_status share_hashes(const struct party *party, struct summaries *summaries,
                                    int32_t used)
{
    for (int32_t i = 0; i < party->policy_count; i++) {
        const struct mpo_policy *policy = &party->policies[i];
        struct summary *own = &summaries->own[i];
        own->hash[RULES] = list_hash(policy, RULES, own->rule_count);
        own->hash[TEXTS] = list_hash(policy, TEXTS, used);
        own->hash[TYPES] = list_hash(policy, TYPES, used);
    }
    return share_summaries(party->comm, party->placement, summaries);
}

/* One policy and the first one. */
static enum mpo_status compare_policy(const struct party *party, const struct summary *all,
                                      int32_t index, int32_t used,
                                      struct mpo_remarks *remarks)
{
    enum mpo_status status = MPO_OK;
    int32_t first = smaller_count(all[0].used, all[index].used);
    if (all[index].hash[RULES] != all[0].hash[RULES])
        MPO_TRY(refuse_rules(party, all, index));
    if (all[index].hash[TEXTS] != all[0].hash[TEXTS])
        MPO_TRY(refuse_texts(party, index, used));
    MPO_CHECK(all[0].used - first <= EXTRA_TOKENS_MAX &&
                  all[index].used - first <= EXTRA_TOKENS_MAX,
              MPO_ERR_DATA,
              "vocabularies differ: policy '%s' has %d tokens and policy '%s' has %d, of "
              "which the first %d are equal; expected at most %d more in one of them; "
              "mixing needs policies of one model family",
              party->specs[0].name, all[0].used, party->specs[index].name, all[index].used,
              used, EXTRA_TOKENS_MAX);
    if (all[index].used != all[0].used)
        note_sizes(party, all, index, remarks);
    if (all[index].hash[TYPES] != all[0].hash[TYPES])
        MPO_TRY(note_types(party, index, used, remarks));
    if (strcmp(all[index].text, all[0].text) != 0)
        note_special_tokens(party, all, index, remarks);
cleanup:
    return status;
}

/* The common size and the differences; every rank gets the same result. */
static enum mpo_status compare_policies(const struct party *party,
                                        struct summaries *summaries,
                                        struct mpo_vocabulary_agreement *out)
{
    enum mpo_status status = MPO_OK;
    const struct summary *all = summaries->all;
    int32_t count = party->placement->policy_count;
    MPO_TRY(share_summaries(party->comm, party->placement, summaries));
    int32_t used = all[0].used;
    out->vocab_size = all[0].size;
    for (int32_t index = 0; index < count; index++) {
        out->hashes[index] = all[index].identity;
        out->vocab_size = smaller_count(out->vocab_size, all[index].size);
        used = smaller_count(used, all[index].used);
    }
    MPO_TRY(share_hashes(party, summaries, used));
    for (int32_t index = 1; index < count; index++)
        MPO_TRY(compare_policy(party, all, index, used, &out->remarks));
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
    const struct party party = {comm, &spec->placement, spec->policies, local, local_count};
    MPO_TRY(mpo_comm_agree(
        allocate_summaries(comm, &spec->placement, local, local_count, &summaries)));
    MPO_TRY(mpo_comm_agree(compare_policies(&party, &summaries, out)));
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
