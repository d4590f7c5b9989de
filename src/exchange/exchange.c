/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exchange: argument checks, the choice of a transport and a pattern, and what all
 * transports share: the small messages.
 *
 * Only the group's root folds and draws, so sums go to the root and token ids come back.
 * That is half the traffic of an all-gather and the same result.
 */
#include "exchange_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

static const struct mpo_exchange_ops *find_transport(const char *name)
{
    for (int32_t i = 0; mpo_exchange_transports[i] != NULL; i++)
        if (strcmp(mpo_exchange_transports[i]->transport, name) == 0)
            return mpo_exchange_transports[i];
    return NULL;
}

static enum mpo_status check_transport(const char *name)
{
    enum mpo_status status = MPO_OK;
    if (mpo_is_auto(name) || find_transport(name) != NULL)
        return MPO_OK;
    MPO_FAIL(MPO_ERR_DEVICE,
             "exchange.transport is %s, but this build has no %s; it has: %s", name, name,
             mpo_exchange_transports_built());
cleanup:
    return status;
}

static enum mpo_status check_pattern(const struct mpo_exchange_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(mpo_pattern_name(spec->pattern) != NULL, MPO_ERR_CONFIG,
              "exchange.pattern: expected %s, found number %d", mpo_pattern_choices(),
              (int)spec->pattern);
cleanup:
    return status;
}

enum mpo_status mpo_exchange_check(const struct mpo_exchange_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(spec);
    MPO_ARGUMENTS(spec->transport);
    MPO_TRY(check_transport(spec->transport));
    MPO_TRY(check_pattern(spec));
cleanup:
    return status;
}

/* As ops->refuses, after checking where the rows are. */
static const char *refuses_spec(const struct mpo_exchange_ops *ops,
                                const struct mpo_exchange_spec *spec,
                                const struct mpo_comm *comm)
{
    if (ops->memory == MPO_EXCHANGE_HOST && spec->rows_on_device)
        return "rows are in the memory of devices";
    const char *reason = ops->refuses(spec, comm);
    if (reason == NULL && ops->memory == MPO_EXCHANGE_DEVICE && !spec->rows_on_device)
        return "rows are in the memory of the host";
    return reason;
}

bool mpo_exchange_carries_device_rows(const char *transport, const struct mpo_comm *comm)
{
    const struct mpo_exchange_spec spec = {.transport = transport, .rows_on_device = true};
    for (int32_t i = 0; mpo_exchange_transports[i] != NULL; i++) {
        const struct mpo_exchange_ops *ops = mpo_exchange_transports[i];
        bool wanted = mpo_is_auto(transport) || strcmp(transport, ops->transport) == 0;
        if (wanted && refuses_spec(ops, &spec, comm) == NULL)
            return true;
    }
    return false;
}

/* The first requested transport that can serve the group; chosen is the spec with the
 * pattern chosen by auto. */
static enum mpo_status choose_transport(const struct mpo_exchange_spec *spec,
                                        const struct mpo_comm *comm,
                                        struct mpo_exchange_spec *chosen,
                                        const struct mpo_exchange_ops **out)
{
    enum mpo_status status = MPO_OK;
    const char *name = spec->transport;
    const struct mpo_exchange_site site = {mpo_comm_group_size(comm),
                                           mpo_comm_group_shares_host(comm)};
    *out = NULL;
    MPO_TRY(mpo_exchange_check(spec));
    *chosen = mpo_exchange_choose(spec, &site);
    for (int32_t i = 0; mpo_exchange_transports[i] != NULL && *out == NULL; i++) {
        const struct mpo_exchange_ops *ops = mpo_exchange_transports[i];
        bool named = strcmp(name, ops->transport) == 0;
        const char *reason = refuses_spec(ops, chosen, comm);
        MPO_CHECK(!named || reason == NULL, MPO_ERR_CONFIG,
                  "exchange.transport is %s, but %s; use auto", name, reason);
        if (named || (mpo_is_auto(name) && reason == NULL))
            *out = ops;
    }
    MPO_CHECK(*out != NULL, MPO_ERR_CONFIG, "this build has no transport for a group");
cleanup:
    return status;
}

const char *mpo_exchange_transport_built(int32_t index)
{
    const struct mpo_exchange_ops *ops = mpo_exchange_transports[index];
    return ops != NULL ? ops->transport : NULL;
}

