/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks, groups and agreement, on however many ranks the program is started with. Expected
 * values are computed from the rank.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/resource.h>

#include "mpo/comm.h"
#include "mpo/placement.h"
#include "base/timing.h"
#include "comm/comm_mpi.h"
#include "runner.h"

enum { TEXT_BYTES = 8192, RANKS_MAX = 64 };

/* The host of every rank of the job, one letter each. tests/support/host.sh names it. */
static void list_hosts(char host[RANKS_MAX])
{
    struct mpo_comm *comm = NULL;
    const char *own = getenv("MPO_TEST_HOST");
    assert_in_range(mpo_comm_job_size(), 1, RANKS_MAX);
    assert_ok(mpo_placement_open_comm(1, 1, &comm));
    assert_ok(mpo_comm_gather(comm, own != NULL ? own : "a", 1, host));
    assert_ok(mpo_comm_broadcast(comm, host, RANKS_MAX, 0));
    mpo_comm_close(&comm);
}

/* Ranks first .. end - 1 on the host of rank `of`. */
static int32_t count_on_host(const char *host, int32_t of, int32_t first, int32_t end)
{
    int32_t count = 0;
    for (int32_t rank = first; rank < end; rank++)
        count += host[rank] == host[of];
    return count;
}

/* Every rank asks for one more than the rank before it. */
static void check_local_sum(const struct mpo_comm *comm, const char *host)
{
    int32_t rank = mpo_comm_rank(comm);
    int32_t expected = 0;
    int32_t before = -1;
    for (int32_t other = 0; other < rank; other++)
        expected += host[other] == host[rank] ? other + 1 : 0;
    assert_ok(mpo_comm_local_before(comm, rank + 1, &before));
    assert_int_equal(before, expected);
}

/* Ranks pass whether their number is odd. */
static void check_local_same(const struct mpo_comm *comm, const char *host)
{
    int32_t rank = mpo_comm_rank(comm);
    int32_t expected = 0;
    int32_t count = -1;
    for (int32_t other = 0; other < mpo_comm_size(comm); other++)
        expected += host[other] == host[rank] && other % 2 == rank % 2;
    assert_ok(mpo_comm_local_same(comm, (uint64_t)rank % 2, &count));
    assert_int_equal(count, expected);
}

/* The leader of each rank of a group: the first of the group on its host. */
static void check_leaders(const struct mpo_comm *comm, const char *host)
{
    int32_t first = mpo_comm_group(comm) * mpo_comm_group_size(comm);
    bool shares = true;
    for (int32_t rank = 0; rank < mpo_comm_group_size(comm); rank++) {
        int32_t expected = 0;
        while (host[first + expected] != host[first + rank])
            expected++;
        assert_int_equal(mpo_comm_group_leader(comm, rank), expected);
        shares = shares && expected == 0;
    }
    assert_int_equal(mpo_comm_group_shares_host(comm), shares);
}

static void groups_are_neighbouring_ranks_of_equal_number(void **state)
{
    (void)state;
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    char host[RANKS_MAX] = "";
    list_hosts(host);
    for (int32_t group_size = 1; group_size <= size; group_size++) {
        struct mpo_comm *comm = NULL;
        if (size % group_size != 0)
            continue;
        assert_ok(mpo_placement_open_comm(size + 1, group_size, &comm));
        assert_int_equal(mpo_comm_rank(comm), rank);
        assert_int_equal(mpo_comm_size(comm), size);
        assert_int_equal(mpo_comm_group_size(comm), group_size);
        assert_int_equal(mpo_comm_group_count(comm), size / group_size);
        assert_int_equal(mpo_comm_group(comm), rank / group_size);
        assert_int_equal(mpo_comm_group_rank(comm), rank % group_size);
        assert_int_equal(mpo_comm_local_rank(comm), count_on_host(host, rank, 0, rank));
        assert_int_equal(mpo_comm_local_size(comm), count_on_host(host, rank, 0, size));
        check_local_sum(comm, host);
        check_local_same(comm, host);
        check_leaders(comm, host);
        mpo_comm_close(&comm);
        assert_null(comm);
    }
}

