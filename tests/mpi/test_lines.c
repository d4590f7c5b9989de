/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines and stars on however many ranks the program is started with, in groups of every size:
 * who is woken, how it is known that a rank does not wake up, and who is connected with whom.
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/timing.h"
#include "comm/lines.h"
#include "comm/star.h"
#include "mpo/placement.h"
#include "runner.h"

#define WAIT_SECONDS 60.0

struct loss {
    _Atomic int count;
    char text[256];
};

static void note_loss(void *argument, const char *text)
{
    struct loss *loss = argument;
    snprintf(loss->text, sizeof loss->text, "%s", text);
    loss->count++;
}

/* Groups of so many ranks, if they can be formed. */
static struct mpo_comm *form_groups(int32_t size)
{
    struct mpo_comm *comm = NULL;
    if (mpo_comm_job_size() % size == 0)
        assert_ok(mpo_placement_open_comm(size, size, &comm));
    return comm;
}

static double round_trip_of(struct mpo_lines *lines)
{
    double until = mpo_timing_now() + WAIT_SECONDS;
    while (mpo_lines_round_trip(lines) == 0.0 && mpo_timing_now() < until)
        poll(NULL, 0, 1);
    return mpo_lines_round_trip(lines);
}

static void check_waking(const struct mpo_comm *comm)
{
    struct mpo_lines *lines = NULL;
    struct loss loss = {0};
    assert_ok(mpo_lines_open(comm, &lines));
    assert_true((lines != NULL) == (mpo_comm_group_size(comm) > 1));
    if (lines != NULL && mpo_comm_group_rank(comm) == 0) {
        assert_ok(mpo_lines_watch(
            lines, &(struct mpo_lines_watch){WAIT_SECONDS, note_loss, &loss}));
        mpo_lines_wake(lines);
        assert_between(round_trip_of(lines), 1e-9, WAIT_SECONDS);
        mpo_lines_ignore(lines);
    } else if (lines != NULL) {
        assert_ok(mpo_lines_sleep(lines, WAIT_SECONDS));
        assert_status(mpo_lines_sleep(lines, 0.1), MPO_ERR_PEER); /* it was woken once */
        assert_error_names("has not responded");
    }
    assert_ok(mpo_comm_agree(MPO_OK)); /* nobody is gone before the others have seen all */
    assert_int_equal(loss.count, 0);
    mpo_lines_close(&lines);
}

static void a_root_wakes_the_ranks_of_its_group(void **state)
{
    (void)state;
    for (int32_t size = 1; size <= mpo_comm_job_size(); size++) {
        struct mpo_comm *comm = form_groups(size);
        if (comm != NULL)
            check_waking(comm);
        mpo_comm_close(&comm);
    }
}

/* The last rank of each group does not. */
static void check_silence(const struct mpo_comm *comm)
{
    struct mpo_lines *lines = NULL;
    struct loss loss = {0};
    char who[32] = "";
    int32_t last = mpo_comm_group_size(comm) - 1;
    assert_ok(mpo_lines_open(comm, &lines));
    snprintf(who, sizeof who, "rank %d has not", mpo_comm_rank(comm) + last);
    if (mpo_comm_group_rank(comm) == 0) {
        double until = mpo_timing_now() + WAIT_SECONDS;
        assert_ok(mpo_lines_watch(lines, &(struct mpo_lines_watch){1.0, note_loss, &loss}));
        mpo_lines_wake(lines);
        while (loss.count == 0 && mpo_timing_now() < until)
            poll(NULL, 0, 1);
        assert_non_null(strstr(loss.text, who));
    } else if (mpo_comm_group_rank(comm) != last) {
        assert_ok(mpo_lines_sleep(lines, WAIT_SECONDS));
    }
    assert_ok(mpo_comm_agree(MPO_OK));
    assert_true(loss.count <= 1);
    mpo_lines_close(&lines);
}

static void who_does_not_wake_up_is_named(void **state)
{
    (void)state;
    for (int32_t size = 2; size <= mpo_comm_job_size(); size++) {
        struct mpo_comm *comm = form_groups(size);
        if (comm != NULL)
            check_silence(comm);
        mpo_comm_close(&comm);
    }
}