void mpo_exchange_library_version(char *text, size_t bytes)
{
    snprintf(text, bytes, "none");
    for (int32_t i = 0; mpo_exchange_transports[i] != NULL; i++)
        if (mpo_exchange_transports[i]->library_version != NULL)
            mpo_exchange_transports[i]->library_version(text, bytes);
}

size_t mpo_exchange_rows_bytes(const struct mpo_exchange_spec *spec, int32_t policy_count)
{
    size_t row_bytes = (size_t)spec->vocab_size * sizeof(float) + sizeof(double);
    return (size_t)policy_count * (size_t)spec->row_capacity * row_bytes;
}

/* 16-bit messages lie beside the floats that are made of them, and those that they were
 * made of. */
size_t mpo_exchange_most_bytes(const struct mpo_exchange_spec *spec, int32_t policy_count)
{
    size_t tokens =
        (size_t)policy_count * (size_t)spec->row_capacity * (size_t)spec->vocab_size;
    return mpo_exchange_rows_bytes(spec, policy_count) +
           (spec->bf16_rows ? 2 * tokens * sizeof(uint16_t) : 0);
}

enum mpo_status mpo_exchange_survey(const struct mpo_exchange_spec *spec,
                                    const struct mpo_comm *comm,
                                    struct mpo_exchange_plan *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(spec, comm, out);
    const struct mpo_exchange_ops *ops = NULL;
    struct mpo_exchange_spec chosen;
    *out = (struct mpo_exchange_plan){0};
    MPO_TRY(choose_transport(spec, comm, &chosen, &ops));
    out->transport = ops->transport;
    out->pattern = chosen.pattern;
    out->rank_bytes = ops->keeps_bytes(&chosen, comm, mpo_comm_group_rank(comm));
    mpo_exchange_shared_room(ops, &chosen, comm, &out->shared_bytes,
                             &out->shared_free_bytes);
    bool could_share = mpo_comm_group_size(comm) > 1 && mpo_comm_group_shares_host(comm) &&
                       !spec->rows_on_device;
    if (could_share && ops != &mpo_exchange_shared_ops && mpo_is_auto(spec->transport))
        out->shared_refuses = refuses_spec(&mpo_exchange_shared_ops, &chosen, comm);
cleanup:
    return status;
}

/* Room for slices, which every rank knows of every rank, and for tables of rows. */
static enum mpo_status allocate_common(struct mpo_exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_exchange_spec *spec = &exchange->spec;
    const struct mpo_exchange_pattern *pattern = mpo_exchange_pattern_find(spec->pattern);
    int32_t block_count = mpo_rows_block_count(spec->vocab_size);
    MPO_NEW(1, &exchange->common);
    MPO_NEW(exchange->size + 1, &exchange->first_block);
    for (int32_t rank = 0; rank <= exchange->size; rank++)
        exchange->first_block[rank] =
            pattern->first_block(block_count, rank, exchange->size);
    MPO_NEW(exchange->size + 1, &exchange->first_row);
    MPO_NEW(2 * exchange->size, &exchange->common->parts);
    if (mpo_exchange_slice_of(exchange, exchange->rank).count > 0) {
        size_t count = (size_t)spec->placement.policy_count * (size_t)spec->row_capacity;
        MPO_NEW(count, &exchange->logits);
        MPO_NEW(count, &exchange->log_norm);
    }
cleanup:
    return status;
}

/* Everything that may fail on a single rank, before ranks wait for each other. */
static enum mpo_status allocate_exchange(const struct mpo_exchange_spec *spec,
                                         const struct mpo_comm *comm,
                                         struct mpo_exchange **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange *exchange = NULL;
    const struct mpo_exchange_ops *ops = NULL;
    struct mpo_exchange_spec chosen;
    MPO_TRY(mpo_placement_check(&spec->placement));
    MPO_CHECK(
        spec->row_capacity >= 1 && spec->vocab_size >= 1, MPO_ERR_USAGE,
        "an exchange: expected row_capacity and vocab_size of 1 or more, found %d and %d",
        spec->row_capacity, spec->vocab_size);
    MPO_TRY(choose_transport(spec, comm, &chosen, &ops));
    MPO_NEW(1, &exchange);
    *out = exchange;
    exchange->spec = chosen;
    exchange->comm = comm;
    exchange->size = mpo_comm_group_size(comm);
    exchange->rank = mpo_comm_group_rank(comm);
    mpo_placement_block(&chosen.placement, exchange->rank, &exchange->first_policy,
                        &exchange->local_count);
    MPO_TRY(allocate_common(exchange));
    exchange->common->ops = ops;
    MPO_TRY(ops->allocate(exchange));
cleanup:
    return status;
}

