/*
 * A survey of the policies: what mpo_policies_open would come to, without weights.
 *
 * The same code reads files, compares vocabularies and tokenises answers and prompts, so
 * that what a survey finds is what a job would find. Only the order differs: a job ends at
 * the first failure, a survey notes it and looks at the next policy.
 */
#include "policy_impl.h"

#include <stdlib.h>

#include "base/memory.h"

/* True when it holds on every rank. Collective. */
static enum mpo_status holds_everywhere(const struct mpo_comm *comm, bool here, bool *out)
{
    double least = here ? 1.0 : 0.0;
    enum mpo_status status = mpo_comm_min(comm, &least, 1);
    *out = least > 0.0;
    return status;
}

static bool load_all(struct mpo_policies *policies, struct mpo_policies_survey *survey)
{
    bool all_loaded = true;
    for (int32_t i = 0; i < policies->local_count; i++) {
        struct mpo_policy_survey *one = &survey->local[i];
        one->policy = policies->first_policy + i;
        mpo_failure_keep(&one->load, mpo_policies_load(policies, i));
        if (one->load.status == MPO_OK)
            one->vocab_hash = mpo_policy_vocabulary_hash(&policies->local[i]);
        all_loaded = all_loaded && one->load.status == MPO_OK;
    }
    return all_loaded;
}

/* Without an agreement each policy's own vocabulary will do. */
static void prepare_one(const struct mpo_policies *policies, int32_t index,
                        const struct mpo_prompts *prompts, struct mpo_policy_survey *out)
{
    const struct mpo_policy *policy = &policies->local[index];
    struct mpo_policy_setup setup = mpo_policies_setup(policies, prompts);
    struct mpo_vocabulary vocabulary = {0};
    policy->ops->vocabulary(policy->self, &vocabulary);
    if (setup.vocab_size == 0)
        setup.vocab_size = vocabulary.size;
    if (prompts != NULL)
        mpo_failure_keep(&out->prompts, policy->ops->prepare(policy->self, &setup));
    policy->ops->need(policy->self, &out->need);
    out->need.vocab_size = vocabulary.size;
}

enum mpo_status mpo_policies_survey(const struct mpo_policies_spec *spec,
                                    const struct mpo_comm *comm,
                                    const struct mpo_prompts *prompts,
                                    struct mpo_policies_survey *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policies *policies = NULL;
    struct mpo_policies_spec light = *spec;
    *out = (struct mpo_policies_survey){0};
    light.metadata_only = true;
    light.hash_models = false;
    status = mpo_policies_take_room(&light, comm, &policies);
    if (status == MPO_OK)
        status = mpo_memory_take((size_t)policies->local_count, sizeof *out->local,
                                 "a survey", (void **)&out->local);
    MPO_TRY(mpo_comm_agree(status));
    out->local_count = policies->local_count;
    MPO_TRY(holds_everywhere(comm, load_all(policies, out), &out->all_loaded));
    if (out->all_loaded)
        mpo_failure_keep(&out->vocabulary,
                         mpo_policies_agree_on_vocabulary(policies, comm));
    if (out->vocabulary.status == MPO_OK)
        out->vocab_size = policies->vocab_size;
    if (out->vocab_size > 0)
        mpo_failure_keep(&out->answers,
                         mpo_policies_tokenise_answers(policies, comm, prompts));
    for (int32_t i = 0; i < out->local_count; i++)
        if (out->local[i].load.status == MPO_OK)
            prepare_one(policies, i, prompts, &out->local[i]);
cleanup:
    mpo_policies_close(&policies);
    return status;
}

void mpo_policies_survey_release(struct mpo_policies_survey *survey)
{
    free(survey->local);
    *survey = (struct mpo_policies_survey){0};
}
