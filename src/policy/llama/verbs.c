/*
 * The verbs of a llama policy.
 *
 * The same calls from a cleared cache give the same bits, in any process and with any
 * number of threads, so a unit's calls depend on the unit alone: its spans of tokens go, in
 * order,
 *
 *   all in one llama_decode, if they fit;
 *   otherwise first all but the last token of each span, in full batches without logits,
 * then the last tokens together.
 *
 * Either way every wanted row of logits is in the output of the last llama_decode and is
 * handed out where it lies, without a copy. The exception to the rule of bits is a batch of
 * one token, whose attention is split over the threads where the cache has 512 cells or
 * more (4e-3 of difference): there a second token keeps it company and is removed right
 * after.
 *
 * A prompt is computed once, in the sequence of its first row; the other rows share its
 * cells. Cells that no row holds any more are free for prompts that begin later.
 */
#include "llama_impl.h"

#include <string.h>

static void put(struct mpo_llama_policy *policy, int32_t row, int32_t position,
                int32_t token)
{
    int32_t at = policy->batch.n_tokens++;
    policy->batch.token[at] = token;
    policy->batch.pos[at] = position;
    policy->batch.logits[at] = 0;
    policy->sequence[at] = row;
}

/* An empty sequence, or -1 when there is none, which takes 256 rows. */
static int32_t empty_sequence(const struct mpo_llama_policy *policy)
{
    int32_t row = policy->sequence_count - 1;
    while (row >= 0 && policy->rows[row].length > 0)
        row--;
    return row;
}

/* Run the batch. Its outputs stay where they are until the next one. */
static enum mpo_status decode(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    int32_t company = -1;
    int32_t position = 0;
    if (policy->batch.n_tokens == 0)
        return MPO_OK;
    if (policy->batch.n_tokens == 1 && policy->needs_company) {
        company = empty_sequence(policy);
        if (company < 0) {
            company = policy->sequence[0];
            position = policy->batch.pos[0] + 1;
        }
        put(policy, company, position, policy->batch.token[0]);
    }
    mpo_llama_library_listen(policy->library);
    int32_t code = llama_decode(policy->context, policy->batch);
    MPO_CHECK(code == 0, code == 1 ? MPO_ERR_MEMORY : MPO_ERR_INTERNAL,
              "policy '%s': llama_decode of %d tokens returned %d (%s)", policy->spec.name,
              policy->batch.n_tokens, code, mpo_llama_library_said(policy->library));
    if (company >= 0)
        llama_memory_seq_rm(policy->memory, company, position, -1);
    policy->batch.n_tokens = 0;
cleanup:
    return status;
}

/* Add one token to the batch, running what is there when it is full. */
static enum mpo_status push(struct mpo_llama_policy *policy, int32_t row, int32_t token,
                            bool output)
{
    enum mpo_status status = MPO_OK;
    if (policy->batch.n_tokens == policy->batch_tokens)
        MPO_TRY(decode(policy));
    if (output)
        policy->output[policy->output_count++] = policy->batch.n_tokens;
    put(policy, row, policy->rows[row].length, token);
    policy->batch.logits[policy->batch.n_tokens - 1] = output;
    policy->rows[row].length++;
cleanup:
    return status;
}

/* Hand out the outputs of the last llama_decode on the device, complete. libllama may have
 * made another device the thread's. */
static enum mpo_status give_captured(struct mpo_llama_policy *policy, const float **logits)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(mpo_llama_capture_works(policy->capture), MPO_ERR_INTERNAL,
              "policy '%s': libllama took its logits another way than when it was loaded",
              policy->spec.name);
    llama_synchronize(policy->context);
    for (int32_t i = 0; i < policy->output_count; i++)
        logits[i] = mpo_llama_capture_row(policy->capture, i);
    MPO_TRY(mpo_device_use(policy->device));
cleanup:
    return status;
}

/* Hand out the outputs of the last llama_decode on the host, masked. */
static enum mpo_status give_copied(struct mpo_llama_policy *policy, const float **logits)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < policy->output_count; i++) {
        float *row = llama_get_logits_ith(policy->context, policy->output[i]);
        MPO_CHECK(row != NULL, MPO_ERR_INTERNAL,
                  "policy '%s': libllama kept no logits (%s)", policy->spec.name,
                  mpo_llama_library_said(policy->library));
        for (int32_t j = 0; j < policy->masked_count; j++)
            row[policy->masked[j]] = MPO_MASKED_LOGIT;
        logits[i] = row;
    }
    MPO_TRY(mpo_device_use(policy->device));