static void default_is_one_group_up_to_one_rank_a_policy(void **state)
{
    (void)state;
    int32_t size = mpo_comm_job_size();
    for (int32_t policy_count = 1; policy_count <= 9; policy_count++) {
        struct mpo_comm *comm = NULL;
        if (size > policy_count && size % policy_count != 0)
            continue;
        assert_ok(mpo_placement_open_comm(policy_count, 0, &comm));
        int32_t expected = size <= policy_count ? size : policy_count;
        assert_int_equal(mpo_comm_group_size(comm), expected);
        assert_int_equal(mpo_comm_group_count(comm), size / expected);
        mpo_comm_close(&comm);
    }
}

static void policies_are_hosted_in_contiguous_even_blocks(void **state)
{
    (void)state;
    int32_t size = mpo_comm_job_size();
    for (int32_t policy_count = size; policy_count <= 20; policy_count++) {
        struct mpo_comm *comm = NULL;
        int32_t next = 0;
        assert_ok(mpo_placement_open_comm(policy_count, size, &comm));
        struct mpo_placement placement = mpo_placement_of(policy_count, comm);
        for (int32_t rank = 0; rank < size; rank++) {
            int32_t first = -1;
            int32_t count = -1;
            mpo_placement_block(&placement, rank, &first, &count);
            assert_int_equal(first, next);
            assert_in_range(count, policy_count / size, (policy_count + size - 1) / size);
            for (int32_t h = first; h < first + count; h++)
                assert_int_equal(mpo_placement_host(&placement, h), rank);
            next += count;
        }
        assert_int_equal(next, policy_count);
        mpo_comm_close(&comm);
    }
}

/* "4 or 6 ranks" names 4 and 6; "14" does not name 4. */
static bool text_has_number(const char *text, int32_t number)
{
    char wanted[16];
    int length = snprintf(wanted, sizeof wanted, "%d", number);
    for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted)) {
        bool starts = at == text || at[-1] < '0' || at[-1] > '9';
        bool ends = at[length] < '0' || at[length] > '9';
        if (starts && ends)
            return true;
    }
    return false;
}

static void numbers_of_ranks_that_do_not_fit_name_the_next_ones_that_do(void **state)
{
    (void)state;
    int32_t size = mpo_comm_job_size();
    bool ran = false;
    for (int32_t group_size = 2; group_size <= 2 * size; group_size++) {
        struct mpo_comm *comm = NULL;
        if (size % group_size == 0)
            continue;
        int32_t below = size / group_size * group_size;
        assert_status(mpo_placement_open_comm(2 * size, group_size, &comm), MPO_ERR_USAGE);
        assert_null(comm);
        assert_true(text_has_number(mpo_error_text(), below + group_size));
        if (below > 0)
            assert_true(text_has_number(mpo_error_text(), below));
        ran = true;
    }
    if (!ran)
        skip();
}

static void default_groups_that_do_not_fit_name_the_next_sizes_that_do(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    int32_t size = mpo_comm_job_size();
    if (size < 3)
        skip();
    assert_status(mpo_placement_open_comm(size - 1, 0, &comm), MPO_ERR_USAGE);
    assert_null(comm);
    assert_true(text_has_number(mpo_error_text(), size - 1));
    assert_true(text_has_number(mpo_error_text(), 2 * (size - 1)));
}

static void groups_larger_than_the_policies_are_refused(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    assert_status(mpo_placement_open_comm(2, 3, &comm), MPO_ERR_CONFIG);
    assert_error_names("ranks_per_group");
    assert_null(comm);
}

/* ---- agreement ---- */

/* Run mpo_comm_agree with standard error going to a file, which is then read into text. */
static enum mpo_status agree_and_listen(enum mpo_status own, char text[TEXT_BYTES])
{
    FILE *heard = tmpfile();
    assert_non_null(heard);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    assert_true(kept >= 0 && dup2(fileno(heard), STDERR_FILENO) >= 0);
    enum mpo_status agreed = mpo_comm_agree(own);
    fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    rewind(heard);
    size_t length = fread(text, 1, TEXT_BYTES - 1, heard);
    text[length] = '\0';
    fclose(heard);
    return agreed;
}

static int32_t count_lines_with(const char *text, const char *word)
{
    int32_t count = 0;
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word))
        count++;
    return count;
}

static void agreement_on_success_says_nothing(void **state)
{
    (void)state;
    char text[TEXT_BYTES];
    assert_int_equal(agree_and_listen(MPO_OK, text), MPO_OK);
    assert_string_equal(text, "");
}

