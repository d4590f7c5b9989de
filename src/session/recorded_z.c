/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The responses to a prompt may be of many steps, each with a proposal of its own; their weights
 * are pooled, as refit pools them.
 *
 * Of a served fit nothing is taken (mpo_sample_may_certify), nor of a record of schema mpo-1.0,
 * which names no target: its tilt could walk the wrong way before an end was drawn.
 */
#include "recorded_z.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "differences.h"
#include "estimator/sample.h"
#include "provenance.h"

/* A price is asked for its order of magnitude: the largest standard error of log Z, nat. */
#define ERROR_MAX 0.25

/* The responses to one prompt, and room for their weights. */
struct pool {
    int64_t *order;       /* [R] responses, those to a prompt together */
    int64_t *first;       /* [prompts + 1] places in the order */
    double *log_proposal; /* [R] */
    double *log_policy;   /* [R, H] */
    double *work;         /* [2, R] */
};

static bool has_policies(const struct mpo_config *config, const struct mpo_record *record)
{
    bool is_same = mpo_record_policy_count(record) == config->policy_count;
    for (int32_t h = 0; is_same && h < config->policy_count; h++)
        is_same = strcmp(mpo_record_policy(record, h), config->policies[h].name) == 0;
    return is_same;
}

/* Whether the record's responses are to this session's prompts, drawn and cut as here. */
static enum mpo_status is_of_session(const struct mpo_session *session,
                                     const struct mpo_record *record, const char *path,
                                     bool *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *recorded = NULL;
    char hash[MPO_TEXT_HASH_BYTES] = "";
    mpo_session_prompts_hash(session, hash);
    MPO_TRY(mpo_differences_read(record, path, &recorded));
    *out = has_policies(session->config, record) &&
           strcmp(mpo_record_attribute(record, MPO_PROMPTS_HASH_ATTRIBUTE), hash) == 0 &&
           *mpo_record_attribute(record, "target") != '\0' &&
           mpo_sample_may_certify(mpo_record_target(record)) &&
           recorded->rollout.max_tokens == session->config->rollout.max_tokens;
cleanup:
    mpo_config_close(&recorded);
    return status;
}

static double log_z_of(const struct mpo_record_scores *scores, const double *mu,
                       int64_t prompt, const struct pool *pool)
{
    int32_t policies = scores->policy_count;
    int32_t count = 0;
    for (int64_t at = pool->first[prompt]; at < pool->first[prompt + 1]; at++) {
        int64_t i = pool->order[at];
        pool->log_proposal[count] = scores->log_proposal[i];
        memcpy(pool->log_policy + (int64_t)count * policies,
               scores->log_policy + i * policies, (size_t)policies * sizeof *mu);
        count++;
    }
    if (count < 2)
        return NAN;
    const struct mpo_sample sample = {.count = count,
                                      .policy_count = policies,
                                      .log_proposal = pool->log_proposal,
                                      .log_policy = pool->log_policy};
    const struct mpo_sample_query query = {.exponent_count = policies, .exponent = mu};
    struct mpo_sample_figures figures = {.log_weight = pool->work,
                                         .share = pool->work + scores->count};
    mpo_sample_estimate(&sample, &query, &figures);
    bool is_known =
        mpo_sample_is_known(figures.ess * count, count) && figures.value_error <= ERROR_MAX;
    return is_known ? figures.value_jackknife : NAN;
}

/* Sort the responses by prompt, each prompt's in their order (counting sort). */
static enum mpo_status index_responses(const struct mpo_record_scores *scores,
                                       int64_t prompts, struct pool *pool)
{
    enum mpo_status status = MPO_OK;
    int64_t *next = NULL;
    MPO_NEW(prompts + 1, &pool->first);
    MPO_NEW(scores->count, &pool->order);
    MPO_NEW(prompts, &next);
    for (int64_t i = 0; i < scores->count; i++) {
        MPO_CHECK(scores->prompt[i] >= 0 && scores->prompt[i] < prompts, MPO_ERR_DATA,
                  "response %lld of the record is to prompt %lld of %lld", (long long)i,
                  (long long)scores->prompt[i], (long long)prompts);
        pool->first[scores->prompt[i] + 1]++;
    }
    for (int64_t x = 0; x < prompts; x++) {
        next[x] = pool->first[x];
        pool->first[x + 1] += pool->first[x];
    }
    for (int64_t i = 0; i < scores->count; i++)
        pool->order[next[scores->prompt[i]]++] = i;
cleanup:
    free(next);
    return status;
}

/* Rank zero only: other ranks may not see the file. */
static enum mpo_status read_log_z(const struct mpo_session *session, const char *path,
                                  const struct mpo_end_bias_query *query, double *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    struct mpo_record_scores scores = {0};
    struct pool pool = {0};
    bool is_known = false;
    MPO_TRY(mpo_record_open(path, &record));
    MPO_TRY(is_of_session(session, record, path, &is_known));
    if (!is_known)
        goto cleanup;
    MPO_TRY(mpo_record_read_scores(record, &scores));
    MPO_TRY(index_responses(&scores, mpo_prompts_count(session->prompts), &pool));
    MPO_NEW(scores.count, &pool.log_proposal);
    MPO_NEW(scores.count * scores.policy_count, &pool.log_policy);
    MPO_NEW(2 * scores.count, &pool.work);
    for (int32_t i = 0; i < query->prompt_count; i++)
        out[i] = log_z_of(&scores, query->mu, query->prompt[i], &pool);
cleanup:
    free(pool.work);
    free(pool.log_policy);
    free(pool.log_proposal);
    free(pool.first);
    free(pool.order);
    mpo_record_release_scores(&scores);
    mpo_record_close(&record);
    return status;
}

enum mpo_status mpo_session_recorded_log_z(const struct mpo_session *session,
                                           const struct mpo_weights_choice *choice,
                                           const struct mpo_end_bias_query *query,
                                           double *out)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < query->prompt_count; i++)
        out[i] = NAN;
    if (!mpo_weights_are_of_a_record(session->config, choice->text))
        return MPO_OK;
    if (mpo_comm_rank(session->comm) == 0)
        status = read_log_z(session, choice->text, query, out);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_broadcast(session->comm, out,
                               (size_t)query->prompt_count * sizeof *out, 0));
cleanup:
    return status;
}