cleanup:
    return status;
}

static enum mpo_status give(struct mpo_llama_policy *policy, const float **logits)
{
    return policy->capture != NULL ? give_captured(policy, logits)
                                   : give_copied(policy, logits);
}

static enum mpo_status push_spans_apart(struct mpo_llama_policy *policy, int32_t span_count)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < span_count; i++) {
        const struct mpo_llama_span *span = &policy->spans[i];
        for (int32_t j = 0; j + 1 < span->count; j++)
            MPO_TRY(push(policy, span->row, span->token[j], false));
    }
    MPO_TRY(decode(policy));
    for (int32_t i = 0; i < span_count; i++) {
        const struct mpo_llama_span *span = &policy->spans[i];
        MPO_TRY(push(policy, span->row, span->token[span->count - 1], true));
    }
cleanup:
    return status;
}

static enum mpo_status push_spans_together(struct mpo_llama_policy *policy,
                                           int32_t span_count, bool every_position)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < span_count; i++) {
        const struct mpo_llama_span *span = &policy->spans[i];
        for (int32_t j = 0; j < span->count; j++)
            MPO_TRY(push(policy, span->row, span->token[j],
                         every_position || j + 1 == span->count));
    }
cleanup:
    return status;
}

/* Append policy->spans to their rows and hand out the wanted logits. */
static enum mpo_status feed(struct mpo_llama_policy *policy, int32_t span_count,
                            bool every_position, const float **logits)
{
    enum mpo_status status = MPO_OK;
    int64_t token_count = 0;
    for (int32_t i = 0; i < span_count; i++)
        token_count += policy->spans[i].count;
    int64_t output_count = every_position ? token_count : span_count;
    MPO_CHECK(
        output_count <= policy->output_count_max, MPO_ERR_INTERNAL,
        "policy '%s': logits of %lld positions asked for at once, at most %d are kept",
        policy->spec.name, (long long)output_count, policy->output_count_max);
    policy->batch.n_tokens = 0;
    policy->output_count = 0;
    if (token_count <= policy->batch_tokens)
        MPO_TRY(push_spans_together(policy, span_count, every_position));
    else
        MPO_TRY(push_spans_apart(policy, span_count));
    MPO_TRY(decode(policy));
    MPO_TRY(give(policy, logits));
cleanup:
    return status;
}

/* ---- verbs ---- */

static enum mpo_status check_row(const struct mpo_llama_policy *policy, int32_t row,
                                 bool live)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(row >= 0 && row < policy->row_count, MPO_ERR_INTERNAL, "row %d of %d", row,
              policy->row_count);
    MPO_CHECK(!live || policy->rows[row].length > 0, MPO_ERR_INTERNAL, "row %d is empty",
              row);
cleanup:
    return status;
}

void mpo_llama_clear(void *self)
{
    struct mpo_llama_policy *policy = self;
    llama_memory_clear(policy->memory, true);
    memset(policy->rows, 0, (size_t)policy->sequence_count * sizeof *policy->rows);
}

static enum mpo_status check_entry(const struct mpo_llama_policy *policy,
                                   const struct mpo_policy_entry *entry)
{
    enum mpo_status status = MPO_OK;
    const int64_t *prompt = entry->prompt;
    int32_t row_count = 0;
    MPO_CHECK(entry->prompt_count >= 1 && entry->prompt_count <= policy->unit_prompts &&
                  entry->rows_per_prompt >= 1 &&
                  entry->rows_per_prompt <= policy->responses,
              MPO_ERR_INTERNAL, "%d prompts x %d rows, prepared for units of %d x %d",
              entry->prompt_count, entry->rows_per_prompt, policy->unit_prompts,
              policy->responses);
    row_count = entry->prompt_count * entry->rows_per_prompt;
    MPO_CHECK(row_count <= policy->row_count, MPO_ERR_INTERNAL,
              "%d rows to begin, room for %d", row_count, policy->row_count);
    for (int32_t i = 0; i < entry->prompt_count; i++)
        MPO_CHECK(prompt[i] >= 0 && prompt[i] < policy->prompts.count, MPO_ERR_INTERNAL,
                  "prompt %lld of %lld", (long long)prompt[i],
                  (long long)policy->prompts.count);
    for (int32_t i = 0; i < row_count; i++) {
        MPO_TRY(check_row(policy, entry->row[i], false));
        MPO_CHECK(policy->rows[entry->row[i]].length == 0, MPO_ERR_INTERNAL,
                  "row %d is not empty", entry->row[i]);
    }
cleanup:
    return status;
}