static void one_failure_is_everybodys_and_printed_once(void **state)
{
    (void)state;
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    for (int32_t failing = 0; failing < size; failing++) {
        char text[TEXT_BYTES];
        enum mpo_status own = rank == failing ? MPO_ERR_INPUT : MPO_OK;
        mpo_error_set(rank == failing ? "model.gguf is missing" : "an old text");
        assert_int_equal(agree_and_listen(own, text), MPO_ERR_INPUT);
        assert_int_equal(count_lines_with(text, "model.gguf is missing"), rank == 0);
        assert_int_equal(count_lines_with(text, "an old text"), 0);
        if (rank == 0 && size > 1)
            assert_true(text_has_number(text, failing));
        assert_error_names("model.gguf is missing");
    }
}

static void the_same_failure_everywhere_is_printed_once(void **state)
{
    (void)state;
    char text[TEXT_BYTES];
    mpo_error_set("the configuration is wrong in line 3");
    assert_int_equal(agree_and_listen(MPO_ERR_CONFIG, text), MPO_ERR_CONFIG);
    assert_int_equal(count_lines_with(text, "line 3"), mpo_comm_job_rank() == 0);
}

static void one_failure_of_several_ranks_is_printed_once_with_all_of_them(void **state)
{
    (void)state;
    char text[TEXT_BYTES];
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    if (size < 3)
        skip();
    mpo_error_set("no such model");
    enum mpo_status own = rank == 0 ? MPO_OK : MPO_ERR_INPUT;
    assert_int_equal(agree_and_listen(own, text), MPO_ERR_INPUT);
    assert_int_equal(count_lines_with(text, "no such model"), rank == 0);
    for (int32_t failing = 1; failing < size && rank == 0; failing++)
        assert_true(text_has_number(text, failing));
}

static void lowest_failing_rank_decides_and_every_text_is_printed(void **state)
{
    (void)state;
    char text[TEXT_BYTES];
    char own_text[64];
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    if (size < 3)
        skip();
    enum mpo_status own = rank == 0 ? MPO_OK : rank == 1 ? MPO_ERR_MEMORY : MPO_ERR_DATA;
    snprintf(own_text, sizeof own_text, "%s", rank == 1 ? "no memory" : "bad data");
    mpo_error_set(own_text);
    assert_int_equal(agree_and_listen(own, text), MPO_ERR_MEMORY);
    assert_int_equal(count_lines_with(text, "no memory"), rank == 0);
    assert_int_equal(count_lines_with(text, "bad data"), rank == 0);
    assert_error_names("no memory");
}

/* ---- data ---- */

static void broadcasts_reach_their_ranks_and_no_other(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    int32_t size = mpo_comm_job_size();
    int32_t group_size = size % 3 == 0 && size > 3 ? 3 : size;
    assert_ok(mpo_placement_open_comm(size, group_size, &comm));
    for (int32_t root = 0; root < size; root++) {
        int64_t value[3] = {0};
        if (mpo_comm_rank(comm) == root)
            value[0] = value[2] = root + 1000;
        assert_ok(mpo_comm_broadcast(comm, value, sizeof value, root));
        assert_int_equal(value[0], root + 1000);
        assert_int_equal(value[2], root + 1000);
    }
    int64_t mine = mpo_comm_rank(comm);
    assert_ok(mpo_comm_group_broadcast(comm, &mine, sizeof mine));
    assert_int_equal(mine, mpo_comm_group(comm) * group_size);
    mpo_comm_close(&comm);
}

static void gather_orders_bytes_by_rank(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    assert_ok(mpo_placement_open_comm(size, 0, &comm));
    const int32_t own[2] = {rank * 7, -rank};
    int32_t *all = runner_allocate((size_t)size, sizeof own);
    assert_ok(mpo_comm_gather(comm, own, sizeof own, rank == 0 ? all : NULL));
    for (int32_t r = 0; r < size && rank == 0; r++) {
        assert_int_equal(all[2 * r], r * 7);
        assert_int_equal(all[2 * r + 1], -r);
    }
    free(all);
    mpo_comm_close(&comm);
}