enum mpo_status mpo_exchange_open(const struct mpo_exchange_spec *spec,
                                  const struct mpo_comm *comm, struct mpo_exchange **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec, comm);
    MPO_ARGUMENTS(spec->transport);
    status = mpo_comm_agree(allocate_exchange(spec, comm, out));
    if (status == MPO_OK)
        status = mpo_comm_agree((*out)->common->ops->connect(*out));
    if (status != MPO_OK)
        mpo_exchange_close(out);
    return status;
}

void mpo_exchange_close(struct mpo_exchange **exchange)
{
    if (exchange == NULL || *exchange == NULL)
        return;
    if (mpo_comm_is_over(mpo_comm_group_mpi((*exchange)->comm))) {
        *exchange = NULL; /* left as it is: MPI may still write into its rows */
        return;
    }
    struct mpo_exchange_dispatch *common = (*exchange)->common;
    if (common != NULL) {
        if (common->ops != NULL)
            common->ops->close(*exchange);
        free(common->parts);
    }
    free(common);
    free((*exchange)->log_norm);
    free((*exchange)->logits);
    free((*exchange)->first_row);
    free((*exchange)->first_block);
    free(*exchange);
    *exchange = NULL;
}

const struct mpo_placement *mpo_exchange_placement(const struct mpo_exchange *exchange)
{
    return &exchange->spec.placement;
}

const char *mpo_exchange_transport(const struct mpo_exchange *exchange)
{
    return exchange->common->ops->transport;
}

enum mpo_pattern mpo_exchange_pattern(const struct mpo_exchange *exchange)
{
    return exchange->spec.pattern;
}

const int32_t *mpo_exchange_slices(const struct mpo_exchange *exchange)
{
    return exchange->first_block;
}

int32_t mpo_exchange_size(const struct mpo_exchange *exchange)
{
    return exchange->size;
}

int32_t mpo_exchange_rank(const struct mpo_exchange *exchange)
{
    return exchange->rank;
}

struct mpo_exchange_traffic mpo_exchange_traffic(const struct mpo_exchange *exchange)
{
    return exchange->common->traffic;
}

void mpo_exchange_count_sent(struct mpo_exchange *exchange, int32_t messages, size_t bytes)
{
    exchange->common->traffic.sent_messages += messages;
    exchange->common->traffic.sent_bytes += (int64_t)bytes;
}

void mpo_exchange_count_received(struct mpo_exchange *exchange, int32_t messages,
                                 size_t bytes)
{
    exchange->common->traffic.received_messages += messages;
    exchange->common->traffic.received_bytes += (int64_t)bytes;
}

static enum mpo_status check_row_count(const struct mpo_exchange *exchange,
                                       int32_t row_count)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(row_count >= 0 && row_count <= exchange->spec.row_capacity, MPO_ERR_USAGE,
              "an exchange: expected row_count 0 to %d, its row_capacity, found %d",
              exchange->spec.row_capacity, row_count);
cleanup:
    return status;
}

void mpo_exchange_leave_out(struct mpo_exchange *exchange, const bool *absent)
{
    exchange->common->absent = absent;
}

/* Which rows of the position each rank hosts. */
static void count_rows(struct mpo_exchange *exchange, int32_t row_count)
{
    const bool *absent = exchange->common->absent;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        int32_t first = 0;
        int32_t policies = 0;
        mpo_placement_block(&exchange->spec.placement, rank, &first, &policies);
        int32_t count = policies * row_count;
        for (int32_t i = 0; absent != NULL && i < policies * row_count; i++)
            count -= absent[first * row_count + i];
        exchange->first_row[rank + 1] = exchange->first_row[rank] + count;
    }
}

/* This rank's slice of its own rows is read in the policies' memory. */
static void point_at_own(struct mpo_exchange *exchange, struct mpo_slice slice,
                         const float *const *logits, const double *log_norm)
{
    int32_t at = exchange->first_row[exchange->rank];
    int32_t count = mpo_exchange_rows_of(exchange, exchange->rank);
    for (int32_t i = 0; i < count; i++) {
        exchange->logits[at + i] = logits[i] + slice.first;
        exchange->log_norm[at + i] = log_norm[i];
    }
}

