/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rollout on table policies: what it reports of a response is what the policies say
 * of it, finished rows cost no decode, and nothing in it allocates.
 *
 * The linker sends the library's calls of mpo_policy_feed through the counter below
 * (--wrap, see tests/CMakeLists.txt).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "allocations.h"
#include "rollout_case.h"
#include "runner.h"

#define POLICIES   ROLLOUT_CASE_POLICIES
#define VOCAB      ROLLOUT_CASE_VOCAB
#define PROMPTS    ROLLOUT_CASE_STARTS
#define RESPONSES  8
#define MAX_TOKENS ROLLOUT_CASE_MAX_TOKENS

/* Two given responses to each of three prompts; the longest one takes several runs of positions. */
#define GIVEN_COUNT 2
#define TEN(text)   text text text text text text text text text text
#define GIVEN                                                                              \
    "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"" TEN("a b c d a ")            \
        TEN("d c ") TEN("b ")                                                              \
            TEN("c a ") "\"}\n"                                                            \
                        "{\"prompt\": \"b\", \"chosen\": \"\", \"rejected\": \"c a\"}\n"   \
                        "{\"prompt\": \"c\", \"chosen\": \"a a\", \"rejected\": \"d\", "   \
                        "\"ended\": false}\n"

/* ---- counters ---- */

static long extended_rows;
static const struct mpo_policy *damaged; /* policy whose logits are damaged, NULL: none */
static int32_t damaged_row;

enum mpo_status __real_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits);
enum mpo_status __wrap_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits);

enum mpo_status __wrap_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits)
{
    static const float no_logits[VOCAB] = {NAN};
    enum mpo_status status = __real_mpo_policy_feed(policy, spans, span_count, logits);
    for (int32_t i = 0; i < span_count; i++) {
        extended_rows += spans[i].slot < 0;
        if (policy == damaged && spans[i].slot < 0 && spans[i].row == damaged_row)
            logits[i] = no_logits; /* one position a span here */
    }
    return status;
}

/* ---- jobs of table policies ---- */

/* Never in a text of these tables: looking for them must change nothing. */
static const char *const stops[] = {"z", "a  b"};

static void open_loop(struct rollout_case *loop, int32_t unit_prompts)
{
    struct rollout_case_spec spec = {.prompt_count = PROMPTS,
                                     .unit_prompts = unit_prompts,
                                     .responses = RESPONSES,
                                     .stop = stops,
                                     .stop_count = 2};
    rollout_case_open(loop, &spec);
}

/* Of the later steps. */
static const struct mpo_mixture_filter filter = {0.8, 4, 0.95, 0.01};

/* What the last rollout has reported. */
static struct {
    double responses;
    long tokens;
    long count;
    bool fell;
} reported;

static void take_report(void *reporter, double responses, int32_t token_count)
{
    assert_ptr_equal(reporter, &reported);
    reported.fell = reported.fell || responses < reported.responses;
    reported.responses = responses;
    reported.tokens += token_count;
    reported.count++;
}

static void run_step(struct rollout_case *loop, int64_t step, bool greedy,
                     struct mpo_responses *responses)
{
    struct mpo_rollout_step draw = rollout_case_step(loop, step);
    draw.greedy = greedy;
    draw.filter = step > 2 ? &filter : NULL;
    draw.report = take_report;
    draw.reporter = &reported;
    memset(&reported, 0, sizeof reported);
    assert_ok(mpo_rollout_run(loop->rollout, &draw, responses));
}

/* ---- cases ---- */

/* log pi_h(y|x) by hand, from the tables as the policies read them. */
static double log_response(const struct rollout_case *loop, int32_t h, int32_t start,
                           const int32_t *token, int32_t token_count)
{
    double sum = 0.0;
    int32_t state = start;
    for (int32_t t = 0; t < token_count; t++) {
        double norm = 0.0;
        for (int32_t v = 0; v < VOCAB; v++)
            norm += exp(bigram_log_policy(loop->bigram, h, state, v) /
                        rollout_case_temperature[h]);
        sum += bigram_log_policy(loop->bigram, h, state, token[t]) /
                   rollout_case_temperature[h] -
               log(norm);
        state = token[t];
    }
    return sum;
}

