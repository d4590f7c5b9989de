/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs of a llama policy.
 *
 * The same calls from a cleared cache give the same bits, in any process and with any
 * number of threads, so what is called depends on what is fed alone: the tokens of a feed
 * go, in order,
 *
 *   all in one llama_decode, if they fit;
 *   otherwise first those whose logits are not wanted, in full batches,
 *   then the others together.
 *
 * Either way every wanted row of logits is in the output of the last llama_decode, which a
 * device may still be computing, and is handed out where it lies, without a copy. The exception to the rule of bits is one
 * token computed alone, whose attention is split over the threads where the cache has 512
 * cells or more (4e-3 of difference): there a second token keeps it company and is
 * removed right after.
 *
 * Where figures are to be invariant, a token gets the same bits whatever is fed beside it.
 * On the CPU libllama's attention depends on that in three ways, each of which ends up, with
 * the rounded activations of a quantised model, in 0.1 nat a token:
 *
 *   64 tokens computed at once, or more   round otherwise: 63 are computed at once
 *   one token alone, or one output        is multiplied in another order: never alone
 *   cells out of the order of tokens      are summed in another order: compact.c
 *
 * With a file in F32 attention is computed as written, and all three are 1e-5.
 *
 * Positions may have a batch of their own (steady.c), with tokens that nobody fed, and so may
 * rows with a cache for each (split.c).
 *
 * A row is a sequence. Forked rows share their cells, and cells that no row holds any more
 * are free. Arguments were checked in policy/feed.c, cells and outputs counted.
 */
#include "llama_impl.h"

#include <string.h>

void mpo_llama_put_token(struct mpo_llama_policy *policy, int32_t row, int32_t position,
                         int32_t token)
{
    int32_t at = policy->batch.n_tokens++;
    policy->batch.token[at] = token;
    policy->batch.pos[at] = position;
    policy->batch.logits[at] = 0;
    policy->sequence[at] = row;
}

/* An empty sequence, or -1 if there is none, which only happens with 256 rows. */
static int32_t empty_sequence(const struct mpo_llama_policy *policy)
{
    const bool *is_left = policy->order.is_left;
    int32_t row = policy->sequence_count - 1;
    while (row >= 0 && (policy->length[row] > 0 || (is_left != NULL && is_left[row])))
        row--;
    return row;
}

/* Have a second token beside the last one of the batch, where it would be computed alone.
 * @param position  of that token, out
 * @return its sequence, -1: there is none */
static int32_t put_company(struct mpo_llama_policy *policy, int32_t *position)
{
    int32_t last = policy->batch.n_tokens - 1;
    if (!policy->needs_company || last % policy->pass_tokens != 0)
        return -1;
    int32_t company = empty_sequence(policy);
    *position = company >= 0 ? 0 : policy->batch.pos[last] + 1;
    if (company < 0)
        company = policy->sequence[last];
    mpo_llama_put_token(policy, company, *position, policy->batch.token[last]);
    return company;
}

/* The same for the output: logits of a second token beside those of a lone one. */
static void put_output_company(struct mpo_llama_policy *policy)
{
    int8_t *wanted = policy->batch.logits;
    for (int32_t first = 0; first < policy->batch.n_tokens; first += policy->pass_tokens) {
        int32_t end = first + policy->pass_tokens < policy->batch.n_tokens
                          ? first + policy->pass_tokens
                          : policy->batch.n_tokens;
        int32_t count = 0;
        for (int32_t i = first; i < end; i++)
            count += wanted[i] != 0;
        if (count == 1 && end - first > 1)
            wanted[wanted[first] != 0 ? first + 1 : first] = 1;
    }
}

/* @param code  of llama_decode, out; 1: it found no cells, and changed nothing */
static enum mpo_status compute_batch(struct mpo_llama_policy *policy, int32_t *code)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_llama_order_restore(policy));
    mpo_llama_library_listen(policy->library, policy->spec.name, policy->spec.model);
    *code = llama_decode(policy->context, policy->batch);
cleanup:
    return status;
}

