/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that fail, and what a step takes: one row's NaN is that row's event and nobody
 * else's, given tokens cost a position each, and nothing in a step allocates.
 *
 * The linker sends the library's calls of mpo_policy_feed through the function below
 * (--wrap, see tests/CMakeLists.txt).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "allocations.h"
#include "rollout_case.h"
#include "runner.h"

#define POLICIES ROLLOUT_CASE_POLICIES
#define VOCAB    ROLLOUT_CASE_VOCAB
#define ROWS     5
#define LENGTH   6
#define GIVEN    9

/* ---- what stands between the machine and the policies ---- */

static int32_t fed_spans;
static int32_t fed_tokens;
static const struct mpo_policy *damaged; /* policy whose logits are damaged, NULL: none */
static int32_t damaged_row;
static int32_t damaged_after; /* feeds of the row before */
static float damaged_logits[VOCAB];
static const struct mpo_policy *broken; /* policy that cannot be fed, NULL: none */

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
    enum mpo_status status = __real_mpo_policy_feed(policy, spans, span_count, logits);
    if (policy == broken)
        return mpo_error_raise(MPO_ERR_INTERNAL, __FILE__, __LINE__,
                               "policy 'two': the engine is broken");
    for (int32_t i = 0; i < span_count; i++) {
        fed_spans++;
        fed_tokens += spans[i].count;
        if (policy == damaged && spans[i].row == damaged_row && damaged_after-- == 0)
            logits[i] = damaged_logits; /* one position a span here */
    }
    return status;
}

/* ---- machines ---- */

static void open_machine(struct rollout_case *loop, int32_t given_positions)
{
    struct rollout_case_spec spec = {.prompt_count = ROLLOUT_CASE_STARTS,
                                     .unit_prompts = 1,
                                     .responses = 1,
                                     .row_capacity = ROWS,
                                     .given_positions = given_positions,
                                     .top_max = 2};
    damaged = NULL;
    rollout_case_open(loop, &spec);
}

static const double mu[POLICIES] = {0.5, 0.2, 0.3};

/* A row that never ends before its last token. */
static struct mpo_decode_row row_of(int32_t index)
{
    return (struct mpo_decode_row){
        .slot = index % ROLLOUT_CASE_STARTS,
        .share = -1,
        .free_count = LENGTH,
        .mu = mu,
        .end_bias = -50.0,
        .moments = true,
        .rule = {.seed = 9, .counter = {.response = (uint64_t)index}},
    };
}

struct drawn {
    int32_t token[ROWS][LENGTH];
    double log_q[ROWS][LENGTH];
    double entropy[ROWS][LENGTH];
    int32_t count[ROWS];
    int32_t failed_row; /* -1: none */
    char text[1024];
};

static void draw_rows(struct mpo_decode *decode, struct drawn *out)
{
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    *out = (struct drawn){.failed_row = -1};
    mpo_decode_clear(decode);
    for (int32_t i = 0; i < ROWS; i++) {
        struct mpo_decode_row row = row_of(i);
        int32_t index = -1;
        assert_ok(mpo_decode_admit(decode, &row, &index));
        assert_int_equal(index, i);
    }
    while (mpo_decode_live_rows(decode) > 0) {
        assert_ok(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++) {
            int32_t row = event[i].row;
            if ((event[i].flags & MPO_DECODE_FAILED) != 0) {
                assert_int_equal(out->failed_row, -1);
                assert_int_equal(event[i].token, -1);
                assert_int_equal(event[i].failure->status, MPO_ERR_DATA);
                out->failed_row = row;
                memcpy(out->text, event[i].failure->text, sizeof out->text);
                continue;
            }
            assert_int_not_equal(row, out->failed_row);
            assert_null(event[i].failure);
            assert_int_equal(event[i].position, out->count[row]);
            out->token[row][event[i].position] = event[i].token;
            out->log_q[row][event[i].position] = event[i].log_q;
            out->entropy[row][event[i].position] = event[i].moments->entropy;
            out->count[row]++;
        }
    }
}

/* ---- cases ---- */

