/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time a position of the mixture on the CPU, combining and one draw a row: with one vector
 * of exponents for all rows, with one for each, without expectations, and the most probable
 * tokens of each row. The ways take turns, so that what else the machine does meets all
 * alike; the figure is the least of all rounds.
 *
 *     cmake --build build --target mixture_rows && build/tests/mixture_rows [V B ROUNDS]
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/timing.h"
#include "mixture_case.h"
#include "runner.h"

enum way { ONE_VECTOR, A_VECTOR_A_ROW, NO_EXPECTATION, WITH_LISTS, WAY_COUNT };

static const char *const way_name[WAY_COUNT] = {"one vector for all rows", "a vector a row",
                                                "without expectations", "with lists of 20"};

struct draws {
    int32_t *row;
    enum mpo_mixture_kind *kind;
    double *uniform;
    int32_t *token;
    double *log_proposal;
    double *log_policy;
};

static struct draws make_draws(const struct mixture_case *some)
{
    size_t rows = (size_t)some->row_count;
    size_t policies = (size_t)some->policy_count;
    struct draws draws = {.row = runner_allocate(rows, sizeof(int32_t)),
                          .kind = runner_allocate(rows, sizeof *draws.kind),
                          .uniform = runner_allocate(rows, sizeof(double)),
                          .token = runner_allocate(rows, sizeof(int32_t)),
                          .log_proposal = runner_allocate(rows, sizeof(double)),
                          .log_policy = runner_allocate(rows * policies, sizeof(double))};
    for (size_t i = 0; i < rows; i++) {
        draws.row[i] = (int32_t)i;
        draws.kind[i] = MPO_MIXTURE_DRAWN;
        draws.uniform[i] = runner_uniform(7, i);
    }
    return draws;
}

/* Seconds of one position. */
static double take_position(struct mixture_case *some, const struct draws *own,
                            enum way way)
{
    int32_t token[20];
    double *expectation = way == NO_EXPECTATION ? NULL : some->expectation;
    struct mpo_mixture_draws draws = {.count = some->row_count,
                                      .row = own->row,
                                      .kind = own->kind,
                                      .uniform = own->uniform,
                                      .token = own->token,
                                      .log_proposal = own->log_proposal,
                                      .log_policy = own->log_policy};
    some->varies = way == A_VECTOR_A_ROW;
    mixture_case_set(some);
    double start = mpo_timing_now();
    assert_ok(mpo_mixture_combine(some->mixture, &some->rows, &some->exponents,
                                  some->moments, expectation));
    assert_ok(mpo_mixture_draw(some->mixture, &draws));
    for (int32_t row = 0; way == WITH_LISTS && row < some->row_count; row++)
        assert_ok(mpo_mixture_top(some->mixture, row, 20, token));
    return mpo_timing_now() - start;
}

static void measure(int32_t policy_count, int32_t vocab_size, int32_t row_count,
                    int32_t rounds)
{
    struct mixture_case some;
    double least[WAY_COUNT] = {1e9, 1e9, 1e9, 1e9};
    mixture_case_make(&some, policy_count, row_count, vocab_size, 8.0);
    some.device = "cpu";
    mixture_case_run(&some);
    struct draws draws = make_draws(&some);
    for (int32_t round = 0; round < rounds; round++)
        for (int32_t way = 0; way < WAY_COUNT; way++) {
            double seconds = take_position(&some, &draws, way);
            least[way] = seconds < least[way] ? seconds : least[way];
        }
    for (int32_t way = 0; way < WAY_COUNT; way++)
        printf("%d\t%d\t%d\t%.3f\t%.3f\t%s\n", policy_count, vocab_size, row_count,
               1e3 * least[way], least[ONE_VECTOR] / least[way], way_name[way]);
    mixture_case_free(&some);
}

int main(int argc, char **argv)
{
    int32_t vocab_size = argc > 1 ? (int32_t)atol(argv[1]) : 49152;
    int32_t row_count = argc > 2 ? (int32_t)atol(argv[2]) : 16;
    int32_t rounds = argc > 3 ? (int32_t)atol(argv[3]) : 200;
    printf("# H\tV\trows\tms\tspeed\tway\n");
    measure(2, vocab_size, row_count, rounds);
    measure(8, vocab_size, row_count, rounds);
    return 0;
}
