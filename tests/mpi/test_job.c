/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs inside a program that has MPI up already: on a part of the ranks, one after another,
 * and with failures that are handled instead of ending the process.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "exchange/exchange_impl.h"
#include "mpo/comm.h"
#include "mpo/report.h"
#include "runner.h"

#define TEXT_BYTES 4096

/* What the failure handler was told. */
struct told {
    int count;
    enum mpo_status status;
    char text[TEXT_BYTES];
};

static void handle(void *argument, enum mpo_status status, const char *text)
{
    struct told *told = argument;
    told->count++;
    told->status = status;
    snprintf(told->text, sizeof told->text, "%s", text);
}

static int world_rank(void)
{
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

static int world_size(void)
{
    int size = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size;
}

/* A job on all ranks whose failures go to `told`; NULL: nobody handles them. */
static void begin(struct told *told)
{
    const struct mpo_comm_spec spec = {.on_failure = told != NULL ? handle : NULL,
                                       .argument = told};
    assert_ok(mpo_comm_begin(&spec));
}

static void check_that_it_works(int32_t size)
{
    struct mpo_comm *comm = NULL;
    assert_int_equal(mpo_comm_job_size(), size);
    assert_ok(mpo_comm_open(1, &comm));
    double sum[1] = {mpo_comm_rank(comm)};
    assert_ok(mpo_comm_max(comm, sum, 1));
    assert_close(sum[0], size - 1, 0.0);
    assert_int_equal(mpo_comm_agree(MPO_OK), MPO_OK);
    mpo_comm_close(&comm);
}

/* ---- any communicator ---- */

static void a_job_may_have_a_part_of_the_ranks(void **state)
{
    (void)state;
    MPI_Comm half = MPI_COMM_NULL;
    int rank = world_rank();
    int size = world_size();
    int upper = rank >= (size + 1) / 2;
    /* In reverse, so that its ranks are others than those of the world. */
    assert_int_equal(MPI_Comm_split(MPI_COMM_WORLD, upper, -rank, &half), MPI_SUCCESS);
    if (!upper) {
        assert_ok(mpo_comm_begin(&(struct mpo_comm_spec){.communicator = &half}));
        assert_int_equal(mpo_comm_job_rank(), (size + 1) / 2 - 1 - rank);
        check_that_it_works((size + 1) / 2);
        mpo_comm_end();
    }
    MPI_Comm_free(&half);
    MPI_Barrier(MPI_COMM_WORLD); /* MPI is still up, and still ours */
}

static void jobs_follow_one_another(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        begin(NULL);
        check_that_it_works(world_size());
        mpo_comm_end();
        assert_int_equal(mpo_comm_job_size(), 1);
    }
}

static void a_job_leaves_the_process_as_it_was(void **state)
{
    (void)state;
    struct sigaction before;
    struct sigaction after;
    const int slack = prctl(PR_GET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL);
    assert_int_equal(sigaction(SIGALRM, NULL, &before), 0);
    begin(NULL);
    assert_int_not_equal(prctl(PR_GET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL), slack);
    check_that_it_works(world_size());
    mpo_comm_end();
    assert_int_equal(sigaction(SIGALRM, NULL, &after), 0);
    assert_true(before.sa_handler == after.sa_handler);
    assert_int_equal(alarm(0), 0);
    assert_int_equal(prctl(PR_GET_TIMERSLACK, 0UL, 0UL, 0UL, 0UL), slack);
}

static void mpi_is_started_once(void **state)
{
    (void)state;
    assert_status(mpo_comm_start(NULL, NULL), MPO_ERR_USAGE);
    assert_error_names("mpo_comm_begin");
    begin(NULL);
    assert_status(mpo_comm_start(NULL, NULL), MPO_ERR_USAGE);
    check_that_it_works(world_size());
    mpo_comm_end();
}

static void messages_of_a_job_and_of_its_program_never_meet(void **state)
{
    (void)state;
    int size = world_size();
    int value = -1;
    MPI_Request request = MPI_REQUEST_NULL;
    begin(NULL);
    MPI_Irecv(&value, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &request);
    check_that_it_works(size);
    int right = (world_rank() + 1) % size;
    MPI_Send(&right, 1, MPI_INT, right, 7, MPI_COMM_WORLD);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    assert_int_equal(value, world_rank());
    mpo_comm_end();
}

