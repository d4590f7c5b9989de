/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where filters cut on CUDA: rows in which a cut is hard to find, against the CPU, and how
 * often a draw reads its row.
 *
 *     test_mixture_select [small | usual | large]
 *
 * Most rows fall or rise with the token, so that the last token that is kept, or the first
 * one, is what a uniform of nearly 1, or of 0, draws. Simulated devices count what is read.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "device_suite.h"
#include "mixture_case.h"
#include "runner.h"

#define UNIFORMS 6

/* Of a simulated device; a real one has none (support/hostsim/cudart.h). */
__attribute__((weak)) uint64_t cudart_take_reads(void);

static int32_t uniform_count = UNIFORMS; /* that are tried */
static int32_t vocab_size = 151552;      /* a multiple of what a group reads at a time */

/* ---- rows ---- */

static float equal(int32_t v)
{
    (void)v;
    return 0.0f;
}

/* Five kinds of ties, each all over the vocabulary. */
static float groups(int32_t v)
{
    return -0.5f * (float)(v * 7 % 5);
}

static float spread(int32_t v)
{
    return -0.01f * (float)v;
}

static float rising(int32_t v)
{
    return 0.01f * (float)(v - vocab_size);
}

/* All within a bin of the first pass, and of the second one. */
static float fine(int32_t v)
{
    return ldexpf(-(float)v, -36);
}

/* The last bits of the weights: their neighbours in exp's last one do not meet. */
static float finest(int32_t v)
{
    return ldexpf((float)(v - vocab_size), -48);
}

/* A few that are probable, and many ties that are not: with top_k both are cut. */
static float shelf(int32_t v)
{
    return v % 97 == 0 ? -0.001f * (float)(v % 1000) : -9.0f;
}

/* One that is probable, and others beyond the bins of the first pass. */
static float far(int32_t v)
{
    return v == vocab_size - 3 ? 0.0f : -50.0f - 0.001f * (float)v;
}

/* How often a draw may read its row, with one filter and with two. */
struct shape {
    float (*logit)(int32_t v);
    double one;
    double two;
};

static const struct shape shapes[] = {
    {equal, 3.1, 5.1}, {groups, 3.1, 5.1}, {spread, 3.0, 5.0}, {rising, 3.0, 5.0},
    {fine, 4.0, 7.0},  {finest, 4.0, 7.0}, {shelf, 3.1, 5.1},  {far, 4.0, 7.0},
};

/* A share of the row is never one at which a cumulative sum of ties is. */
static const struct mpo_mixture_filter filters[] = {
    {1.0, 1, 1.0, 0.0},   {1.0, 2, 1.0, 0.0},       {1.0, 255, 1.0, 0.0},
    {1.0, 256, 1.0, 0.0}, {1.0, 257, 1.0, 0.0},     {1.0, 777, 1.0, 0.0},
    {1.0, 0, 1e-9, 0.0},  {1.0, 0, 0.30013, 0.0},   {1.0, 0, 0.90017, 0.0},
    {1.0, 777, 0.5, 0.0}, {1.0, 300, 0.99907, 0.0}, {0.7, 1500, 0.7003, 0.01},
};

/* ---- draws ---- */

static void draw_at(struct mixture_case *self, const struct mpo_mixture_filter *filter,
                    int32_t token[UNIFORMS])
{
    static const double uniform[UNIFORMS] = {0.0,   1.0 - 0x1p-53, 0.137,
                                             0.401, 0.733,         0.957};
    static const int32_t row[UNIFORMS];
    enum mpo_mixture_kind kind[UNIFORMS];
    const struct mpo_mixture_rule rule = {.filter = *filter};
    const struct mpo_mixture_rule *rules[UNIFORMS];
    double log_proposal[UNIFORMS];
    double log_policy[UNIFORMS];
    for (int32_t i = 0; i < UNIFORMS; i++) {
        kind[i] = MPO_MIXTURE_DRAWN;
        rules[i] = &rule;
    }
    struct mpo_mixture_draws draws = {.count = uniform_count,
                                      .row = row,
                                      .kind = kind,
                                      .uniform = uniform,
                                      .rule = rules,
                                      .token = token,
                                      .log_proposal = log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(self->mixture, &draws));
}

/* How often each of the last draws read its row. */
static double passes(void)
{
    if (cudart_take_reads == NULL)
        return 0.0;
    return (double)cudart_take_reads() / uniform_count / vocab_size;
}

static void check_filter(struct mixture_case *on_cpu, struct mixture_case *on_cuda,
                         const struct shape *shape, const struct mpo_mixture_filter *filter)
{
    int32_t cpu[UNIFORMS] = {0};
    int32_t cuda[UNIFORMS] = {0};
    bool both = filter->top_k > 0 && filter->top_p < 1.0;
    draw_at(on_cpu, filter, cpu);
    passes();
    draw_at(on_cuda, filter, cuda);
    double found = passes();
    double most = both ? shape->two : shape->one;
    bool same = memcmp(cpu, cuda, sizeof cpu) == 0;
    if (!same || found > most)
        print_message("shape %d, top_k %d, top_p %g: %g passes, at most %g\n",
                      (int)(shape - shapes), filter->top_k, filter->top_p, found, most);
    for (int32_t i = 0; i < UNIFORMS; i++)
        assert_int_equal(cuda[i], cpu[i]);
    assert_true(found <= most);
}

static void make_row(struct mixture_case *self, const char *device,
                     const struct shape *shape)
{
    mixture_case_make(self, 1, 1, vocab_size, 1.0);
    self->device = device;
    for (int32_t v = 0; v < vocab_size; v++)
        self->logits[v] = shape->logit(v);
    mixture_case_run(self);
}

static void cuts_are_the_cpu_s_within_their_passes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mixture_case cpu;
        struct mixture_case cuda;
        make_row(&cpu, "cpu", &shapes[i]);
        make_row(&cuda, "cuda", &shapes[i]);
        for (size_t f = 0; f < sizeof filters / sizeof *filters; f++)
            check_filter(&cpu, &cuda, &shapes[i], &filters[f]);
        mixture_case_free(&cuda);
        mixture_case_free(&cpu);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_are_the_cpu_s_within_their_passes),
    };
    if (!device_suite_has_device())
        return 77;
    int32_t most = device_suite_vocabulary(argc, argv, 49152);
    if (most < vocab_size)
        vocab_size = 4096; /* the least with stretches of more than one token */
    if (most < vocab_size)
        uniform_count = 2; /* the ends, which tell cuts that differ by one token */
    return run_cases("selection on cuda", tests);
}
