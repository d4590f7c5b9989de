/*
 * What a position costs: messages and bytes of each transport against their formula, and
 * the transport that auto takes. Counted where they are sent, by standing in for MPI_Isend
 * (MPI 3.1, section 14.2: the profiling interface); rows in shared memory are none.
 *
 *     h policies of a rank, B rows, V tokens      messages a rank     bytes a rank
 *       shared                                    0                   0
 *       nodes   first rank of a host with p       1                   p B (4 V + 8)
 *               policies, not the root's
 *       mpi     not the root                      h B + 1             h B (4 V + 8)
 */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "runner.h"

enum { VOCAB = 33, ROWS_MAX = 7 };

static struct {
    int64_t messages;
    int64_t bytes;
} sent;

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag,
              MPI_Comm comm, MPI_Request *request)
{
    int size = 0;
    PMPI_Type_size(type, &size);
    sent.messages++;
    sent.bytes += (int64_t)count * size;
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

static int32_t policies_of(const struct mpo_comm *comm, int32_t rank)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_comm_policy_block(comm, rank, &first, &count);
    return count;
}

/* Policies of the ranks on this rank's host. */
static int32_t policies_of_host(const struct mpo_comm *comm)
{
    int32_t leader = mpo_comm_group_leader(comm, mpo_comm_group_rank(comm));
    int32_t count = 0;
    for (int32_t rank = 0; rank < mpo_comm_group_size(comm); rank++)
        if (mpo_comm_group_leader(comm, rank) == leader)
            count += policies_of(comm, rank);
    return count;
}

static void expect_traffic(const char *transport, const struct mpo_comm *comm, int32_t rows)
{
    int32_t rank = mpo_comm_group_rank(comm);
    int64_t messages = 0;
    int64_t policies = 0;
    if (strcmp(transport, "nodes") == 0 && rank != 0 &&
        mpo_comm_group_leader(comm, rank) == rank) {
        messages = 1;
        policies = policies_of_host(comm);
    }
    if (strcmp(transport, "mpi") == 0 && rank != 0) {
        policies = policies_of(comm, rank);
        messages = policies * rows + 1;
    }
    assert_int_equal(sent.messages, messages);
    assert_int_equal(sent.bytes, policies * rows * (4 * VOCAB + 8));
}

/* One position of each number of rows up to the capacity. */
static void run_positions(const char *transport, int32_t policy_count)
{
    static const float row[VOCAB] = {0.0F};
    static double norm[64 * ROWS_MAX] = {0.0};
    struct mpo_comm *comm = NULL;
    struct mpo_exchange *exchange = NULL;
    const struct mpo_exchange_spec spec = {.transport = transport,
                                           .pattern = "gather",
                                           .policy_count = policy_count,
                                           .row_capacity = ROWS_MAX,
                                           .vocab_size = VOCAB};
    const float **logits = runner_allocate(64 * ROWS_MAX, sizeof *logits);
    int32_t token[ROWS_MAX] = {0};
    struct mpo_rows out;
    for (int32_t i = 0; i < 64 * ROWS_MAX; i++)
        logits[i] = row;
    assert_ok(mpo_comm_open(policy_count, 0, &comm));
    assert_ok(mpo_exchange_open(&spec, comm, &exchange));
    for (int32_t rows = 1; rows <= ROWS_MAX; rows++) {
        memset(&sent, 0, sizeof sent);
        assert_ok(mpo_exchange_rows(exchange, rows, logits, norm, &out));
        expect_traffic(mpo_exchange_transport(exchange), comm, rows);
        assert_ok(mpo_exchange_tokens(exchange, token, rows));
    }
    mpo_exchange_close(&exchange);
    mpo_comm_close(&comm);
    free(logits);
}

static const int32_t policy_counts[] = {8, 9, 64};

/* auto never takes mpi where two ranks share a host. */
static void auto_sends_as_little_as_the_hosts_allow(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    struct mpo_exchange *exchange = NULL;
    const struct mpo_exchange_spec spec = {.transport = "auto",
                                           .pattern = "auto",
                                           .policy_count = 8,
                                           .row_capacity = 2,
                                           .vocab_size = VOCAB};
    assert_ok(mpo_comm_open(8, 0, &comm));
    assert_ok(mpo_exchange_open(&spec, comm, &exchange));
    bool shares = mpo_comm_group_shares_host(comm);
    const char *expected = mpo_comm_group_size(comm) == 1 ? "self"
                           : shares                       ? "shared"
                                                          : "nodes";
    assert_string_equal(mpo_exchange_transport(exchange), expected);
    mpo_exchange_close(&exchange);
    mpo_comm_close(&comm);
    for (size_t i = 0; i < sizeof policy_counts / sizeof *policy_counts; i++)
        run_positions("auto", policy_counts[i]);
}

static void nodes_sends_one_message_from_each_other_host(void **state)
{
    (void)state;
    if (mpo_comm_job_size() == 1)
        skip();
    for (size_t i = 0; i < sizeof policy_counts / sizeof *policy_counts; i++)
        run_positions("nodes", policy_counts[i]);
}

static void mpi_sends_one_message_a_row_and_one_of_norms(void **state)
{
    (void)state;
    if (mpo_comm_job_size() == 1)
        skip();
    for (size_t i = 0; i < sizeof policy_counts / sizeof *policy_counts; i++)
        run_positions("mpi", policy_counts[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_sends_as_little_as_the_hosts_allow),
        cmocka_unit_test(nodes_sends_one_message_from_each_other_host),
        cmocka_unit_test(mpi_sends_one_message_a_row_and_one_of_norms),
    };
    return run_cases_on_ranks(argc, argv, "traffic", tests);
}
