/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transports of the exchange under both patterns. Logits are whole numbers that name
 * their policy, row, token and position, exact in float, so each rank's slices of rows are
 * compared for equality; a copy of all rows by the transport `self` on one rank is the same
 * numbers by construction.
 *
 * Runs on any number of ranks: groups are one rank (self), all ranks (shared, nodes,
 * mpi), and pairs or triples where the number of ranks allows it; on one host and on
 * several (support/host.sh).
 */
#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "exchange/exchange_impl.h"
#include "exchange_case.h"
#include "runner.h"

enum { VOCAB = 97, VOCAB_MAX = 3 * MPO_ROWS_BLOCK + 97, ROWS_MAX = 64, POSITIONS = 6 };

/* Row counts grow and shrink as rows finish. */
static const int32_t row_counts[POSITIONS] = {1, 64, 7, 64, 1, 0};

/* Below 2^24 for up to 8 policies: exact in float. */
static float logit_of(int32_t policy, int32_t row, int32_t token, int32_t position)
{
    return (float)(((policy * ROWS_MAX + row) * VOCAB_MAX + token) * POSITIONS + position);
}

static double norm_of(int32_t policy, int32_t row, int32_t position)
{
    return policy + 0.001 * row + 1e-6 * position;
}

/* Who reduces what: the root everything; each rank a slice, on three ranks and fewer more
 * than one block; on three and more some nothing. */
static const struct cut {
    enum mpo_pattern pattern;
    int32_t vocab_size;
} cuts[] = {{MPO_PATTERN_GATHER, VOCAB},
            {MPO_PATTERN_ALLTOALL, VOCAB_MAX},
            {MPO_PATTERN_ALLTOALL, MPO_ROWS_BLOCK + 1}};

/* What one rank hosts, laid out as policies hand it over: rows scattered in memory. */
struct hosted {
    int32_t vocab_size;
    float *values;
    const float **row;
    double *norm;
};

static void fill(struct hosted *hosted, int32_t first, int32_t count, int32_t row_count,
                 int32_t position)
{
    for (int32_t k = 0; k < count; k++)
        for (int32_t b = 0; b < row_count; b++) {
            float *row =
                hosted->values + (k * ROWS_MAX + ROWS_MAX - 1 - b) * hosted->vocab_size;
            for (int32_t v = 0; v < hosted->vocab_size; v++)
                row[v] = logit_of(first + k, b, v, position);
            hosted->row[k * row_count + b] = row;
            hosted->norm[k * row_count + b] = norm_of(first + k, b, position);
        }
}

/* Tokens first .. first + count - 1 of all rows. */
static void check_rows(const struct mpo_rows *rows, int32_t policy_count, int32_t position,
                       int32_t first, int32_t count)
{
    assert_int_equal(rows->row_count, count > 0 ? row_counts[position] : 0);
    for (int32_t h = 0; h < policy_count; h++)
        for (int32_t b = 0; b < rows->row_count; b++) {
            const float *row = rows->logits[h * rows->row_count + b];
            assert_same_bits(rows->log_norm[h * rows->row_count + b],
                             norm_of(h, b, position));
            for (int32_t v = 0; v < count; v++)
                assert_true(row[v] == logit_of(h, b, first + v, position));
        }
}

/* Every other rank with a slice tells the root that it has read: its own number. */
static void check_parts(struct mpo_exchange *exchange, const struct mpo_comm *comm)
{
    double table[8] = {0.0};
    size_t start[9] = {0};
    int32_t size = mpo_comm_group_size(comm);
    int32_t own = mpo_comm_group_rank(comm);
    const int32_t *first = mpo_exchange_slices(exchange);
    for (int32_t rank = 0; rank < size; rank++)
        start[rank + 1] = start[rank] + (rank > 0 && first[rank + 1] > first[rank]);
    if (start[own + 1] > start[own])
        table[start[own]] = own;
    assert_ok(mpo_exchange_parts(exchange, table, start));
    for (int32_t rank = 1; own == 0 && rank < size; rank++)
        if (start[rank + 1] > start[rank])
            assert_true(table[start[rank]] == rank);
}