static void a_second_job_and_what_is_no_communicator_are_refused(void **state)
{
    (void)state;
    MPI_Comm nobody = MPI_COMM_NULL;
    assert_status(mpo_comm_begin(&(struct mpo_comm_spec){.communicator = &nobody}),
                  MPO_ERR_USAGE);
    assert_error_names("MPI_COMM_NULL");
    assert_false(mpo_comm_has_begun());
    begin(NULL);
    assert_status(mpo_comm_begin(&(struct mpo_comm_spec){0}), MPO_ERR_USAGE);
    assert_error_names("one at a time");
    check_that_it_works(world_size());
    mpo_comm_end();
}

static void groups_may_be_closed_after_their_job(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    begin(NULL);
    assert_ok(mpo_comm_open(1, &comm));
    mpo_comm_end();
    mpo_comm_close(&comm);
    assert_null(comm);
    begin(NULL);
    check_that_it_works(world_size());
    mpo_comm_end();
}

/* ---- failures ---- */

static void a_failure_is_told_to_every_rank_once(void **state)
{
    (void)state;
    int size = world_size();
    for (int failing = 0; failing < size; failing++) {
        struct told told = {0};
        struct mpo_comm *comm = NULL;
        char name[32];
        int64_t value = 0;
        begin(&told);
        assert_ok(mpo_comm_open(size, &comm));
        MPI_Barrier(MPI_COMM_WORLD); /* nobody hears of the failure in there */
        mpo_comm_expect("fit", 3, 60.0);
        if (world_rank() == failing) {
            mpo_error_set("a policy gave no finite logit");
            assert_int_equal(mpo_comm_fail(MPO_ERR_DATA), MPO_ERR_DATA);
            assert_int_equal(told.status, MPO_ERR_DATA);
        } else {
            assert_status(mpo_comm_broadcast(comm, &value, sizeof value, failing),
                          MPO_ERR_PEER);
            assert_int_equal(told.status, MPO_ERR_PEER);
            snprintf(name, sizeof name, "rank %d", failing);
            assert_non_null(strstr(told.text, name));
        }
        assert_int_equal(told.count, 1);
        assert_non_null(strstr(told.text, "no finite logit"));
        assert_non_null(strstr(told.text, "in step 4 of fit"));
        /* Nothing waits any more, and nobody is told twice. */
        if (size > 1)
            assert_status(mpo_comm_max(comm, &(double){0.0}, 1), MPO_ERR_PEER);
        assert_int_not_equal(mpo_comm_fail(MPO_ERR_DATA), MPO_OK);
        assert_int_equal(told.count, 1);
        mpo_comm_close(&comm);
        mpo_comm_end();
        MPI_Barrier(MPI_COMM_WORLD);
    }
    begin(NULL);
    check_that_it_works(size);
    mpo_comm_end();
}

#define LATE_TAG 77

/* Until every other rank has given up waiting for this one. */
static void wait_for_others(void)
{
    for (int i = 1; i < world_size(); i++) {
        int arrived = 0;
        MPI_Request request = MPI_REQUEST_NULL;
        MPI_Irecv(NULL, 0, MPI_INT, MPI_ANY_SOURCE, LATE_TAG, MPI_COMM_WORLD, &request);
        while (!arrived) {
            MPI_Test(&request, &arrived, MPI_STATUS_IGNORE);
            usleep(1000);
        }
    }
}

static void tell_late_rank(int late)
{
    MPI_Send(NULL, 0, MPI_INT, late, LATE_TAG, MPI_COMM_WORLD);
}

static void a_rank_that_does_not_come_is_named_and_nobody_dies(void **state)
{
    (void)state;
    int size = world_size();
    if (size == 1)
        skip();
    for (int late = 0; late < size; late += size - 1) {
        struct told told = {0};
        struct mpo_comm *comm = NULL;
        char name[32];
        begin(&told);
        assert_ok(mpo_comm_open(size, &comm));
        mpo_comm_expect("fit", 0, 0.3);
        if (world_rank() == late)
            wait_for_others();
        double value = world_rank();
        enum mpo_status status = mpo_comm_max(comm, &value, 1);
        if (world_rank() != late)
            tell_late_rank(late);
        if (status == MPO_OK && world_rank() == late) /* the others had sent theirs */
            status = mpo_comm_max(comm, &value, 1);
        assert_int_equal(status, MPO_ERR_PEER);
        assert_int_equal(told.count, 1);
        snprintf(name, sizeof name, "rank %d on", late);
        if (world_rank() != late) {
            assert_non_null(
                strstr(told.text, "has not responded for 0.3 s (step 1 of fit)"));
            assert_non_null(strstr(told.text, name));
        }
        mpo_comm_close(&comm);
        mpo_comm_end();
        /* Here MPI ends what was begun, but it has lost the way to our memory. */
        MPI_Barrier(MPI_COMM_WORLD);
        if (world_rank() != late)
            assert_close(value, world_rank(), 0.0);
    }
}

