/*
 * Sums over policies. Weights are the one thing that policies share.
 */
#include "needs.h"

static bool same_model(const struct mpo_policy_need *a, const struct mpo_policy_need *b)
{
    return a->model_file[0] == b->model_file[0] && a->model_file[1] == b->model_file[1];
}

uint64_t needs_weights_once(const struct mpo_policy_survey *policies, int32_t policy_count)
{
    uint64_t bytes = 0;
    for (int32_t i = 0; i < policy_count; i++) {
        int32_t earlier = 0;
        while (earlier < i && !same_model(&policies[earlier].need, &policies[i].need))
            earlier++;
        if (earlier == i)
            bytes += policies[i].need.model_bytes;
    }
    return bytes;
}

struct needs needs_of_rank(const struct mpo_policy_survey *policies, int32_t policy_count,
                           const struct mpo_host *host, uint64_t exchange_bytes)
{
    struct needs needs = {
        .program_bytes = host->resident_peak_bytes,
        .weights_bytes = needs_weights_once(policies, policy_count),
        .exchange_bytes = exchange_bytes,
    };
    for (int32_t i = 0; i < policy_count; i++) {
        needs.cache_bytes += policies[i].need.cache_bytes;
        needs.work_bytes += policies[i].need.work_bytes;
    }
    return needs;
}

uint64_t needs_to_take(const struct needs *needs)
{
    return needs->weights_bytes + needs->cache_bytes + needs->work_bytes +
           needs->exchange_bytes;
}

uint64_t needs_total(const struct needs *needs)
{
    return needs->program_bytes + needs_to_take(needs);
}
