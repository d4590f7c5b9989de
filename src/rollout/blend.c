/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blend: q is one policy, the model with the adapters of all policies, each at the sum of its
 * scales in them times their exponents.
 *
 * A context has the sum of its adapters, and what a cache holds depends on it, so scales change
 * between steps alone: every rank sets them before its first unit, and a unit begins with a
 * cleared cache. Rows of a blend have exponent 1 for its policy and 0 for the others, which are
 * not fed while responses are drawn (mpo/decode.h, weighted_only). Then each prompt's responses
 * are fed to all policies as given ones, so that q, entropy, log pi_h and E_q log pi_h of a
 * position come of one pass; only log q(y|x) is that of the draw.
 */
#include "rollout_impl.h"

#include <string.h>

#include "base/memory.h"

static enum mpo_status check_blend(const struct mpo_rollout_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(mpo_comm_group_size(spec->comm) == 1, MPO_ERR_USAGE,
              "a rollout from adapters: expected groups of one rank, found groups of %d",
              mpo_comm_group_size(spec->comm));
    MPO_CHECK(spec->purpose != MPO_ROLLOUT_EXACT && spec->purpose != MPO_ROLLOUT_END_MASSES,
              MPO_ERR_USAGE,
              "a rollout from adapters: expected draws, scores or integrated ends, but was "
              "opened for the mixture of whole responses, of which its draws say nothing");
cleanup:
    return status;
}

enum mpo_status mpo_rollout_blend_open(struct mpo_rollout *rollout)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_blend *blend = rollout->spec.blend;
    rollout->row_policies = rollout->spec.policy_count + (blend != NULL ? 1 : 0);
    if (blend == NULL)
        return MPO_OK;
    MPO_TRY(check_blend(&rollout->spec));
    MPO_NEW(rollout->row_policies, &rollout->mu);
    MPO_NEW(blend->adapter_count, &rollout->scale);
cleanup:
    return status;
}

double mpo_rollout_blend_scale(const struct mpo_rollout_blend *blend, int32_t policy_count,
                               const double *mu, int32_t adapter)
{
    const double *share = blend->share + (ptrdiff_t)adapter * policy_count;
    double scale = 0.0;
    for (int32_t h = 0; h < policy_count; h++)
        scale += mu[h] * share[h];
    return scale;
}

enum mpo_status mpo_rollout_blend_begin(struct mpo_rollout *rollout,
                                        const struct mpo_rollout_step *step)
{
    const struct mpo_rollout_blend *blend = rollout->spec.blend;
    const int32_t policies = rollout->spec.policy_count;
    if (blend == NULL)
        return MPO_OK;
    for (int32_t h = 0; h < policies; h++)
        rollout->mu[h] = step->of_logits ? step->mu[h] : 0.0;
    rollout->mu[policies] = step->of_logits ? 0.0 : 1.0;
    if (step->of_logits)
        return MPO_OK;
    for (int32_t i = 0; i < blend->adapter_count; i++)
        rollout->scale[i] = mpo_rollout_blend_scale(blend, policies, step->mu, i);
    return mpo_policy_rescale(mpo_policies_local(rollout->spec.policies, policies),
                              rollout->scale, blend->adapter_count);
}

const double *mpo_rollout_exponents(const struct mpo_rollout *rollout,
                                    const struct mpo_rollout_step *step)
{
    return rollout->spec.blend != NULL ? rollout->mu : step->mu;
}

bool mpo_rollout_scores_later(const struct mpo_rollout *rollout,
                              const struct mpo_rollout_step *step)
{
    return rollout->spec.blend != NULL && rollout->spec.purpose == MPO_ROLLOUT_DRAWS &&
           !step->of_logits && !step->weighted_only;
}