static void scores_are_the_policies_own(void **state)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    (void)state;
    open_loop(&loop, 2);
    run_step(&loop, 0, false, &responses);
    for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
        const int32_t *token = responses.token + i * MAX_TOKENS;
        int32_t count = responses.token_count[i];
        assert_in_range(count, 1, MAX_TOKENS);
        assert_int_equal(responses.ended[i], token[count - 1] == ROLLOUT_CASE_END);
        if (!responses.ended[i])
            assert_int_equal(count, MAX_TOKENS);
        /* Tables hold log-probabilities as float: 1e-6 a token is what is left of them. */
        for (int32_t h = 0; h < POLICIES; h++)
            assert_close(responses.log_policy[i * POLICIES + h],
                         log_response(&loop, h, i / RESPONSES, token, count), 2e-6 * count);
    }
    rollout_case_close(&loop);
}

static void finished_rows_cost_no_decode(void **state)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    long needed = 0;
    (void)state;
    open_loop(&loop, 1);
    extended_rows = 0;
    run_step(&loop, 0, false, &responses);
    /* The first token of a response comes from the prefill, each other from one row. */
    for (int32_t i = 0; i < PROMPTS * RESPONSES; i++)
        needed += responses.token_count[i] - 1;
    assert_int_equal(extended_rows, POLICIES * needed);
    rollout_case_close(&loop);
}

static void reports_grow_to_all_responses_and_tokens(void **state)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    (void)state;
    for (int32_t unit_prompts = 1; unit_prompts <= PROMPTS; unit_prompts++) {
        long tokens = 0;
        open_loop(&loop, unit_prompts);
        run_step(&loop, 0, false, &responses);
        for (int32_t i = 0; i < PROMPTS * RESPONSES; i++)
            tokens += responses.token_count[i];
        assert_false(reported.fell);
        assert_true(reported.count > 1);
        assert_close(reported.responses, PROMPTS * RESPONSES, 0);
        assert_int_equal(reported.tokens, tokens);
        rollout_case_close(&loop);
    }
}

static void token_loop_allocates_nothing(void **state)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    (void)state;
    struct rollout_case_spec spec = {.prompt_count = PROMPTS,
                                     .unit_prompts = PROMPTS,
                                     .responses = RESPONSES,
                                     .row_capacity = RESPONSES + 3, /* two prompts wait */
                                     .stop = stops,
                                     .stop_count = 2};
    allocations_reset();
    rollout_case_open(&loop, &spec);
    assert_true(allocations_made() > 0); /* the counter counts */
    allocations_reset();
    for (int64_t step = 0; step < 5; step++)
        run_step(&loop, step, false, &responses);
    assert_int_equal(allocations_made(), 0);
    rollout_case_close(&loop);
}

static void scoring_allocates_nothing_and_keeps_its_books(void **state)
{
    static const int32_t lengths[PROMPTS * GIVEN_COUNT] = {2, 101, 1, 3, 2, 1};
    struct rollout_case_spec spec = {.prompt_count = PROMPTS,
                                     .unit_prompts = 1,
                                     .responses = GIVEN_COUNT,
                                     .given = GIVEN};
    struct mpo_scores scores = {0};
    struct rollout_case loop;
    (void)state;
    rollout_case_open(&loop, &spec);
    struct mpo_rollout_step step = rollout_case_step(&loop, 0);
    step.end_bias = 0.0;
    step.report = take_report;
    step.reporter = &reported;
    allocations_reset();
    for (int i = 0; i < 3; i++) {
        memset(&reported, 0, sizeof reported);
        assert_ok(mpo_rollout_score(loop.rollout, &step, &scores));
    }
    assert_int_equal(allocations_made(), 0);
    assert_close(reported.responses, PROMPTS * GIVEN_COUNT, 0);
    assert_int_equal(reported.tokens, 2 + 101 + 1 + 3 + 2 + 1);
    for (int32_t i = 0; i < PROMPTS * GIVEN_COUNT; i++) {
        double sum = 0.0;
        for (int32_t h = 0; h < POLICIES; h++)
            sum += step.mu[h] * scores.log_policy[i * POLICIES + h];
        assert_int_equal(scores.token_count[i], lengths[i]);
        assert_close(scores.log_mixture[i], sum - scores.log_z[i], 1e-10);
        assert_true(scores.log_z[i] < 0.0);
    }
    rollout_case_close(&loop);
}