static void compare_with_failure(struct rollout_case *loop, int32_t position,
                                 const struct drawn *whole, const char *says)
{
    struct drawn drawn;
    damaged = mpo_policies_local(loop->policies, 1);
    damaged_row = 2;
    damaged_after = position;
    draw_rows(loop->decode, &drawn);
    assert_int_equal(drawn.failed_row, 2);
    assert_non_null(strstr(drawn.text, says));
    for (int32_t row = 0; row < ROWS; row++) {
        assert_int_equal(drawn.count[row], row == 2 ? position : LENGTH);
        for (int32_t t = 0; t < drawn.count[row]; t++) {
            assert_int_equal(drawn.token[row][t], whole->token[row][t]);
            assert_same_bits(drawn.log_q[row][t], whole->log_q[row][t]);
            assert_same_bits(drawn.entropy[row][t], whole->entropy[row][t]);
        }
    }
}

static void a_row_that_fails_is_an_event_and_the_others_go_on(void **state)
{
    (void)state;
    struct rollout_case loop;
    struct drawn whole;
    open_machine(&loop, 0);
    draw_rows(loop.decode, &whole);
    assert_int_equal(whole.failed_row, -1);
    for (int32_t position = 0; position < LENGTH; position += 2) {
        for (int32_t v = 0; v < VOCAB; v++)
            damaged_logits[v] = NAN;
        compare_with_failure(&loop, position, &whole,
                             "policy 'two': the logits of row 2 have no finite normaliser");
        for (int32_t v = 0; v < VOCAB; v++)
            damaged_logits[v] = v == 1 ? -INFINITY : 0.0F;
        compare_with_failure(&loop, position, &whole, "the mixture of row 2 is not finite");
    }
    rollout_case_close(&loop);
}

static void every_row_that_fails_names_itself(void **state)
{
    (void)state;
    struct rollout_case loop;
    const struct mpo_decode_event *event = NULL;
    int32_t index = -1;
    int32_t count = 0;
    open_machine(&loop, 0);
    mpo_decode_clear(loop.decode);
    for (int32_t i = 0; i < 3; i++) {
        struct mpo_decode_row row = row_of(0);
        row.share = i == 0 ? -1 : 0;
        row.rule.counter.response = (uint64_t)i;
        assert_ok(mpo_decode_admit(loop.decode, &row, &index));
    }
    damaged = mpo_policies_local(loop.policies, 1);
    damaged_row = 0;
    damaged_after = 0;
    for (int32_t v = 0; v < VOCAB; v++)
        damaged_logits[v] = NAN;
    assert_ok(mpo_decode_step(loop.decode, &event, &count));
    assert_int_equal(count, 3);
    for (int32_t i = 0; i < count; i++) {
        char says[64];
        snprintf(says, sizeof says, "policy 'two': the logits of row %d have no",
                 event[i].row);
        assert_int_equal(event[i].row, i);
        assert_non_null(strstr(event[i].failure->text, says));
    }
    rollout_case_close(&loop);
}

/* Such a failure ends the job; the text says what the policy was fed. */
static void a_policy_that_fails_is_named_with_its_prompts(void **state)
{
    static const struct {
        int32_t rows;
        const char *says;
    } cases[2] = {{1, "policy 'two': the engine is broken; it was fed rows of prompt 0"},
                  {3, "the engine is broken; it was fed rows of prompts 0 to 2"}};
    (void)state;
    for (int32_t i = 0; i < 2; i++) {
        struct rollout_case loop;
        const struct mpo_decode_event *event = NULL;
        int32_t index = -1;
        int32_t count = 0;
        open_machine(&loop, 0);
        broken = mpo_policies_local(loop.policies, 1);
        mpo_decode_clear(loop.decode);
        for (int32_t j = 0; j < cases[i].rows; j++) {
            struct mpo_decode_row row = row_of(j);
            assert_ok(mpo_decode_admit(loop.decode, &row, &index));
        }
        assert_status(mpo_decode_step(loop.decode, &event, &count), MPO_ERR_INTERNAL);
        assert_error_names(cases[i].says);
        broken = NULL;
        rollout_case_close(&loop);
    }
}

/* A prompt once, then the response's tokens but the
 * last, in as few steps as there is room for. */
