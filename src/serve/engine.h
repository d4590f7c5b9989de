/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The decode thread's loop at a group's root: requests come by the link, the scheduler seats them,
 * the row machine steps, and events go back. It draws, looks up and finds stop texts, and
 * never waits for a client.
 *
 *     listen -> end what is cancelled or late -> offer -> seat -> step -> send
 */
#pragma once

#include "comm/lines.h"
#include "link.h"
#include "metrics.h"
#include "mpo/decode.h"
#include "mpo/policy.h"
#include "schedule.h"

struct mpo_engine_spec {
    struct mpo_decode *decode; /* borrowed, like all below */
    const struct mpo_policies *policies;
    struct mpo_link *link;
    int32_t policy_count; /* H */
    int32_t row_capacity;
    int32_t parked_rows;    /* as the decode's; 0: no cells are kept */
    int32_t slot_capacity;  /* as the decode's prompt_slots */
    int32_t queue_capacity; /* requests that wait */
    int32_t client_count;
    int32_t bias_max;        /* of one row */
    int64_t cell_capacity;   /* tokens of all rows together */
    int32_t context_tokens;  /* of one row */
    double queue_seconds;    /* then a request that has no rows is refused */
    double deadline_seconds; /* then any request is */
    double idle_seconds;     /* between two signs of life to the other ranks */
    struct mpo_lines *lines; /* by which they sleep; NULL: none */
    struct mpo_metrics *metrics;
    const struct mpo_timing *timing;
};

struct mpo_engine;

/** Local; allocates all it will need. */
enum mpo_status mpo_engine_open(const struct mpo_engine_spec *spec,
                                struct mpo_engine **out);
void mpo_engine_close(struct mpo_engine **engine);

/**
 * Serve until the link says to stop. The others follow (mpo_decode_follow), and are released
 * at the end.
 *
 * At the root of the group.
 *
 * @return a failure of the job: pass it to mpo_session_end_loop. A refusal, or a row that
 *         fails, ends its request alone
 */
enum mpo_status mpo_engine_run(struct mpo_engine *engine);