/* A window is freed by a call that blocks and cannot be called off. The late rank must not
 * enter it alone either: it hears that the others have given up. */
static void a_rank_that_does_not_come_to_free_a_window_is_named(void **state)
{
    (void)state;
    int size = world_size();
    int late = size - 1;
    struct told told = {0};
    struct mpo_comm *comm = NULL;
    struct mpo_exchange_window window = {0};
    char name[32];
    if (size == 1)
        skip();
    begin(&told);
    assert_ok(mpo_comm_open(size, &comm));
    if (!mpo_comm_group_shares_host(comm))
        skip();
    assert_ok(mpo_exchange_window_allocate(&window, mpo_comm_group_mpi(comm)));
    assert_ok(mpo_exchange_window_connect(&window, 64));
    mpo_comm_expect("the end", -1, 0.3);
    if (world_rank() == late)
        wait_for_others();
    mpo_exchange_window_close(&window);
    if (world_rank() != late)
        tell_late_rank(late);
    assert_int_equal(told.count, 1);
    snprintf(name, sizeof name, "rank %d on", late);
    if (world_rank() != late) {
        assert_non_null(strstr(told.text, "has not responded for 0.3 s (the end)"));
        assert_non_null(strstr(told.text, name));
    }
    mpo_comm_close(&comm);
    mpo_comm_end();
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Nobody can be named before ranks are connected. */
static void a_rank_that_does_not_come_to_the_job_is_missed(void **state)
{
    (void)state;
    struct told told = {0};
    const struct mpo_comm_spec spec = {.on_failure = handle, .argument = &told};
    if (world_size() == 1)
        skip();
    mpo_comm_expect("set-up", -1, 0.3);
    if (world_rank() == 0)
        wait_for_others();
    assert_status(mpo_comm_begin(&spec), MPO_ERR_PEER);
    if (world_rank() != 0)
        tell_late_rank(0);
    assert_false(mpo_comm_has_begun());
    assert_int_equal(told.count, 1);
    assert_non_null(strstr(told.text, "has not completed for 0.3 s (set-up)"));
    MPI_Barrier(MPI_COMM_WORLD);
}

static void a_failed_set_up_is_agreed_on_and_no_failure_of_the_job(void **state)
{
    (void)state;
    struct told told = {0};
    int size = world_size();
    struct mpo_reporter before = mpo_report_to((struct mpo_reporter){0});
    begin(&told);
    mpo_error_set("model.gguf is missing");
    assert_int_equal(mpo_comm_agree(world_rank() == size - 1 ? MPO_ERR_INPUT : MPO_OK),
                     MPO_ERR_INPUT);
    assert_int_equal(told.count, 0);
    check_that_it_works(size);
    mpo_comm_end();
    mpo_report_to(before);
}

/* The runner has begun a job of its own. */
static int end_the_runners(void **state)
{
    (void)state;
    mpo_comm_end();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_job_may_have_a_part_of_the_ranks, end_the_runners),
        cmocka_unit_test(jobs_follow_one_another),
        cmocka_unit_test(a_job_leaves_the_process_as_it_was),
        cmocka_unit_test(mpi_is_started_once),
        cmocka_unit_test(messages_of_a_job_and_of_its_program_never_meet),
        cmocka_unit_test(a_second_job_and_what_is_no_communicator_are_refused),
        cmocka_unit_test(groups_may_be_closed_after_their_job),
        cmocka_unit_test(a_failure_is_told_to_every_rank_once),
        cmocka_unit_test(a_rank_that_does_not_come_is_named_and_nobody_dies),
        cmocka_unit_test(a_failed_set_up_is_agreed_on_and_no_failure_of_the_job),
        cmocka_unit_test(a_rank_that_does_not_come_to_free_a_window_is_named),
        /* the last one: MPI goes on making its communicator */
        cmocka_unit_test(a_rank_that_does_not_come_to_the_job_is_missed),
    };
    return run_cases_on_ranks(argc, argv, "job", tests);
}