static void check_tokens(struct mpo_exchange *exchange, const struct mpo_comm *comm,
                         int32_t row_count, int32_t position)
{
    int32_t token[ROWS_MAX];
    bool is_root = mpo_comm_group_rank(comm) == 0;
    for (int32_t b = 0; b < row_count; b++)
        token[b] = is_root ? mpo_comm_group(comm) * 100000 + b * 100 + position : -1;
    assert_ok(mpo_exchange_broadcast(exchange, token, (size_t)row_count * sizeof *token));
    for (int32_t b = 0; b < row_count; b++)
        assert_int_equal(token[b], mpo_comm_group(comm) * 100000 + b * 100 + position);
}

/* All positions of one exchange of H policies. */
static void run_positions(struct mpo_exchange *exchange, const struct mpo_comm *comm,
                          int32_t policy_count, int32_t vocab_size)
{
    int32_t first = 0;
    int32_t count = 0;
    int32_t rank = mpo_comm_group_rank(comm);
    mpo_placement_block(mpo_exchange_placement(exchange), rank, &first, &count);
    size_t rows = (size_t)count * ROWS_MAX;
    struct hosted hosted = {
        vocab_size, runner_allocate(rows * (size_t)vocab_size, sizeof(float)),
        runner_allocate(rows, sizeof(float *)), runner_allocate(rows, sizeof(double))};
    int32_t slice = mpo_exchange_slices(exchange)[rank] * MPO_ROWS_BLOCK;
    for (int32_t round = 0; round < 3 * POSITIONS; round++) {
        int32_t position = round % POSITIONS;
        int32_t row_count = row_counts[position];
        struct mpo_rows out;
        fill(&hosted, first, count, row_count, position);
        assert_ok(mpo_exchange_rows(exchange, row_count, hosted.row, hosted.norm, &out));
        check_rows(&out, policy_count, position, slice,
                   exchange_case_tokens(exchange, rank, vocab_size));
        check_parts(exchange, comm);
        check_tokens(exchange, comm, row_count, position);
    }
    free(hosted.norm);
    free(hosted.row);
    free(hosted.values);
}

/* Every cut, over groups of P ranks; P = 0: the default. */
static void run_exchange(const char *transport, int32_t policy_count, int32_t group_size)
{
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct mpo_comm *comm = NULL;
        struct mpo_exchange *exchange = NULL;
        assert_ok(mpo_placement_open_comm(policy_count, group_size, &comm));
        const struct mpo_exchange_spec spec = {.transport = transport,
                                               .pattern = cuts[i].pattern,
                                               .placement =
                                                   mpo_placement_of(policy_count, comm),
                                               .row_capacity = ROWS_MAX,
                                               .vocab_size = cuts[i].vocab_size};
        assert_ok(mpo_exchange_open(&spec, comm, &exchange));
        if (strcmp(transport, "auto") != 0)
            assert_string_equal(mpo_exchange_transport(exchange), transport);
        assert_int_equal(mpo_exchange_pattern(exchange), cuts[i].pattern);
        run_positions(exchange, comm, policy_count, cuts[i].vocab_size);
        mpo_exchange_close(&exchange);
        assert_null(exchange);
        mpo_comm_close(&comm);
    }
}

static void self_hands_on_the_rows_of_its_own_policies(void **state)
{
    (void)state;
    run_exchange("self", 1, 1);
    run_exchange("self", 3, 1);
    run_exchange("self", 8, 1);
}

/* H = W, and H = W + 1 and more, where blocks are uneven. */
static void run_over_all_ranks(const char *transport)
{
    int32_t size = mpo_comm_job_size();
    if (size == 1 || !exchange_case_serves(transport, size))
        skip();
    for (int32_t policy_count = size; policy_count <= 8; policy_count++)
        run_exchange(transport, policy_count, size);
}

static void shared_brings_every_row_to_who_reduces_it(void **state)
{
    (void)state;
    run_over_all_ranks("shared");
}

static void nodes_brings_every_row_to_who_reduces_it(void **state)
{
    (void)state;
    run_over_all_ranks("nodes");
}

static void mpi_brings_every_row_to_who_reduces_it(void **state)
{
    (void)state;
    run_over_all_ranks("mpi");
}