enum mpo_status mpo_llama_decode_batch(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    int32_t position = 0;
    int32_t code = 0;
    if (policy->batch.n_tokens == 0)
        return MPO_OK;
    int32_t company = put_company(policy, &position);
    if (policy->order.is_left != NULL)
        put_output_company(policy);
    MPO_TRY(compute_batch(policy, &code));
    if (code == 1 && mpo_llama_order_release(policy))
        MPO_TRY(compute_batch(policy, &code));
    MPO_CHECK(code == 0, code == 1 ? MPO_ERR_MEMORY : MPO_ERR_INTERNAL,
              "policy '%s': llama_decode of %d tokens returned %d (%s)", policy->spec.name,
              policy->batch.n_tokens, code, mpo_llama_library_said(policy->library));
    if (company >= 0)
        llama_memory_seq_rm(policy->memory, company, position, -1);
    policy->batch.n_tokens = 0;
cleanup:
    return status;
}

enum mpo_status mpo_llama_push_token(struct mpo_llama_policy *policy, int32_t row,
                                     int32_t token, bool output)
{
    enum mpo_status status = MPO_OK;
    if (policy->batch.n_tokens == policy->batch_tokens)
        MPO_TRY(mpo_llama_decode_batch(policy));
    if (output)
        policy->output[policy->output_count++] = policy->batch.n_tokens;
    mpo_llama_put_token(policy, row, policy->length[row], token);
    policy->batch.logits[policy->batch.n_tokens - 1] = output;
    policy->length[row]++;
cleanup:
    return status;
}

/* Hand out the outputs of the last llama_decode on the device, complete. */
static enum mpo_status give_captured(struct mpo_llama_policy *policy, const float **logits)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(
        mpo_llama_capture_works(policy->capture), MPO_ERR_INTERNAL,
        "policy '%s': libllama delivers its logits differently than when it was loaded",
        policy->spec.name);
    llama_synchronize(policy->context);
    int32_t place = 0; /* among the outputs, those of silent rows too */
    for (int32_t i = 0, at = 0; i < policy->output_count; i++) {
        if (policy->output[i] < at)
            at = place = 0; /* rows in another order than the batch's */
        for (; at < policy->output[i]; at++)
            place += policy->batch.logits[at] != 0;
        logits[i] = mpo_llama_capture_row(policy->capture, place);
    }
cleanup:
    return status;
}

/* Return the outputs of the last llama_decode on the host, masked. */
static enum mpo_status give_copied(struct mpo_llama_policy *policy, const float **logits)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < policy->output_count; i++) {
        float *row = llama_get_logits_ith(policy->context, policy->output[i]);
        MPO_CHECK(row != NULL, MPO_ERR_INTERNAL,
                  "policy '%s': libllama returned no logits (%s)", policy->spec.name,
                  mpo_llama_library_said(policy->library));
        for (int32_t j = 0; j < policy->setup.masked_count; j++)
            row[policy->setup.masked[j]] = MPO_MASKED_LOGIT;
        logits[i] = row;
    }
cleanup:
    return status;
}

/* The last llama_decode may still be at work. */
enum mpo_status mpo_llama_collect(void *self, const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    mpo_llama_library_listen(policy->library, policy->spec.name, policy->spec.model);
    if (policy->capture != NULL)
        MPO_TRY(give_captured(policy, logits));
    else
        MPO_TRY(give_copied(policy, logits));
    MPO_TRY(mpo_device_use(policy->device));
cleanup:
    return status;
}

/* Which tokens of a feed to push. */
enum part { UNWANTED, WANTED, ALL };

static enum mpo_status push_part(struct mpo_llama_policy *policy,
                                 const struct mpo_policy_append *appends,
                                 int32_t append_count, enum part part)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < append_count; i++)
        for (int32_t j = 0; j < appends[i].count; j++) {
            bool wanted = mpo_policy_wants(&appends[i], j);
            if (part == ALL || wanted == (part == WANTED))
                MPO_TRY(mpo_llama_push_token(policy, appends[i].row, appends[i].token[j],
                                             wanted));
        }
cleanup:
    return status;
}