/* As many pieces of work as the slowest rank has done: the last of the group does one less. */
static void check_work(const struct mpo_comm *comm)
{
    struct mpo_lines *lines = NULL;
    struct loss loss = {0};
    double until = mpo_timing_now() + WAIT_SECONDS;
    const int32_t pieces = 100;
    int32_t last = mpo_comm_group_size(comm) - 1;
    assert_ok(mpo_lines_open(comm, &lines));
    if (mpo_comm_group_rank(comm) == 0) {
        assert_int_equal(mpo_lines_done(lines), 0);
        assert_ok(mpo_lines_watch(
            lines, &(struct mpo_lines_watch){WAIT_SECONDS, note_loss, &loss}));
        while (mpo_lines_done(lines) < pieces - 1 && mpo_timing_now() < until)
            poll(NULL, 0, 1);
        mpo_lines_ignore(lines);
        assert_int_equal(mpo_lines_done(lines), pieces - 1);
    }
    for (int32_t i = mpo_comm_group_rank(comm) == last; i < pieces; i++)
        if (mpo_comm_group_rank(comm) > 0)
            mpo_lines_tell_done(lines);
    assert_ok(mpo_comm_agree(MPO_OK));
    assert_int_equal(loss.count, 0);
    mpo_lines_close(&lines);
}

static void work_is_done_when_every_rank_has_done_it(void **state)
{
    (void)state;
    for (int32_t size = 2; size <= mpo_comm_job_size(); size++) {
        struct mpo_comm *comm = form_groups(size);
        if (comm != NULL)
            check_work(comm);
        mpo_comm_close(&comm);
    }
}

/* Every rank sends its number to its hub. */
static void check_star(const struct mpo_comm *comm, int32_t hub)
{
    int32_t size = mpo_comm_size(comm);
    int32_t rank = mpo_comm_rank(comm);
    int *socket = runner_allocate((size_t)size, sizeof *socket);
    int32_t *hub_of = runner_allocate((size_t)size, sizeof *hub_of);
    bool are_connected = false;
    assert_ok(mpo_comm_gather(comm, &hub, sizeof hub, hub_of));
    assert_ok(mpo_comm_broadcast(comm, hub_of, (size_t)size * sizeof *hub_of, 0));
    assert_ok(mpo_star_open(comm, hub, socket, &are_connected));
    assert_true(are_connected);
    if (hub >= 0 && hub != rank)
        assert_int_equal(send(socket[hub], &rank, sizeof rank, 0), sizeof rank);
    for (int32_t other = 0; other < size; other++) {
        int32_t said = -1;
        bool is_its_hub = hub == rank && other != rank && hub_of[other] == rank;
        assert_true((socket[other] >= 0) == (is_its_hub || (hub == other && rank != hub)));
        if (is_its_hub)
            assert_int_equal(recv(socket[other], &said, sizeof said, MSG_WAITALL),
                             sizeof said);
        assert_int_equal(said, is_its_hub ? other : -1);
    }
    assert_ok(mpo_comm_agree(MPO_OK));
    for (int32_t other = 0; other < size; other++)
        if (socket[other] >= 0)
            close(socket[other]);
    free(hub_of);
    free(socket);
}

static void ranks_are_connected_with_their_hub_alone(void **state)
{
    struct mpo_comm *comm = form_groups(1);
    int32_t rank = mpo_comm_rank(comm);
    (void)state;
    check_star(comm, 0);                       /* all with rank zero */
    check_star(comm, rank % 2 == 0 ? 0 : -1);  /* the odd ones take no part */
    check_star(comm, rank - rank % 2);         /* pairs */
    check_star(comm, mpo_comm_size(comm) - 1); /* all with the last */
    mpo_comm_close(&comm);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_root_wakes_the_ranks_of_its_group),
        cmocka_unit_test(who_does_not_wake_up_is_named),
        cmocka_unit_test(work_is_done_when_every_rank_has_done_it),
        cmocka_unit_test(ranks_are_connected_with_their_hub_alone),
    };
    return run_cases_on_ranks(argc, argv, "lines", tests);
}
