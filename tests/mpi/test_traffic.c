/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a position costs: messages and bytes of each transport under both patterns against
 * their formula, the shared memory it takes, and the transport that auto takes. Counted
 * where they are sent and allocated, by standing in for MPI (MPI 3.1, section 14.2: the
 * profiling interface); rows in shared memory are no messages.
 *
 *     h policies of a rank, p of its host, B rows; V(r), V(n) tokens that a rank, a host
 *     reduces; t bytes of a token, 4, and 2 of rows rounded to bf16
 *                                            messages    bytes
 *       shared  a rank                       0           0
 *       nodes   first rank of a host to
 *               each host n with V(n) > 0    1           p B (4 V(n) + 8)
 *       mpi     a rank to each r with
 *               V(r) > 0                     h B + 1     h B (t V(r) + 8)
 *
 * A host's ranks meet once where rows are in shared memory, and in `nodes` once more where
 * others than the first read what it received; never in `mpi`.
 */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_mpi.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "exchange_case.h"
#include "runner.h"

enum { ROWS_MAX = 7, VOCAB_MAX = 6 * MPO_ROWS_BLOCK + 33, POLICIES_MAX = 64 };

/* With the last one no rank of six is without a slice, with the second most are. */
static const struct cut {
    enum mpo_pattern pattern;
    int32_t vocab_size;
    bool bf16_rows;
} cuts[] = {
    {MPO_PATTERN_GATHER, 33, false},
    {MPO_PATTERN_GATHER, 33, true},
    {MPO_PATTERN_ALLTOALL, MPO_ROWS_BLOCK + 33, false},
    {MPO_PATTERN_ALLTOALL, VOCAB_MAX, false},
    {MPO_PATTERN_ALLTOALL, VOCAB_MAX, true},
};

static struct {
    int64_t messages;
    int64_t bytes;
    int64_t barriers;
} sent;

static int64_t window_bytes; /* that this rank asked for */

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag,
              MPI_Comm comm, MPI_Request *request)
{
    int size = 0;
    PMPI_Type_size(type, &size);
    sent.messages++;
    sent.bytes += (int64_t)count * size;
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request *request)
{
    sent.barriers++;
    return PMPI_Ibarrier(comm, request);
}

int MPI_Win_allocate_shared(MPI_Aint size, int unit, MPI_Info info, MPI_Comm comm,
                            void *base, MPI_Win *window)
{
    window_bytes += size;
    return PMPI_Win_allocate_shared(size, unit, info, comm, base, window);
}

/* One exchange, and where its ranks are. */
struct run {
    struct mpo_comm *comm;
    struct mpo_exchange *exchange;
    const char *transport; /* that it was opened with */
    const struct cut *cut;
    int32_t policy_count;
    int32_t size;
    int32_t rank;
    int32_t leader;
};

static int32_t tokens_of(const struct run *run, int32_t rank)
{
    return exchange_case_tokens(run->exchange, rank, run->cut->vocab_size);
}

static int32_t policies_of(const struct run *run, int32_t rank)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(mpo_exchange_placement(run->exchange), rank, &first, &count);
    return count;
}

static struct exchange_case_host host_of(const struct run *run, int32_t leader)
{
    return exchange_case_host_of(run->exchange, run->comm, leader, run->cut->vocab_size);
}

static bool is_leader(const struct run *run, int32_t rank)
{
    return mpo_comm_group_leader(run->comm, rank) == rank;
}

static struct mpo_exchange_spec spec_of(const struct run *run)
{
    return (struct mpo_exchange_spec){.transport = run->transport,
                                      .pattern = run->cut->pattern,
                                      .placement =
                                          mpo_placement_of(run->policy_count, run->comm),
                                      .row_capacity = ROWS_MAX,
                                      .vocab_size = run->cut->vocab_size,
                                      .bf16_rows = run->cut->bf16_rows};
}

static void open_run(struct run *run, const char *transport, const struct cut *cut,
                     int32_t policy_count)
{
    *run = (struct run){.transport = transport, .cut = cut, .policy_count = policy_count};
    assert_ok(mpo_placement_open_comm(policy_count, 0, &run->comm));
    const struct mpo_exchange_spec spec = spec_of(run);
    window_bytes = 0;
    assert_ok(mpo_exchange_open(&spec, run->comm, &run->exchange));
    run->size = mpo_comm_group_size(run->comm);
    run->rank = mpo_comm_group_rank(run->comm);
    run->leader = mpo_comm_group_leader(run->comm, run->rank);
}

static void close_run(struct run *run)
{
    mpo_exchange_close(&run->exchange);
    mpo_comm_close(&run->comm);
}

/* ---- messages ---- */