/* Units are a matter of batching: what a prompt gets does not depend on them. */
/* A row knows its number alone: which response it makes is said where that is known. */
static void a_failure_names_prompt_response_and_policy(void **state)
{
    (void)state;
    static const int64_t prompt[PROMPTS] = {2, 0, 1};
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    struct mpo_scores scores = {0};
    struct rollout_case_spec given = {.prompt_count = PROMPTS,
                                      .unit_prompts = 1,
                                      .responses = GIVEN_COUNT,
                                      .given_positions = 1,
                                      .given = GIVEN};
    open_loop(&loop, 2);
    struct mpo_rollout_step step = rollout_case_step(&loop, 0);
    step.prompt = prompt;
    damaged = mpo_policies_local(loop.policies, 1);
    damaged_row = RESPONSES + 2;
    assert_status(mpo_rollout_run(loop.rollout, &step, &responses), MPO_ERR_DATA);
    assert_error_names("prompt 0, response 2: policy 'two': the logits of row 10");
    rollout_case_close(&loop);
    rollout_case_open(&loop, &given);
    step = rollout_case_step(&loop, 0);
    step.prompt = prompt;
    damaged = mpo_policies_local(loop.policies, 2);
    damaged_row = 0;
    assert_status(mpo_rollout_score(loop.rollout, &step, &scores), MPO_ERR_DATA);
    assert_error_names("prompt 2, response 0: policy 'three': the logits of row 0");
    rollout_case_close(&loop);
    damaged = NULL;
}

static void responses_do_not_depend_on_units(void **state)
{
    struct rollout_case one;
    struct rollout_case three;
    struct mpo_responses a = {0};
    struct mpo_responses b = {0};
    (void)state;
    open_loop(&one, 1);
    open_loop(&three, 3);
    run_step(&one, 7, false, &a);
    run_step(&three, 7, false, &b);
    for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
        assert_int_equal(a.token_count[i], b.token_count[i]);
        assert_memory_equal(a.token + i * MAX_TOKENS, b.token + i * MAX_TOKENS,
                            (size_t)a.token_count[i] * sizeof(int32_t));
        assert_same_bits(a.log_proposal[i], b.log_proposal[i]);
        assert_same_bits(a.end_surprise[i], b.end_surprise[i]);
    }
    rollout_case_close(&three);
    rollout_case_close(&one);
}

static void greedy_responses_to_a_prompt_are_alike(void **state)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    (void)state;
    open_loop(&loop, 1);
    run_step(&loop, 0, true, &responses);
    for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
        int32_t first = i / RESPONSES * RESPONSES;
        assert_int_equal(responses.token_count[i], responses.token_count[first]);
        assert_memory_equal(responses.token + i * MAX_TOKENS,
                            responses.token + first * MAX_TOKENS,
                            (size_t)responses.token_count[i] * sizeof(int32_t));
    }
    rollout_case_close(&loop);
}

static void another_step_draws_other_responses(void **state)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    int32_t before[PROMPTS * RESPONSES];
    (void)state;
    open_loop(&loop, 1);
    run_step(&loop, 0, false, &responses);
    memcpy(before, responses.token_count, sizeof before);
    run_step(&loop, 1, false, &responses);
    assert_memory_not_equal(before, responses.token_count, sizeof before);
    rollout_case_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_policies_own),
        cmocka_unit_test(finished_rows_cost_no_decode),
        cmocka_unit_test(reports_grow_to_all_responses_and_tokens),
        cmocka_unit_test(token_loop_allocates_nothing),
        cmocka_unit_test(scoring_allocates_nothing_and_keeps_its_books),
        cmocka_unit_test(a_failure_names_prompt_response_and_policy),
        cmocka_unit_test(responses_do_not_depend_on_units),
        cmocka_unit_test(greedy_responses_to_a_prompt_are_alike),
        cmocka_unit_test(another_step_draws_other_responses),
    };
    return run_cases("rollout", tests);
}
