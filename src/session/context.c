/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenth of what is free stays free: other processes take memory too, and figures of a
 * survey are those of the engine before it has run. Each rank counts its weights for itself,
 * because libllama repacks those of most models for the CPU.
 */
#include "context.h"

#include <math.h>

#define SHARE_USED    0.9
#define ROUND_TOKENS  256
#define MEGABYTE      1048576.0
#define NOTHING_SHORT 1e300

uint64_t mpo_context_exchange_bytes(const struct mpo_session *session, int32_t vocab_size)
{
    struct mpo_exchange_plan plan = {0};
    struct mpo_exchange_spec spec =
        mpo_plan_exchange(session->config, &session->placement, &session->size, vocab_size);
    spec.rows_on_device = mpo_plan_rows_on_device(session);
    if (mpo_exchange_survey(&spec, session->comm, &plan) != MPO_OK)
        return 0;
    return plan.rank_bytes;
}

/* How many times the caches there is room for. */
static double room_for(double free_bytes, double other_bytes, double cache_bytes)
{
    if (cache_bytes <= 0.0 || SHARE_USED * free_bytes >= other_bytes + cache_bytes)
        return NOTHING_SHORT;
    return fmax(SHARE_USED * free_bytes - other_bytes, 0.0) / cache_bytes;
}

/* The host's ranks together; the last of them knows the sum. */
static enum mpo_status find_host_room(const struct mpo_session *session,
                                      const struct mpo_policies_survey *survey,
                                      const struct mpo_host *host, uint64_t exchange_bytes,
                                      double *room)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = session->comm;
    struct mpo_needs needs =
        mpo_needs_of_rank(survey->local, survey->local_count, host,
                          mpo_plan_host_rows(session, survey, exchange_bytes));
    int32_t cache = (int32_t)mpo_text_megabytes_up(needs.cache_bytes);
    int32_t other =
        (int32_t)mpo_text_megabytes_up(mpo_needs_to_take(&needs) - needs.cache_bytes);
    int32_t cache_before = 0;
    int32_t other_before = 0;
    MPO_TRY(mpo_comm_local_before(comm, cache, &cache_before));
    MPO_TRY(mpo_comm_local_before(comm, other, &other_before));
    if (mpo_comm_local_rank(comm) + 1 == mpo_comm_local_size(comm))
        *room = room_for((double)host->memory_free_bytes / MEGABYTE, other + other_before,
                         cache + cache_before);
cleanup:
    return status;
}

static double find_device_room(const struct mpo_session *session,
                               const struct mpo_policies_survey *survey,
                               const struct mpo_host *host, uint64_t exchange_bytes)
{
    double cache = 0.0;
    if (session->device.total_bytes == 0)
        return NOTHING_SHORT;
    struct mpo_needs_device needs = mpo_plan_device(session, survey, host, exchange_bytes);
    for (int32_t i = 0; i < survey->local_count; i++)
        if (survey->local[i].need.devices > 0)
            cache += (double)survey->local[i].need.cache_bytes /
                     (double)survey->local[i].need.devices;
    return room_for((double)session->device.free_bytes,
                    (double)mpo_needs_of_device(&needs) - cache, cache);
}

static void tell_shorter(int32_t wanted, const struct mpo_session_machine *machine)
{
    if (mpo_comm_job_rank() == 0)
        mpo_report(MPO_REPORT_NOTE,
                   "memory has room for %d of the %d tokens that %d rows would share: "
                   "%d a row",
                   machine->context_tokens, wanted, machine->row_capacity,
                   machine->context_tokens / machine->row_capacity);
}

enum mpo_status mpo_context_fit(struct mpo_session *session,
                                const struct mpo_policies_survey *survey, bool *has_changed)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session_machine *machine = &session->size.machine;
    int32_t wanted = machine->context_tokens;
    double room[2] = {NOTHING_SHORT, NOTHING_SHORT}; /* host, device */
    struct mpo_host host = {0};
    *has_changed = false;
    if (!machine->shrinks || survey->vocab_size == 0)
        return MPO_OK;
    mpo_host_describe(&host);
    uint64_t exchange_bytes = mpo_context_exchange_bytes(session, survey->vocab_size);
    MPO_TRY(find_host_room(session, survey, &host, exchange_bytes, &room[0]));
    room[1] = find_device_room(session, survey, &host, exchange_bytes);
    MPO_TRY(mpo_comm_min(session->comm, room, 2));
    double least = fmin(room[0], room[1]);
    int32_t floor_tokens = machine->row_capacity * MPO_CONTEXT_ROW_LEAST;
    if (least >= 1.0 || wanted <= floor_tokens)
        return MPO_OK;
    int32_t tokens = (int32_t)(least * wanted) / ROUND_TOKENS * ROUND_TOKENS;
    machine->context_tokens = tokens > floor_tokens ? tokens : floor_tokens;
    machine->shrinks = false;
    *has_changed = true;
    tell_shorter(wanted, machine);
cleanup:
    return status;
}