static void expect_traffic(const struct run *run, int32_t rows)
{
    const char *transport = mpo_exchange_transport(run->exchange);
    bool by_rank = strcmp(transport, "mpi") == 0;
    bool by_host = strcmp(transport, "nodes") == 0 && run->rank == run->leader;
    int64_t own =
        rows * (by_host ? host_of(run, run->rank).policies : policies_of(run, run->rank));
    int64_t token = by_rank && run->cut->bf16_rows ? 2 : 4;
    int64_t messages = 0;
    int64_t bytes = 0;
    for (int32_t to = 0; to < run->size; to++) {
        if (to == run->rank || !(by_rank || (by_host && is_leader(run, to))))
            continue;
        int64_t tokens = by_host ? host_of(run, to).tokens : tokens_of(run, to);
        messages += tokens > 0 ? (by_host ? 1 : own + 1) : 0;
        bytes += tokens > 0 ? own * (token * tokens + 8) : 0;
    }
    assert_int_equal(sent.messages, messages);
    assert_int_equal(sent.bytes, bytes);
}

static void expect_barriers(const struct run *run)
{
    const char *transport = mpo_exchange_transport(run->exchange);
    bool is_nodes = strcmp(transport, "nodes") == 0;
    bool has_others = host_of(run, run->leader).policies < run->policy_count;
    bool others_read = host_of(run, run->leader).tokens > tokens_of(run, run->leader);
    assert_int_equal(sent.barriers, (is_nodes || strcmp(transport, "shared") == 0) +
                                        (is_nodes && has_others && others_read));
    if (run->cut->pattern == MPO_PATTERN_GATHER)
        assert_true(sent.barriers <= 1);
}

/* Where every host has a slice, all N hosts together send N (N - 1) messages, and N - 1
 * where only the root's has. */
static void expect_messages_of_hosts(const struct run *run)
{
    int64_t all = sent.messages;
    int64_t hosts = 0;
    int64_t reading = 0;
    for (int32_t rank = 0; rank < run->size; rank++) {
        hosts += is_leader(run, rank);
        reading += is_leader(run, rank) && host_of(run, rank).tokens > 0;
    }
    assert_int_equal(PMPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT64_T, MPI_SUM,
                                    mpo_comm_group_mpi(run->comm)),
                     MPI_SUCCESS);
    if (run->cut->vocab_size == VOCAB_MAX)
        assert_int_equal(reading, hosts);
    if (run->cut->pattern == MPO_PATTERN_GATHER)
        assert_int_equal(reading, 1);
    assert_int_equal(all, reading * (hosts - 1));
}

/* Ranks with slices say that they have read. */
static void end_position(const struct run *run, int32_t rows)
{
    double table[POLICIES_MAX] = {0.0};
    size_t start[POLICIES_MAX + 1] = {0};
    int32_t token[ROWS_MAX] = {0};
    for (int32_t rank = 0; rank < run->size; rank++)
        start[rank + 1] = start[rank] + (rank > 0 && tokens_of(run, rank) > 0);
    assert_ok(mpo_exchange_parts(run->exchange, table, start));
    assert_ok(mpo_exchange_broadcast(run->exchange, token, (size_t)rows * sizeof *token));
}

/* One position of each number of rows up to the capacity. */
static void run_positions(const struct run *run)
{
    static const float row[VOCAB_MAX] = {0.0F};
    static double norm[POLICIES_MAX * ROWS_MAX] = {0.0};
    const float **logits = runner_allocate(POLICIES_MAX * ROWS_MAX, sizeof *logits);
    struct mpo_rows out;
    for (int32_t i = 0; i < POLICIES_MAX * ROWS_MAX; i++)
        logits[i] = row;
    for (int32_t rows = 1; rows <= ROWS_MAX; rows++) {
        memset(&sent, 0, sizeof sent);
        assert_ok(mpo_exchange_rows(run->exchange, rows, logits, norm, &out));
        expect_traffic(run, rows);
        expect_barriers(run);
        if (strcmp(mpo_exchange_transport(run->exchange), "nodes") == 0)
            expect_messages_of_hosts(run);
        end_position(run, rows);
    }
    free(logits);
}

static const int32_t policy_counts[] = {8, 9, POLICIES_MAX};

static void run_all(const char *transport)
{
    for (size_t i = 0; i < sizeof policy_counts / sizeof *policy_counts; i++)
        for (size_t j = 0; j < sizeof cuts / sizeof *cuts; j++) {
            struct run run;
            open_run(&run, transport, &cuts[j], policy_counts[i]);
            run_positions(&run);
            close_run(&run);
        }
}

/* auto never takes mpi where two ranks share a host. */
static void auto_sends_as_little_as_the_hosts_allow(void **state)
{
    (void)state;
    struct run run;
    open_run(&run, "auto", &(struct cut){MPO_PATTERN_AUTO, 33, false}, 8);
    bool shares = mpo_comm_group_shares_host(run.comm);
    const char *expected = run.size == 1 ? "self" : shares ? "shared" : "nodes";
    assert_string_equal(mpo_exchange_transport(run.exchange), expected);
    close_run(&run);
    run_all("auto");
}