/* Run a position: its tokens among those of silent rows, which are taken back. */
static enum mpo_status decode_steady(struct mpo_llama_policy *policy,
                                     const struct mpo_policy_append *appends,
                                     int32_t append_count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_llama_steady *steady = &policy->steady;
    int32_t next = 0;
    for (int32_t i = 0; i < steady->count; i++) {
        int32_t row = steady->row[i];
        if (next < append_count && appends[next].row == row) {
            MPO_TRY(mpo_llama_push_token(policy, row, appends[next++].token[0], true));
            continue;
        }
        mpo_llama_put_token(policy, row, policy->length[row], appends[0].token[0]);
        policy->batch.logits[policy->batch.n_tokens - 1] = 1;
    }
    MPO_TRY(mpo_llama_decode_batch(policy));
    next = 0;
    for (int32_t i = 0; i < steady->count; i++) {
        if (next < append_count && appends[next].row == steady->row[i])
            next++;
        else
            llama_memory_seq_rm(policy->memory, steady->row[i],
                                policy->length[steady->row[i]], -1);
    }
cleanup:
    return status;
}

/* Before a row gets tokens: what it had when it was left goes, and that of others with it. */
static void reopen_row(struct mpo_llama_policy *policy, int32_t row)
{
    if (policy->order.left_count > 0 && policy->order.is_left[row])
        mpo_llama_order_release(policy);
}

/* Gives no logits: those are collected. libllama may make another device the thread's. */
enum mpo_status mpo_llama_feed(void *self, const struct mpo_policy_append *appends,
                               int32_t append_count, const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    int64_t token_count = 0;
    (void)logits;
    for (int32_t i = 0; i < append_count; i++) {
        token_count += appends[i].count;
        reopen_row(policy, appends[i].row);
    }
    policy->batch.n_tokens = 0;
    policy->output_count = 0;
    if (policy->split.is_on) {
        MPO_TRY(mpo_llama_split_feed(policy, appends, append_count));
    } else if (mpo_llama_steady_follow(policy, appends, append_count)) {
        MPO_TRY(decode_steady(policy, appends, append_count));
    } else if (token_count <= policy->batch_tokens) {
        MPO_TRY(push_part(policy, appends, append_count, ALL));
    } else {
        MPO_TRY(push_part(policy, appends, append_count, UNWANTED));
        MPO_TRY(mpo_llama_decode_batch(policy));
        MPO_TRY(push_part(policy, appends, append_count, WANTED));
    }
    MPO_TRY(mpo_llama_decode_batch(policy));
    MPO_TRY(mpo_device_use(policy->device));
cleanup:
    return status;
}

void mpo_llama_clear(void *self)
{
    struct mpo_llama_policy *policy = self;
    llama_memory_clear(policy->memory, true);
    mpo_llama_order_clear(policy);
    policy->steady.count = 0;
    policy->split.count = 0;
    memset(policy->length, 0, (size_t)policy->sequence_count * sizeof *policy->length);
}

enum mpo_status mpo_llama_truncate(void *self, int32_t row, int32_t tokens)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    if (tokens == policy->length[row])
        return MPO_OK;
    if (tokens == 0 && policy->order.is_left != NULL) {
        mpo_llama_order_leave(policy, row);
        policy->length[row] = 0;
        return MPO_OK;
    }
    mpo_llama_order_break(policy);
    MPO_CHECK(llama_memory_seq_rm(policy->memory, row, tokens, -1), MPO_ERR_DATA,
              "policy '%s': the cache of %s cannot be taken back to an earlier token",
              policy->spec.name, policy->spec.model);
    policy->length[row] = tokens;
cleanup:
    return status;
}

enum mpo_status mpo_llama_fork(void *self, int32_t from, int32_t to)
{
    struct mpo_llama_policy *policy = self;
    reopen_row(policy, to);
    if (policy->length[to] > 0) {
        llama_memory_seq_rm(policy->memory, to, -1, -1);
        mpo_llama_order_break(policy);
    }
    llama_memory_seq_cp(policy->memory, from, to, -1, -1);
    policy->length[to] = policy->length[from];
    return MPO_OK;
}