static void auto_brings_every_row_to_who_reduces_it(void **state)
{
    (void)state;
    for (int32_t policy_count = mpo_comm_job_size(); policy_count <= 8; policy_count++)
        run_exchange("auto", policy_count, 0);
}

static void groups_do_not_hear_each_other(void **state)
{
    (void)state;
    static const char *const transports[3] = {"shared", "nodes", "mpi"};
    int32_t size = mpo_comm_job_size();
    bool ran = false;
    for (int32_t group_size = 2; group_size <= 3; group_size++)
        for (int32_t i = 0; i < 3; i++) {
            if (size % group_size != 0 || size == group_size ||
                !exchange_case_serves(transports[i], group_size))
                continue;
            run_exchange(transports[i], 3, group_size);
            run_exchange(transports[i], 5, group_size);
            ran = true;
        }
    if (!ran)
        skip();
}

static void refuse(const char *transport, int32_t group_size, enum mpo_status expected)
{
    struct mpo_comm *comm = NULL;
    struct mpo_exchange *exchange = NULL;
    assert_ok(mpo_placement_open_comm(8, group_size, &comm));
    const struct mpo_exchange_spec spec = {.transport = transport,
                                           .pattern = MPO_PATTERN_GATHER,
                                           .placement = mpo_placement_of(8, comm),
                                           .row_capacity = 4,
                                           .vocab_size = VOCAB};
    assert_status(mpo_exchange_open(&spec, comm, &exchange), expected);
    assert_error_names(transport);
    assert_null(exchange);
    mpo_comm_close(&comm);
}

static void transports_that_cannot_serve_the_group_are_refused(void **state)
{
    (void)state;
    refuse("pigeon", 0, MPO_ERR_DEVICE);
    if (mpo_comm_job_size() > 1) {
        refuse("self", mpo_comm_job_size(), MPO_ERR_CONFIG);
    } else {
        refuse("shared", 1, MPO_ERR_CONFIG);
        refuse("nodes", 1, MPO_ERR_CONFIG);
        refuse("mpi", 1, MPO_ERR_CONFIG);
    }
}

static void patterns_that_do_not_exist_are_refused(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    struct mpo_exchange *exchange = NULL;
    assert_ok(mpo_placement_open_comm(8, 0, &comm));
    const struct mpo_exchange_spec spec = {.transport = "auto",
                                           .pattern = (enum mpo_pattern)99,
                                           .placement = mpo_placement_of(8, comm),
                                           .row_capacity = 64,
                                           .vocab_size = 1 << 20};
    assert_status(mpo_exchange_open(&spec, comm, &exchange), MPO_ERR_CONFIG);
    assert_error_names("99");
    mpo_comm_close(&comm);
}