static void nodes_sends_one_message_from_host_to_host(void **state)
{
    (void)state;
    if (mpo_comm_job_size() == 1)
        skip();
    run_all("nodes");
}

static void mpi_sends_one_message_a_row_and_one_of_norms(void **state)
{
    (void)state;
    if (mpo_comm_job_size() == 1)
        skip();
    run_all("mpi");
}

/* The point of alltoall: with a rank a policy, rows sent and received by a rank are fewer
 * than V tokens a row, however many policies there are. A gather brings K - 1 to the root.
 */
static void bytes_a_rank_do_not_grow_with_the_policies(void **state)
{
    (void)state;
    static const struct cut both[2] = {
        {MPO_PATTERN_GATHER, 24 * MPO_ROWS_BLOCK, false},
        {MPO_PATTERN_ALLTOALL, 24 * MPO_ROWS_BLOCK, false},
    };
    int32_t size = mpo_comm_job_size();
    if (size == 1)
        skip();
    for (int32_t i = 0; i < 2; i++) {
        struct run run;
        struct mpo_rows rows;
        double log_norm[4] = {0.0};
        open_run(&run, "mpi", &both[i], size);
        float *row = runner_allocate((size_t)both[i].vocab_size, sizeof *row);
        const float *const logits[4] = {row, row, row, row};
        assert_ok(mpo_exchange_rows(run.exchange, 4, logits, log_norm, &rows));
        struct mpo_exchange_traffic found = mpo_exchange_traffic(run.exchange);
        int64_t row_bytes = 4 * 4 * (int64_t)both[i].vocab_size;
        int64_t norm_bytes = 4 * 8 * (int64_t)(size - 1);
        if (i == 1) {
            assert_int_equal(found.sent_bytes, row_bytes * (size - 1) / size + norm_bytes);
            assert_int_equal(found.received_bytes, found.sent_bytes);
        } else if (run.rank == 0) {
            assert_int_equal(found.received_bytes, row_bytes * (size - 1) + norm_bytes);
        }
        close_run(&run);
        free(row);
    }
}

/* ---- shared memory ---- */

/* Each row once for every host on which another rank reads it: that host's tokens and a
 * normaliser in `nodes`, all of the row in `shared`. */
static int64_t expected_window(const struct run *run)
{
    bool cuts_rows = strcmp(run->transport, "nodes") == 0;
    int64_t bytes = 0;
    for (int32_t host = 0; host < run->size; host++)
        for (int32_t from = 0; is_leader(run, host) && from < run->size; from++) {
            bool is_here = mpo_comm_group_leader(run->comm, from) == run->leader;
            bool is_read = false;
            for (int32_t to = 0; to < run->size; to++)
                is_read = is_read || (mpo_comm_group_leader(run->comm, to) == host &&
                                      to != from && tokens_of(run, to) > 0);
            if (!is_read || !(is_here || host == run->leader))
                continue;
            int64_t tokens = cuts_rows ? host_of(run, host).tokens : run->cut->vocab_size;
            bytes += (int64_t)policies_of(run, from) * ROWS_MAX * (4 * tokens + 8);
        }
    return bytes;
}

static void windows_take_what_the_survey_says(void **state)
{
    (void)state;
    static const char *const transports[2] = {"shared", "nodes"};
    bool ran = false;
    for (size_t i = 0; i < 2 * sizeof cuts / sizeof *cuts; i++) {
        struct run run;
        struct mpo_exchange_plan plan;
        if (mpo_comm_job_size() == 1 ||
            !exchange_case_serves(transports[i % 2], mpo_comm_job_size()))
            continue;
        open_run(&run, transports[i % 2], &cuts[i / 2], 9);
        const struct mpo_exchange_spec spec = spec_of(&run);
        assert_ok(mpo_exchange_survey(&spec, run.comm, &plan));
        int64_t sums[2] = {window_bytes, (int64_t)plan.rank_bytes};
        assert_int_equal(PMPI_Allreduce(MPI_IN_PLACE, sums, 2, MPI_INT64_T, MPI_SUM,
                                        mpo_comm_host_mpi(run.comm)),
                         MPI_SUCCESS);
        assert_int_equal(sums[0], expected_window(&run));
        assert_int_equal(sums[1], sums[0]);
        assert_int_equal(plan.shared_bytes, sums[0]);
        close_run(&run);
        ran = true;
    }
    if (!ran)
        skip();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_sends_as_little_as_the_hosts_allow),
        cmocka_unit_test(nodes_sends_one_message_from_host_to_host),
        cmocka_unit_test(mpi_sends_one_message_a_row_and_one_of_norms),
        cmocka_unit_test(bytes_a_rank_do_not_grow_with_the_policies),
        cmocka_unit_test(windows_take_what_the_survey_says),
    };
    return run_cases_on_ranks(argc, argv, "traffic", tests);
}
