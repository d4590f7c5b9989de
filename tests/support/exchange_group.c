/* SPDX-License-Identifier: Apache-2.0 */
#include "exchange_group.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/device.h"
#include "runner.h"

size_t exchange_group_take_device(void)
{
    struct mpo_comm *comm = NULL;
    struct mpo_device device;
    struct mpo_device_wish wish = {.choice = mixture_case_device()};
    assert_ok(mpo_placement_open_comm(1, 1, &comm));
    wish.before = mpo_comm_local_rank(comm);
    assert_ok(mpo_device_open(&wish, comm, &device));
    mpo_comm_close(&comm);
    return device.free_bytes;
}

/* What an exchange takes of a device is what it says, and a table of its rows. */
static void check_room(const struct exchange_group *group,
                       const struct mpo_exchange_spec *spec, size_t taken)
{
    struct mpo_exchange_plan plan;
    size_t row_bytes = (size_t)group->local_count * sizeof(float *);
    assert_ok(mpo_exchange_survey(spec, group->comm, &plan));
    assert_int_equal(taken, plan.rank_bytes + (size_t)spec->row_capacity * row_bytes);
}

void exchange_group_open(struct exchange_group *group, const struct mixture_case *some,
                         const char *transport, enum mpo_pattern pattern,
                         int32_t group_size)
{
    bool by_nccl = strcmp(transport, "nccl") == 0;
    *group = (struct exchange_group){.some = some,
                                     .rows_on_device = some->rows_on_device || by_nccl};
    assert_ok(mpo_placement_open_comm(some->policy_count, group_size, &group->comm));
    const struct mpo_exchange_spec exchange = {
        .transport = transport,
        .pattern = pattern,
        .placement = mpo_placement_of(some->policy_count, group->comm),
        .row_capacity = some->row_count,
        .vocab_size = some->vocab_size,
        .rows_on_device = group->rows_on_device,
        .bf16_rows = some->bf16_rows};
    mpo_placement_block(&exchange.placement, mpo_comm_group_rank(group->comm),
                        &group->first_policy, &group->local_count);
    size_t free_bytes = exchange_group_take_device();
    assert_ok(mpo_exchange_open(&exchange, group->comm, &group->exchange));
    if (by_nccl)
        check_room(group, &exchange, free_bytes - exchange_group_take_device());
    assert_string_equal(mpo_exchange_transport(group->exchange), transport);
    assert_int_equal(mpo_exchange_pattern(group->exchange), pattern);
    struct mpo_mixture_spec mixture = mixture_case_spec(some);
    mixture.exchange = group->exchange;
    mixture.rows_on_device = group->rows_on_device;
    mixture.placed_first = group->first_policy;
    mixture.placed_count = group->local_count;
    assert_ok(mpo_mixture_open(&mixture, &group->mixture));
    size_t rows = (size_t)group->local_count * (size_t)some->row_count;
    group->row = runner_allocate(rows, sizeof *group->row);
    group->log_norm = runner_allocate(rows, sizeof *group->log_norm);
}

void exchange_group_close(struct exchange_group *group)
{
    free(group->log_norm);
    free(group->row);
    mpo_mixture_close(&group->mixture);
    mpo_exchange_close(&group->exchange);
    mpo_comm_close(&group->comm);
}

static bool is_absent(const struct exchange_group *group, int32_t h, int32_t b)
{
    return group->absent != NULL && group->absent[h * group->some->row_count + b];
}

void exchange_group_place(struct exchange_group *group)
{
    for (int32_t k = 0; k < group->local_count; k++) {
        int32_t h = group->first_policy + k;
        int32_t count = 0;
        const float **row = group->row + group->first_row[k];
        for (int32_t b = 0; b < group->some->row_count; b++)
            if (!is_absent(group, h, b))
                row[count++] = mixture_case_logits(group->some, h, b);
        group->first_row[k + 1] = group->first_row[k] + count;
        if (count == 0)
            continue;
        assert_ok(mpo_mixture_place(group->mixture, h, count, row));
        assert_ok(mpo_mixture_round(group->mixture, h, count, row));
    }
}

void exchange_group_bring(struct exchange_group *group, int32_t failing,
                          struct mpo_rows *rows)
{
    int32_t row_count = group->some->row_count;
    const struct mpo_mixture_part part = {group->first_policy, group->local_count,
                                          group->first_row};
    if (group->absent != NULL)
        mpo_exchange_leave_out(group->exchange, group->absent);
    assert_ok(mpo_exchange_post(group->exchange, row_count, group->row));
    assert_status(
        mpo_mixture_normalise_part(group->mixture, &part, group->row, group->log_norm),
        part.first_policy <= failing && failing < part.first_policy + part.policy_count
            ? MPO_ERR_DATA
            : MPO_OK);
    assert_ok(
        mpo_exchange_rows(group->exchange, row_count, group->row, group->log_norm, rows));
}
