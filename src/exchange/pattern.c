/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns: who reduces which blocks of the vocabulary, and nothing more; transports and
 * mixture do the same for any cut into slices.
 */
#include "exchange_impl.h"

static int32_t gather_first_block(int32_t block_count, int32_t rank, int32_t size)
{
    (void)size;
    return rank == 0 ? 0 : block_count;
}

/* Rounded up, so that with fewer blocks than ranks the root has one. */
static int32_t alltoall_first_block(int32_t block_count, int32_t rank, int32_t size)
{
    return (int32_t)(((int64_t)block_count * rank + size - 1) / size);
}

const struct mpo_exchange_pattern *mpo_exchange_pattern_find(enum mpo_pattern pattern)
{
    static const struct mpo_exchange_pattern patterns[] = {
        [MPO_PATTERN_GATHER] = {gather_first_block},
        [MPO_PATTERN_ALLTOALL] = {alltoall_first_block},
    };
    bool is_known = (size_t)pattern < sizeof patterns / sizeof *patterns &&
                    patterns[pattern].first_block != NULL;
    return is_known ? &patterns[pattern] : NULL;
}

struct mpo_slice mpo_exchange_slice(const struct mpo_exchange_spec *spec, int32_t rank,
                                    int32_t size)
{
    const struct mpo_exchange_pattern *pattern = mpo_exchange_pattern_find(spec->pattern);
    int32_t block_count = mpo_rows_block_count(spec->vocab_size);
    int32_t first = pattern->first_block(block_count, rank, size) * MPO_ROWS_BLOCK;
    int32_t end = pattern->first_block(block_count, rank + 1, size) * MPO_ROWS_BLOCK;
    first = first < spec->vocab_size ? first : spec->vocab_size;
    end = end < spec->vocab_size ? end : spec->vocab_size;
    return (struct mpo_slice){first, end - first};
}

struct mpo_slice mpo_exchange_slice_of(const struct mpo_exchange *exchange, int32_t rank)
{
    return mpo_exchange_slice(&exchange->spec, rank, exchange->size);
}

/* Sharing saves work of the root, which alone has B V exponentials to take a position, and
 * costs two more rounds of small messages. It pays from about eighty thousand exponentials
 * on, with `shared` and `mpi`, for 2, 4 and 8 ranks: measured by
 * tests/bench/exchange_patterns.sh > results/exchange/table.tsv on two cores, with the
 * mixture on the CPU.
 *
 * A device takes its exponentials in less time than those rounds need for far longer rows, so
 * its limit is one of logits, K B V, which sharing saves the root from receiving: worth more
 * between nodes, where they come by a network adapter. It was not measured. In the model of
 * results/gpu both take the same time at 9.4 million logits of two policies and at 5.8 of
 * eight over NVLink, and at 4.8 and 1.5 over InfiniBand; at 82, 20, 9.0 and 2.4 where draws
 * have rules and rounds go through the hosts, which is what the limit on one host is for. */
#define ALLTOALL_EXPONENTIALS_MIN 80000.0
#define ALLTOALL_FAR_LOGITS_MIN   3000000.0
#define ALLTOALL_NEAR_LOGITS_MIN  20000000.0

/* Whether sharing pays for positions of so many rows. */
static bool sharing_pays(const struct mpo_exchange_spec *spec,
                         const struct mpo_exchange_site *site)
{
    double vocab_size = (double)spec->vocab_size;
    double rows = spec->usual_rows > 0 ? spec->usual_rows : spec->row_capacity;
    double logits = spec->placement.policy_count * rows * vocab_size;
    if (site->group_size == 1)
        return false;
    if (!spec->rows_on_device)
        return (double)spec->row_capacity * vocab_size >= ALLTOALL_EXPONENTIALS_MIN;
    return logits >=
           (site->shares_host ? ALLTOALL_NEAR_LOGITS_MIN : ALLTOALL_FAR_LOGITS_MIN);
}

struct mpo_exchange_spec mpo_exchange_choose(const struct mpo_exchange_spec *spec,
                                             const struct mpo_exchange_site *site)
{
    struct mpo_exchange_spec chosen = *spec;
    if (spec->pattern == MPO_PATTERN_AUTO)
        chosen.pattern =
            sharing_pays(spec, site) ? MPO_PATTERN_ALLTOALL : MPO_PATTERN_GATHER;
    return chosen;
}

int32_t mpo_exchange_plan_tokens(const struct mpo_exchange_spec *spec, int32_t group_rank,
                                 const struct mpo_exchange_site *site)
{
    const struct mpo_exchange_spec chosen = mpo_exchange_choose(spec, site);
    return mpo_exchange_slice(&chosen, group_rank, site->group_size).count;
}