static void send_moves_bytes_between_two_ranks_only(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    assert_ok(mpo_placement_open_comm(size, 0, &comm));
    for (int32_t from = 0; from < size; from++)
        for (int32_t to = 0; to < size; to++) {
            int32_t value = rank == from ? from * 10 + to : -1;
            if (rank == from || rank == to)
                assert_ok(mpo_comm_send(comm, from, to, &value, sizeof value));
            if (rank == to)
                assert_int_equal(value, from * 10 + to);
            else
                assert_int_equal(value, rank == from ? from * 10 + to : -1);
        }
    mpo_comm_close(&comm);
}

static void reductions_are_element_by_element_on_every_rank(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    int32_t size = mpo_comm_job_size();
    int32_t rank = mpo_comm_job_rank();
    assert_ok(mpo_placement_open_comm(size, 0, &comm));
    double most[2] = {rank, -rank};
    double least[2] = {rank, -rank};
    uint8_t bits[2] = {(uint8_t)(1 << rank), 0};
    assert_ok(mpo_comm_max(comm, most, 2));
    assert_ok(mpo_comm_min(comm, least, 2));
    assert_ok(mpo_comm_or(comm, bits, 2));
    assert_close(most[0], size - 1, 0.0);
    assert_close(most[1], 0.0, 0.0);
    assert_close(least[0], 0.0, 0.0);
    assert_close(least[1], 1 - size, 0.0);
    assert_int_equal(bits[0], (1 << size) - 1);
    assert_int_equal(bits[1], 0);
    mpo_comm_close(&comm);
}

static enum mpo_status has_come(void *self, bool *done)
{
    *done = mpo_timing_now() > *(double *)self;
    return MPO_OK;
}

/* How often this process gave up its core by itself in a wait, and whether it was taken. */
static long sleeps_in_wait(double seconds, bool *taken)
{
    struct rusage before;
    struct rusage after;
    double end = mpo_timing_now() + seconds;
    getrusage(RUSAGE_SELF, &before);
    assert_ok(mpo_comm_wait_for(&(struct mpo_comm_event){
        .test = has_come, .self = &end, .what = "nothing", .advice = "Look at the clock"}));
    getrusage(RUSAGE_SELF, &after);
    *taken = after.ru_nivcsw != before.ru_nivcsw;
    return after.ru_nvcsw - before.ru_nvcsw;
}

/* Whether it comes to wait as told. On a busy machine most waits show nothing of this rank: it
 * may have no core to spin on. */
static bool waits(double seconds, bool with_sleep)
{
    double until = mpo_timing_now() + 60.0;
    bool taken = false;
    long sleeps = 0;
    do {
        sleeps = sleeps_in_wait(seconds, &taken);
        if (with_sleep ? sleeps > 0 : sleeps == 0 && !taken)
            return true;
    } while (mpo_timing_now() < until);
    return false;
}

/* Last, because there is no way back. */
static void a_rank_with_a_core_of_its_own_sleeps_later(void **state)
{
    (void)state;
    assert_true(waits(1e-3, true));
    mpo_comm_own_core();
    assert_true(waits(50e-3, true));
    assert_true(waits(1e-3, false));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_neighbouring_ranks_of_equal_number),
        cmocka_unit_test(default_is_one_group_up_to_one_rank_a_policy),
        cmocka_unit_test(policies_are_hosted_in_contiguous_even_blocks),
        cmocka_unit_test(numbers_of_ranks_that_do_not_fit_name_the_next_ones_that_do),
        cmocka_unit_test(default_groups_that_do_not_fit_name_the_next_sizes_that_do),
        cmocka_unit_test(groups_larger_than_the_policies_are_refused),
        cmocka_unit_test(agreement_on_success_says_nothing),
        cmocka_unit_test(one_failure_is_everybodys_and_printed_once),
        cmocka_unit_test(the_same_failure_everywhere_is_printed_once),
        cmocka_unit_test(one_failure_of_several_ranks_is_printed_once_with_all_of_them),
        cmocka_unit_test(lowest_failing_rank_decides_and_every_text_is_printed),
        cmocka_unit_test(broadcasts_reach_their_ranks_and_no_other),
        cmocka_unit_test(gather_orders_bytes_by_rank),
        cmocka_unit_test(send_moves_bytes_between_two_ranks_only),
        cmocka_unit_test(reductions_are_element_by_element_on_every_rank),
        cmocka_unit_test(a_rank_with_a_core_of_its_own_sleeps_later),
    };
    return run_cases_on_ranks(argc, argv, "comm", tests);
}