/* Many logits are worth sharing, few are not. */
static void auto_takes_the_pattern_that_was_measured_faster(void **state)
{
    (void)state;
    static const struct {
        int32_t row_capacity;
        enum mpo_pattern pattern;
    } cases[] = {{1, MPO_PATTERN_GATHER}, {64, MPO_PATTERN_ALLTOALL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mpo_comm *comm = NULL;
        struct mpo_exchange_plan plan;
        assert_ok(mpo_placement_open_comm(8, 0, &comm));
        const struct mpo_exchange_spec spec = {.transport = "auto",
                                               .pattern = MPO_PATTERN_AUTO,
                                               .placement = mpo_placement_of(8, comm),
                                               .row_capacity = cases[i].row_capacity,
                                               .vocab_size = 8192};
        assert_ok(mpo_exchange_survey(&spec, comm, &plan));
        bool is_alone = mpo_comm_group_size(comm) == 1;
        assert_int_equal(plan.pattern, is_alone ? MPO_PATTERN_GATHER : cases[i].pattern);
        mpo_comm_close(&comm);
    }
}

/* Local: what auto takes on both sides of its limits, for ranks with the CPU's rows and with
 * devices', on one host and on several. */
static void auto_changes_the_pattern_at_its_limits(void **state)
{
    (void)state;
    static const enum mpo_pattern pattern[] = {MPO_PATTERN_GATHER, MPO_PATTERN_ALLTOALL};
    static const struct {
        int32_t policy_count;
        int32_t row_count;
        int32_t vocab_size;
        bool on_device;
        bool near; /* whether it is alltoall on one host */
        bool far;
    } cases[] = {
        {2, 1, 49152, false, false, false}, {2, 2, 49152, false, true, true},
        {8, 1, 49152, false, false, false}, {8, 2, 49152, false, true, true},
        {2, 1, 151936, false, true, true},  {2, 8, 151936, true, false, false},
        {2, 10, 151936, true, false, true}, {2, 65, 151936, true, false, true},
        {2, 66, 151936, true, true, true},  {8, 2, 151936, true, false, false},
        {8, 3, 151936, true, false, true},  {8, 16, 151936, true, false, true},
        {8, 17, 151936, true, true, true},  {4, 16, 131072, true, false, true},
        {2, 16, 131072, true, false, true}, {2, 64, 32768, true, false, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mpo_exchange_spec spec = {
            .transport = "auto",
            .pattern = MPO_PATTERN_AUTO,
            .placement = {.policy_count = cases[i].policy_count},
            .row_capacity = cases[i].row_count,
            .vocab_size = cases[i].vocab_size,
            .rows_on_device = cases[i].on_device};
        const struct mpo_exchange_site near = {2, true};
        const struct mpo_exchange_site far = {2, false};
        const struct mpo_exchange_site alone = {1, true};
        enum mpo_pattern expected = pattern[cases[i].far];
        assert_int_equal(mpo_exchange_choose(&spec, &near).pattern, pattern[cases[i].near]);
        assert_int_equal(mpo_exchange_choose(&spec, &far).pattern, expected);
        assert_int_equal(mpo_exchange_choose(&spec, &alone).pattern, MPO_PATTERN_GATHER);
        spec.usual_rows = spec.row_capacity; /* for devices most positions count */
        spec.row_capacity = cases[i].on_device ? 10000 : spec.row_capacity;
        assert_int_equal(mpo_exchange_choose(&spec, &far).pattern, expected);
    }
}

static void more_rows_than_there_is_room_for_are_refused(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    struct mpo_exchange *exchange = NULL;
    struct mpo_rows rows;
    assert_ok(mpo_placement_open_comm(1, 1, &comm));
    const struct mpo_exchange_spec spec = {.transport = "self",
                                           .pattern = MPO_PATTERN_GATHER,
                                           .placement = mpo_placement_of(1, comm),
                                           .row_capacity = 2,
                                           .vocab_size = VOCAB};
    const float *row[3] = {NULL};
    const double norm[3] = {0};
    assert_ok(mpo_exchange_open(&spec, comm, &exchange));
    assert_status(mpo_exchange_rows(exchange, 3, row, norm, &rows), MPO_ERR_USAGE);
    assert_status(mpo_exchange_post(exchange, 3, row), MPO_ERR_USAGE);
    assert_status(mpo_exchange_post(exchange, -1, row), MPO_ERR_USAGE);
    assert_error_names("expected row_count 0 to 2, its row_capacity, found -1");
    mpo_exchange_close(&exchange);
    mpo_comm_close(&comm);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(self_hands_on_the_rows_of_its_own_policies),
        cmocka_unit_test(shared_brings_every_row_to_who_reduces_it),
        cmocka_unit_test(nodes_brings_every_row_to_who_reduces_it),
        cmocka_unit_test(mpi_brings_every_row_to_who_reduces_it),
        cmocka_unit_test(auto_brings_every_row_to_who_reduces_it),
        cmocka_unit_test(groups_do_not_hear_each_other),
        cmocka_unit_test(transports_that_cannot_serve_the_group_are_refused),
        cmocka_unit_test(patterns_that_do_not_exist_are_refused),
        cmocka_unit_test(auto_takes_the_pattern_that_was_measured_faster),
        cmocka_unit_test(auto_changes_the_pattern_at_its_limits),
        cmocka_unit_test(more_rows_than_there_is_room_for_are_refused),
    };
    return run_cases_on_ranks(argc, argv, "exchange", tests);
}