/* Make room among the rows for those that there are not. From the last one on, for a row
 * never moves to the front. */
static void spread_rows(struct mpo_exchange *exchange, int32_t row_count)
{
    int32_t next = exchange->first_row[exchange->size];
    const bool *absent = exchange->common->absent;
    for (int32_t i = exchange->spec.placement.policy_count * row_count - 1; i >= 0; i--) {
        next -= !absent[i];
        exchange->logits[i] = absent[i] ? NULL : exchange->logits[next];
        exchange->log_norm[i] = absent[i] ? NAN : exchange->log_norm[next];
    }
}

enum mpo_status mpo_exchange_post(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_row_count(exchange, row_count));
    count_rows(exchange, row_count);
    if (exchange->common->ops->post != NULL)
        MPO_TRY(exchange->common->ops->post(exchange, logits));
    exchange->common->is_posted = true;
cleanup:
    return status;
}

enum mpo_status mpo_exchange_rows(struct mpo_exchange *exchange, int32_t row_count,
                                  const float *const *logits, const double *log_norm,
                                  struct mpo_rows *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_slice slice = mpo_exchange_slice_of(exchange, exchange->rank);
    *out = (struct mpo_rows){0};
    if (!exchange->common->is_posted)
        MPO_TRY(mpo_exchange_post(exchange, row_count, logits));
    exchange->common->is_posted = false;
    if (slice.count > 0) {
        point_at_own(exchange, slice, logits, log_norm);
        *out = (struct mpo_rows){row_count, exchange->logits, exchange->log_norm};
    }
    MPO_TRY(exchange->common->ops->rows(exchange, logits, log_norm));
    if (slice.count > 0 && exchange->common->absent != NULL)
        spread_rows(exchange, row_count);
cleanup:
    exchange->common->absent = NULL;
    return status;
}

struct mpo_exchange_tokens mpo_exchange_count_tokens(const struct mpo_exchange_spec *spec,
                                                     const struct mpo_comm *comm,
                                                     int32_t rank, int32_t row_count)
{
    struct mpo_slice slice = mpo_exchange_slice(spec, rank, mpo_comm_group_size(comm));
    size_t rows = (size_t)row_count;
    int32_t first = 0;
    int32_t own = 0;
    mpo_placement_block(&spec->placement, rank, &first, &own);
    return (struct mpo_exchange_tokens){
        .received =
            (size_t)(spec->placement.policy_count - own) * rows * (size_t)slice.count,
        .sent = (size_t)own * rows * (size_t)(spec->vocab_size - slice.count),
    };
}

size_t mpo_exchange_token_bytes(const struct mpo_exchange_spec *spec)
{
    return spec->bf16_rows ? sizeof(uint16_t) : sizeof(float);
}

static enum mpo_status receive_norms(struct mpo_exchange *exchange, int32_t rank,
                                     MPI_Request *request)
{
    enum mpo_status status = MPO_OK;
    int32_t count = mpo_exchange_rows_of(exchange, rank);
    MPO_TRY_MPI(MPI_Irecv(exchange->log_norm + exchange->first_row[rank], count, MPI_DOUBLE,
                          rank, MPO_EXCHANGE_TAG_NORM, mpo_comm_group_mpi(exchange->comm),
                          request));
    mpo_exchange_count_received(exchange, 1, (size_t)count * sizeof(double));
cleanup:
    return status;
}

enum mpo_status mpo_exchange_post_norms(struct mpo_exchange *exchange,
                                        const double *log_norm, MPI_Request *requests,
                                        int *posted)
{
    enum mpo_status status = MPO_OK;
    int32_t own = mpo_exchange_rows_of(exchange, exchange->rank);
    bool receives = mpo_exchange_slice_of(exchange, exchange->rank).count > 0;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
        if (rank == exchange->rank)
            continue;
        if (receives && mpo_exchange_rows_of(exchange, rank) > 0)
            MPO_TRY(receive_norms(exchange, rank, &requests[(*posted)++]));
        if (mpo_exchange_slice_of(exchange, rank).count == 0 || own == 0)
            continue;
        MPO_TRY_MPI(MPI_Isend(log_norm, own, MPI_DOUBLE, rank, MPO_EXCHANGE_TAG_NORM,
                              mpo_comm_group_mpi(exchange->comm), &requests[(*posted)++]));
        mpo_exchange_count_sent(exchange, 1, (size_t)own * sizeof *log_norm);
    }
cleanup:
    return status;
}
