/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A survey of the policies: the results of mpo_policies_open without loading weights.
 *
 * The same code reads files, compares vocabularies and tokenises responses and prompts, so
 * a survey finds what a job would find. Only the order differs: a job ends at the first
 * failure; a survey notes it and continues with the next policy.
 */
#include "policy_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/argument.h"
#include "base/memory.h"

/* True when it holds on every rank. Collective. */
static enum mpo_status holds_everywhere(const struct mpo_comm *comm, bool here, bool *out)
{
    double least = here ? 1.0 : 0.0;
    enum mpo_status status = mpo_comm_min(comm, &least, 1);
    *out = least > 0.0;
    return status;
}

static void describe_files(const struct mpo_policies *policies, int32_t index,
                           struct mpo_policy_survey *out)
{
    struct mpo_policy_info info = {0};
    mpo_policies_describe(policies, index, &info);
    snprintf(out->sha256, sizeof out->sha256, "%s", info.sha256);
    snprintf(out->lora_sha256, sizeof out->lora_sha256, "%s", info.lora_sha256);
    out->vocab_hash = mpo_policy_vocabulary_hash(&policies->local[index]);
}

static bool load_all(struct mpo_policies *policies, struct mpo_policies_survey *survey)
{
    bool all_loaded = true;
    for (int32_t i = 0; i < policies->local_count; i++) {
        struct mpo_policy_survey *one = &survey->local[i];
        one->policy = policies->first_policy + i;
        mpo_failure_keep(&one->load, mpo_policies_load(policies, i));
        if (one->load.status == MPO_OK)
            describe_files(policies, i, one);
        all_loaded = all_loaded && one->load.status == MPO_OK;
    }
    mpo_policies_collect_remarks(policies);
    return all_loaded;
}

static enum mpo_status encode_and_choose(struct mpo_policies *policies, int32_t index,
                                         const struct mpo_policies_survey_spec *spec,
                                         struct mpo_policy_setup *setup)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy *policy = &policies->local[index];
    struct mpo_policies_room room = spec->room;
    if (policies->responses.offset != NULL)
        room.response_tokens = mpo_policies_longest_response(policies);
    struct mpo_policy_prompts file = {spec->prompts, &policies->responses,
                                      room.response_tokens, &policies->of_texts};
    MPO_TRY(mpo_policy_encode_file(policy, &file));
    MPO_TRY(mpo_policy_choose_cells(policy, &room, setup));
cleanup:
    return status;
}

/* Without an agreement use each policy's own vocabulary. */
static void look_at(struct mpo_policies *policies, int32_t index,
                    const struct mpo_policies_survey_spec *spec,
                    struct mpo_policy_survey *out)
{
    const struct mpo_policy *policy = &policies->local[index];
    struct mpo_policy_setup setup = mpo_policies_setup(policies, &spec->room);
    if (setup.vocab_size == 0)
        setup.vocab_size = policy->token_count;
    if (spec->prompts != NULL)
        mpo_failure_keep(&out->prompts, encode_and_choose(policies, index, spec, &setup));
    else if (spec->room.context_tokens > 0) /* that rows share, whatever comes */
        mpo_failure_keep(&out->prompts,
                         mpo_policy_choose_cells(policy, &spec->room, &setup));
    if (spec->view != NULL)
        spec->view(spec->viewer, out->policy, &policies->local[index]);
    setup.longest_prompt_tokens = mpo_policy_longest_prompt(policy);
    policy->ops->need(policy->self, &setup, &out->need);
    out->need.vocab_size = policy->token_count;
}

/* Local: what a survey works with. */
static enum mpo_status begin_survey(const struct mpo_policies_survey_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_policies **policies,
                                    struct mpo_policies_survey *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policies_spec light = spec->policies;
    light.metadata_only = true;
    light.prompt_slots =
        spec->prompts != NULL ? (int32_t)mpo_prompts_count(spec->prompts) : 1;
    MPO_TRY(mpo_policies_check_room(&spec->room));
    MPO_TRY(mpo_policies_allocate(&light, comm, policies));
    MPO_NEW((*policies)->local_count, &out->local);
    out->local_count = (*policies)->local_count;
cleanup:
    return status;
}

enum mpo_status mpo_policies_survey(const struct mpo_policies_survey_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_policies_survey *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(spec, comm, out);
    struct mpo_policies *policies = NULL;
    *out = (struct mpo_policies_survey){0};
    MPO_TRY(mpo_comm_agree(begin_survey(spec, comm, &policies, out)));
    MPO_TRY(holds_everywhere(comm, load_all(policies, out), &out->all_loaded));
    if (out->all_loaded)
        mpo_failure_keep(&out->vocabulary,
                         mpo_policies_agree_on_vocabulary(policies, comm));
    if (out->vocabulary.status == MPO_OK)
        out->vocab_size = policies->vocab_size;
    out->remarks = policies->remarks;
    if (out->vocab_size > 0 && spec->responses_given)
        mpo_failure_keep(&out->responses,
                         mpo_policies_encode_responses(policies, comm, spec->prompts));
    for (int32_t i = 0; i < out->local_count; i++)
        if (out->local[i].load.status == MPO_OK)
            look_at(policies, i, spec, &out->local[i]);
    mpo_remarks_unite(&out->remarks, &policies->of_texts);
cleanup:
    mpo_policies_close(&policies);
    return status;
}

void mpo_policies_survey_release(struct mpo_policies_survey *survey)
{
    if (survey == NULL)
        return;
    free(survey->local);
    *survey = (struct mpo_policies_survey){0};
}