static void given_tokens_cost_a_position_each(void **state)
{
    static const int32_t given[GIVEN] = {0, 1, 2, 3, 0, 0, 1, 3, 2};
    (void)state;
    for (int32_t positions = 1; positions <= GIVEN; positions++) {
        struct rollout_case loop;
        const struct mpo_decode_event *event = NULL;
        int32_t index = -1;
        int32_t count = 0;
        int32_t steps = 0;
        int32_t asked = 0;
        open_machine(&loop, positions);
        struct mpo_decode_row row = row_of(0);
        row.given = given;
        row.given_count = GIVEN;
        row.free_count = 0;
        fed_tokens = 0;
        mpo_decode_clear(loop.decode);
        assert_ok(mpo_decode_admit(loop.decode, &row, &index));
        while (mpo_decode_live_rows(loop.decode) > 0) {
            assert_ok(mpo_decode_step(loop.decode, &event, &count));
            for (int32_t i = 0; i < count; i++, asked++) {
                int32_t last = asked == GIVEN - 1 ? MPO_DECODE_CUT : 0;
                assert_int_equal(event[i].token, given[asked]);
                assert_int_equal(event[i].flags, MPO_DECODE_GIVEN | last);
            }
            steps++;
        }
        assert_int_equal(asked, GIVEN);
        int32_t prompt = mpo_policy_prompt_tokens(mpo_policies_local(loop.policies, 0), 0);
        assert_int_equal(fed_tokens, POLICIES * (prompt + GIVEN - 1));
        assert_int_equal(steps, 1 + (GIVEN - 1 + positions - 1) / positions);
        rollout_case_close(&loop);
    }
}

static void a_step_allocates_nothing(void **state)
{
    static const int32_t given[GIVEN] = {0, 1, 2, 3, 0, 0, 1, 3, 2};
    (void)state;
    struct rollout_case loop;
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    allocations_reset();
    open_machine(&loop, 3);
    assert_true(allocations_made() > 0); /* the counter counts */
    allocations_reset();
    mpo_decode_clear(loop.decode);
    for (int32_t i = 0; i < 4 * ROWS; i++) {
        struct mpo_decode_row row = row_of(i);
        int32_t index = -1;
        row.top_count = i % 3;
        row.given = given;
        row.given_count = i % 2 * GIVEN;
        row.rule.greedy = i % 4 == 0;
        row.rule.filter = (struct mpo_mixture_filter){.temperature = 0.7, .top_p = 0.9};
        assert_ok(mpo_decode_admit(loop.decode, &row, &index));
        while (mpo_decode_free_rows(loop.decode) == 0)
            assert_ok(mpo_decode_step(loop.decode, &event, &count));
    }
    while (mpo_decode_live_rows(loop.decode) > 0)
        assert_ok(mpo_decode_step(loop.decode, &event, &count));
    assert_int_equal(allocations_made(), 0);
    rollout_case_close(&loop);
}

/* Without moments what costs products of all logits is not made; log Z is. */
static void figures_that_nobody_wants_are_not_made(void **state)
{
    (void)state;
    struct rollout_case loop;
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    int32_t index = -1;
    open_machine(&loop, 0);
    mpo_decode_clear(loop.decode);
    for (int32_t i = 0; i < 2; i++) {
        struct mpo_decode_row row = row_of(0);
        row.moments = i == 1;
        assert_ok(mpo_decode_admit(loop.decode, &row, &index));
    }
    assert_ok(mpo_decode_step(loop.decode, &event, &count));
    assert_int_equal(count, 2);
    assert_true(isnan(event[0].moments->entropy));
    assert_true(isnan(event[0].expectation[0]));
    assert_true(isfinite(event[1].moments->entropy));
    assert_true(isfinite(event[1].expectation[0]));
    assert_same_bits(event[0].moments->log_z, event[1].moments->log_z);
    assert_same_bits(event[0].log_q, event[1].log_q);
    rollout_case_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_that_fails_is_an_event_and_the_others_go_on),
        cmocka_unit_test(every_row_that_fails_names_itself),
        cmocka_unit_test(a_policy_that_fails_is_named_with_its_prompts),
        cmocka_unit_test(given_tokens_cost_a_position_each),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(figures_that_nobody_wants_are_not_made),
    };
    return run_cases("decode_rows", tests);
}
