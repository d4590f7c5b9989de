/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of CUDA, NCCL and MPI at one position against tests/gpu/call_budget.tsv, exactly: a
 * device takes microseconds for each, which is most of what a position costs, and no other
 * test would notice one more. CUDA's and NCCL's are counted by their stand-ins, MPI's by
 * standing in for it (MPI 3.1, section 14.2: the profiling interface).
 */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "calls.h"
#include "exchange_group.h"
#include "mpo/comm.h"
#include "mpo/rows.h"
#include "runner.h"

enum { POLICIES = 3, ROWS = 4, VOCAB = 3 * MPO_ROWS_BLOCK };

static int messages;

int MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag,
              MPI_Comm comm, MPI_Request *request)
{
    messages++;
    return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
              MPI_Request *request)
{
    messages++;
    return PMPI_Irecv(data, count, type, from, tag, comm, request);
}

int MPI_Ibcast(void *data, int count, MPI_Datatype type, int root, MPI_Comm comm,
               MPI_Request *request)
{
    messages++;
    return PMPI_Ibcast(data, count, type, root, comm, request);
}

struct drawn {
    int32_t row[ROWS];
    enum mpo_mixture_kind kind[ROWS];
    double uniform[ROWS];
    int32_t token[ROWS];
    double log_proposal[ROWS];
    double log_policy[ROWS * POLICIES];
};

/* A line of the budget, or what was counted. */
struct budget {
    char pattern[16];
    int policies;
    int ranks;
    int rank;
    struct hostsim_calls calls;
    int messages;
};

/* The line of the same position and rank. */
static struct budget read_budget(const struct budget *found)
{
    struct budget line = {.messages = -1};
    char text[256];
    FILE *file = fopen(CALL_BUDGET, "r");
    assert_non_null(file);
    while (fgets(text, sizeof text, file) != NULL) {
        if (text[0] == '#' ||
            sscanf(text, "%15s %d %d %d %d %d %d %d %d", line.pattern, &line.policies,
                   &line.ranks, &line.rank, &line.calls.copies, &line.calls.launches,
                   &line.calls.groups, &line.calls.waits, &line.messages) != 9)
            continue;
        if (strcmp(line.pattern, found->pattern) == 0 && line.policies == found->policies &&
            line.ranks == found->ranks && line.rank == found->rank)
            break;
    }
    if (feof(file))
        line = (struct budget){.messages = -1};
    fclose(file);
    return line;
}

static void check_budget(const struct budget *found)
{
    const struct budget line = read_budget(found);
    if (memcmp(&line.calls, &found->calls, sizeof line.calls) == 0 &&
        line.messages == found->messages)
        return;
    fail_msg("%s has no such line: %s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", CALL_BUDGET,
             found->pattern, found->policies, found->ranks, found->rank,
             found->calls.copies, found->calls.launches, found->calls.groups,
             found->calls.waits, found->messages);
}

/* ---- positions ---- */

/* The draws of a position, at uniforms at which each of three ranks has at least one. */
static struct mpo_mixture_draws spread_draws(struct drawn *drawn)
{
    for (int32_t i = 0; i < ROWS; i++) {
        drawn->row[i] = i;
        drawn->kind[i] = MPO_MIXTURE_DRAWN;
        drawn->uniform[i] = (i + 0.5) / ROWS;
    }
    return (struct mpo_mixture_draws){.count = ROWS,
                                      .row = drawn->row,
                                      .kind = drawn->kind,
                                      .uniform = drawn->uniform,
                                      .token = drawn->token,
                                      .log_proposal = drawn->log_proposal,
                                      .log_policy = drawn->log_policy};
}

/* A position as decode has it: rows, moments, draws and the next control record. */
static void take_position(struct exchange_group *group)
{
    struct mpo_rows rows;
    struct drawn drawn;
    struct mpo_mixture_moments moments[ROWS];
    double expectation[ROWS * POLICIES];
    const struct mpo_mixture_results results = {moments, expectation};
    char record[64] = "";
    struct mpo_mixture_draws draws = spread_draws(&drawn);
    exchange_group_bring(group, -1, &rows);
    assert_ok(mpo_mixture_combine_and_draw(group->mixture, &rows, &group->some->exponents,
                                           &results, &draws));
    assert_ok(mpo_exchange_broadcast(group->exchange, record, sizeof record));
}

/* Opening has connected the ranks, so that no position waits for it inside NCCL. */
static void check_pattern(const char *name, enum mpo_pattern pattern)
{
    struct mixture_case some;
    struct exchange_group group;
    struct budget found = {.policies = POLICIES, .ranks = mpo_comm_job_size()};
    mixture_case_make(&some, POLICIES, ROWS, VOCAB, 6.0);
    mixture_case_set(&some);
    some.rows_on_device = true;
    exchange_group_open(&group, &some, found.ranks == 1 ? "self" : "nccl", pattern,
                        found.ranks);
    exchange_group_place(&group);
    hostsim_take_calls();
    messages = 0;
    take_position(&group);
    found.calls = hostsim_take_calls();
    found.messages = messages;
    found.rank = mpo_comm_group_rank(group.comm);
    snprintf(found.pattern, sizeof found.pattern, "%s", name);
    check_budget(&found);
    exchange_group_close(&group);
    mixture_case_free(&some);
}

static void a_position_that_is_gathered_makes_the_calls_of_its_budget(void **state)
{
    (void)state;
    check_pattern("gather", MPO_PATTERN_GATHER);
}

static void a_position_of_slices_makes_the_calls_of_its_budget(void **state)
{
    (void)state;
    if (mpo_comm_job_size() > 1)
        check_pattern("alltoall", MPO_PATTERN_ALLTOALL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_position_that_is_gathered_makes_the_calls_of_its_budget),
        cmocka_unit_test(a_position_of_slices_makes_the_calls_of_its_budget),
    };
    return run_cases_on_ranks(argc, argv, "call budget", tests);
}
