/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A group of ranks with an exchange and a mixture over it, and the rows of a case on their way
 * through both: every rank has all rows and hands over those of the policies that it hosts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/exchange.h"
#include "mixture_case.h"

struct exchange_group {
    const struct mixture_case *some;
    struct mpo_comm *comm;
    struct mpo_exchange *exchange;
    struct mpo_mixture *mixture;
    const float **row; /* [local, B] without those that are left out */
    double *log_norm;  /* [local, B] */
    int32_t first_row[MIXTURE_CASE_POLICY_MAX + 1]; /* of each local policy, in row */
    int32_t first_policy;
    int32_t local_count;
    bool rows_on_device;
    const bool *absent; /* [H, B] rows that are left out; NULL: none */
};

/** Make the rank's device the thread's, one device a rank. @return bytes that are free on it */
size_t exchange_group_take_device(void);

/** Collective over all ranks. Rows are placed on devices if the case says so and with the
 *  transport nccl, of which what it takes of a device must be what it says. */
void exchange_group_open(struct exchange_group *group, const struct mixture_case *some,
                         const char *transport, enum mpo_pattern pattern,
                         int32_t group_size);
void exchange_group_close(struct exchange_group *group);

/** The rows to where they are normalised, rounded if the case says so. Local. */
void exchange_group_place(struct exchange_group *group);

/** Normalise the rows that were placed, and bring each rank its slice of all. Collective over
 *  the group.
 *  @param failing  the policy that must have no normalisers; -1: none */
void exchange_group_bring(struct exchange_group *group, int32_t failing,
                          struct mpo_rows *rows);
