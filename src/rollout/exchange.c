/*
 * One position's rows on their way from the policies to the ranks that reduce them.
 *
 * What the exchange moves are the policies' logits; the normalisers follow as small
 * messages. So a transport that works beside the host starts before the rows are normalised
 * and the one hides behind the other. Rounding to bf16 comes before both, on every rank and
 * for every transport, those that save nothing by it too: results depend on neither.
 */
#include "rollout_impl.h"

enum verb { PLACE, NORMALISE };

/* Rows of local policy k to where they are normalised, as they are from there on. */
static enum mpo_status place(const struct mpo_rollout_spec *spec, int32_t k,
                             int32_t policy_index, int32_t batch_rows, const float **logits)
{
    enum mpo_status status = MPO_OK;
    if (!mpo_policy_rows_on_device(mpo_policies_local(spec->policies, k)))
        MPO_TRY(mpo_mixture_place(spec->mixture, policy_index, batch_rows, logits));
    MPO_TRY(mpo_mixture_round(spec->mixture, policy_index, batch_rows, logits));
cleanup:
    return status;
}

static enum mpo_status each_policy(struct mpo_rollout *rollout, int32_t batch_rows,
                                   enum verb verb)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &rollout->spec;
    int32_t first = 0;
    int32_t count = 0;
    struct mpo_placement placement = mpo_placement_of(spec->policy_count, spec->comm);
    mpo_placement_block(&placement, mpo_comm_group_rank(spec->comm), &first, &count);
    for (int32_t k = 0; k < count; k++) {
        const float **logits = rollout->logits + k * batch_rows;
        if (verb == NORMALISE)
            MPO_TRY(mpo_mixture_normalise(spec->mixture, first + k, batch_rows, logits,
                                          rollout->log_norm + k * batch_rows));
        else
            MPO_TRY(place(spec, k, first + k, batch_rows, logits));
    }
cleanup:
    return status;
}

enum mpo_status mpo_rollout_exchange(struct mpo_rollout *rollout, int32_t batch_rows,
                                     struct mpo_rows *rows)
{
    enum mpo_status status = MPO_OK;
    struct mpo_timing *timing = rollout->spec.timing;
    double clock = mpo_timing_now();
    MPO_TRY(each_policy(rollout, batch_rows, PLACE));
    clock = mpo_timing_add(timing, MPO_TIMED_mixture, clock);
    MPO_TRY(mpo_exchange_post(rollout->spec.exchange, batch_rows, rollout->logits));
    clock = mpo_timing_add(timing, MPO_TIMED_exchange, clock);
    MPO_TRY(each_policy(rollout, batch_rows, NORMALISE));
    clock = mpo_timing_add(timing, MPO_TIMED_mixture, clock);
    MPO_TRY(mpo_exchange_rows(rollout->spec.exchange, batch_rows, rollout->logits,
                              rollout->log_norm, rows));
    mpo_timing_add(timing, MPO_TIMED_exchange, clock);
cleanup:
    return status;
}