enum mpo_status mpo_llama_begin(void *self, const struct mpo_policy_entry *entry,
                                const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    const struct mpo_llama_prompts *prompts = &policy->prompts;
    MPO_TRY(check_entry(policy, entry));
    for (int32_t i = 0; i < entry->prompt_count; i++) {
        size_t first = prompts->offset[entry->prompt[i]];
        policy->spans[i] = (struct mpo_llama_span){
            .row = entry->row[i * entry->rows_per_prompt],
            .count = (int32_t)(prompts->offset[entry->prompt[i] + 1] - first),
            .token = prompts->token + first,
        };
    }
    MPO_TRY(feed(policy, entry->prompt_count, false, logits));
    for (int32_t i = 0; i < entry->prompt_count * entry->rows_per_prompt; i++) {
        int32_t first = policy->spans[i / entry->rows_per_prompt].row;
        int32_t row = entry->row[i];
        if (row != first)
            llama_memory_seq_cp(policy->memory, first, row, -1, -1);
        policy->rows[row].length = policy->rows[first].length;
        policy->rows[row].prompt_tokens = policy->rows[first].length;
    }
cleanup:
    return status;
}

static enum mpo_status check_span(const struct mpo_llama_policy *policy,
                                  const struct mpo_llama_span *span)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_row(policy, span->row, true));
    const struct mpo_llama_row *row = &policy->rows[span->row];
    int64_t length = (int64_t)row->length - row->prompt_tokens + span->count;
    MPO_CHECK(span->count >= 1 && length <= policy->max_tokens, MPO_ERR_INTERNAL,
              "%d tokens onto row %d, which would then have %lld of at most %d",
              span->count, span->row, (long long)length, policy->max_tokens);
    for (int32_t i = 0; i < span->count; i++)
        MPO_CHECK(span->token[i] >= 0 && span->token[i] < policy->model->size,
                  MPO_ERR_INTERNAL, "token %d of a vocabulary of %d", span->token[i],
                  policy->model->size);
cleanup:
    return status;
}

enum mpo_status mpo_llama_extend(void *self, const struct mpo_policy_batch *batch,
                                 const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    const int32_t *token = batch->token;
    MPO_CHECK(batch->row_count >= 0 && batch->row_count <= policy->row_count,
              MPO_ERR_INTERNAL, "%d rows to extend, of %d", batch->row_count,
              policy->row_count);
    for (int32_t i = 0; i < batch->row_count; i++) {
        struct mpo_llama_span *span = &policy->spans[i];
        span->row = batch->row[i];
        span->count = batch->token_count != NULL ? batch->token_count[i] : 1;
        span->token = token;
        MPO_TRY(check_span(policy, span));
        token += span->count;
    }
    MPO_TRY(feed(policy, batch->row_count, batch->every_position, logits));
cleanup:
    return status;
}

enum mpo_status mpo_llama_truncate(void *self, int32_t row, int32_t response_tokens)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    MPO_TRY(check_row(policy, row, response_tokens >= 0));
    struct mpo_llama_row *kept = &policy->rows[row];
    int32_t length = response_tokens < 0 ? 0 : kept->prompt_tokens + response_tokens;
    MPO_CHECK(length <= kept->length, MPO_ERR_INTERNAL,
              "row %d cut to %d tokens, but it has only %d", row, response_tokens,
              kept->length - kept->prompt_tokens);
    MPO_CHECK(llama_memory_seq_rm(policy->memory, row, length, -1), MPO_ERR_DATA,
              "policy '%s': the cache of %s cannot be taken back to an earlier token",
              policy->spec.name, policy->spec.model);
    kept->length = length;
cleanup:
    return status;
}

enum mpo_status mpo_llama_fork(void *self, int32_t from, int32_t to)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    MPO_TRY(check_row(policy, from, true));
    MPO_TRY(check_row(policy, to, false));
    if (from == to)
        return MPO_OK;
    llama_memory_seq_rm(policy->memory, to, -1, -1);
    llama_memory_seq_cp(policy->memory, from, to, -1, -1);
    policy->rows[to] = policy->rows[from];
cleanup:
    return status;
}
