/* SPDX-License-Identifier: Apache-2.0 */
#include "exchange_position.h"

#include <string.h>

#include "mixture/mixture_impl.h"
#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "exchange_case.h"

/* Rows that a rank hosts. */
static int64_t rows_of(const struct exchange_position *self, int32_t rank)
{
    int32_t first = 0;
    int32_t policies = 0;
    mpo_placement_block(mpo_exchange_placement(self->exchange), rank, &first, &policies);
    int64_t count = (int64_t)policies * self->row_count;
    for (int32_t i = 0; self->absent != NULL && i < policies * self->row_count; i++)
        count -= self->absent[first * self->row_count + i];
    return count;
}

/* Rows that the ranks of a host have together. */
static int64_t host_rows(const struct exchange_position *self, int32_t leader)
{
    int64_t count = 0;
    for (int32_t rank = leader; rank < mpo_comm_group_size(self->comm); rank++)
        if (mpo_comm_group_leader(self->comm, rank) == leader)
            count += rows_of(self, rank);
    return count;
}

static int32_t blocks_of(const struct exchange_position *self, int32_t rank)
{
    const int32_t *first = mpo_exchange_slices(self->exchange);
    return first[rank + 1] - first[rank];
}

static int32_t tokens_of(const struct exchange_position *self, int32_t rank)
{
    return exchange_case_tokens(self->exchange, rank, self->vocab_size);
}

/* Rows of 4 V bytes and their normalisers, B of each policy; of bf16 rows 2 V:
 *   mpi     a message a row and receiver, and one of normalisers a receiver
 *   nccl    a message a receiver, and one of normalisers
 * and none of a rank without rows. */
static void add_messages(const struct exchange_position *self,
                         struct mpo_exchange_traffic *sum)
{
    int32_t rank = mpo_comm_group_rank(self->comm);
    int32_t size = mpo_comm_group_size(self->comm);
    int64_t own = rows_of(self, rank);
    int64_t others = 0;
    int64_t slice = tokens_of(self, rank);
    int64_t receivers = 0;
    int64_t senders = 0;
    for (int32_t other = 0; other < size; other++) {
        if (other == rank)
            continue;
        receivers += own > 0 && tokens_of(self, other) > 0;
        senders += rows_of(self, other) > 0;
        others += rows_of(self, other);
    }
    bool by_nccl = strcmp(mpo_exchange_transport(self->exchange), "nccl") == 0;
    int64_t token = self->bf16_rows ? 2 : 4;
    sum->sent_messages += receivers * (by_nccl ? 2 : own + 1);
    sum->sent_bytes += own * (8 * receivers + token * (self->vocab_size - slice));
    sum->received_messages += slice > 0 ? (by_nccl ? senders : others) + senders : 0;
    sum->received_bytes += slice > 0 ? others * (8 + token * slice) : 0;
}

static struct exchange_case_host host_of(const struct exchange_position *self,
                                         int32_t leader)
{
    return exchange_case_host_of(self->exchange, self->comm, leader, self->vocab_size);
}

/* shared, nodes: every row written once but for the own slice, its normaliser for each host
 * on which others read it, and each rank's slices read. nodes: one message from the first
 * rank of a host to that of each other, of its tokens, which reads them from itself. */
static void add_window(const struct exchange_position *self,
                       struct mpo_exchange_traffic *sum)
{
    int32_t own = mpo_comm_group_rank(self->comm);
    int32_t leader = mpo_comm_group_leader(self->comm, own);
    int64_t rows = rows_of(self, own);
    int64_t here_rows = host_rows(self, leader);
    int64_t slice = tokens_of(self, own);
    struct exchange_case_host here = host_of(self, leader);
    sum->sent_bytes += 4 * rows * (self->vocab_size - slice);
    sum->sent_bytes += here.tokens > slice ? 8 * rows : 0;
    sum->received_bytes += slice > 0 ? (here_rows - rows) * (8 + 4 * slice) : 0;
    for (int32_t rank = 0; rank < mpo_comm_group_size(self->comm); rank++) {
        if (rank == leader || mpo_comm_group_leader(self->comm, rank) != rank)
            continue;
        struct exchange_case_host there = host_of(self, rank);
        int64_t there_rows = host_rows(self, rank);
        int64_t sends = own == leader && there.tokens > 0 && here_rows > 0;
        int64_t receives = own == leader && here.tokens > 0 && there_rows > 0;
        int64_t read = own == leader ? here.tokens : slice;
        sum->sent_messages += sends;
        sum->sent_bytes += there.tokens > 0 ? 8 * rows : 0;
        sum->sent_bytes += sends * here_rows * (8 + 4 * there.tokens);
        sum->received_messages += receives;
        sum->received_bytes += read > 0 ? there_rows * (8 + 4 * read) : 0;
    }
}

static void add_message(struct mpo_exchange_traffic *sum, bool sends, int64_t bytes)
{
    *(sends ? &sum->sent_messages : &sum->received_messages) += bytes > 0;
    *(sends ? &sum->sent_bytes : &sum->received_bytes) += bytes;
}

/* Where ranks other than the root have slices: H + 3 doubles a block and row to the root, a
 * question a draw from it, H + 1 doubles a draw back from the rank that has its token. */
static void add_parts(const struct exchange_position *self, const int32_t *token,
                      struct mpo_exchange_traffic *sum)
{
    const int32_t *first = mpo_exchange_slices(self->exchange);
    int32_t own_rank = mpo_comm_group_rank(self->comm);
    int32_t row_count = self->row_count;
    int64_t policies = self->policy_count;
    int64_t questions = row_count * (int64_t)sizeof(struct mpo_mixture_question);
    if (first[1] == first[mpo_comm_group_size(self->comm)])
        return;
    add_message(sum, own_rank == 0, questions);
    for (int32_t rank = 1; rank < mpo_comm_group_size(self->comm); rank++) {
        int64_t answers = 0;
        for (int32_t i = 0; i < row_count; i++)
            answers += token[i] / MPO_ROWS_BLOCK >= first[rank] &&
                       token[i] / MPO_ROWS_BLOCK < first[rank + 1];
        if (own_rank != 0 && own_rank != rank)
            continue;
        add_message(sum, own_rank != 0,
                    8 * (policies + 3) * row_count * blocks_of(self, rank));
        add_message(sum, own_rank != 0, 8 * (policies + 1) * answers);
    }
}

void exchange_position_add(const struct exchange_position *self, const int32_t *token,
                           struct mpo_exchange_traffic *sum)
{
    const char *transport = mpo_exchange_transport(self->exchange);
    if (strcmp(transport, "shared") == 0 || strcmp(transport, "nodes") == 0)
        add_window(self, sum);
    else
        add_messages(self, sum);
    add_parts(self, token, sum);
    if (mpo_comm_group_size(self->comm) > 1)
        add_message(sum, mpo_comm_group_rank(self->comm) == 0,
                    (int64_t)sizeof *token * self->row_count);
}
