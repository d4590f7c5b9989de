/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies that only launch their work when they are fed, as those on a device: all are at
 * work before the first is waited for, nothing is copied or read before it is there, and
 * events are those of policies that are done at once.
 */
#include <stdio.h>
#include <string.h>

#include "decode/decode_impl.h"
#include "policy/policy_impl.h"
#include "rollout_case.h"
#include "runner.h"

#define ROWS       8
#define OUTPUT_MAX 16
#define STEPS      4

static const double mu[ROLLOUT_CASE_POLICIES] = {0.5, 0.2, 0.3};

/* ---- a policy that launches ---- */

static const struct mpo_policy_ops *table_ops;
static struct mpo_policy_ops slow_ops;

static struct slow {
    void *self;
    const float *ready[OUTPUT_MAX]; /* what the next collect gives */
    int32_t count;
} slow[ROLLOUT_CASE_POLICIES];

static char called[512]; /* "f0 f1 f2 c0 k0": fed, collected, copied, of which policy */

static struct slow *note_call(void *self, char verb)
{
    int32_t k = 0;
    while (slow[k].self != self)
        k++;
    size_t length = strlen(called);
    snprintf(called + length, sizeof called - length, "%s%c%d", length > 0 ? " " : "", verb,
             k);
    return &slow[k];
}

static enum mpo_status slow_feed(void *self, const struct mpo_policy_append *appends,
                                 int32_t append_count, const float **logits)
{
    struct slow *own = note_call(self, 'f');
    assert_null(logits);
    own->count = 0;
    for (int32_t i = 0; i < append_count; i++)
        for (int32_t j = 0; j < appends[i].count; j++)
            own->count += mpo_policy_wants(&appends[i], j);
    assert_in_range(own->count, 0, OUTPUT_MAX);
    return table_ops->feed(self, appends, append_count, own->ready);
}

static enum mpo_status slow_collect(void *self, const float **logits)
{
    const struct slow *own = note_call(self, 'c');
    memcpy(logits, own->ready, (size_t)own->count * sizeof *logits);
    return MPO_OK;
}

static enum mpo_status slow_fork(void *self, int32_t from, int32_t to)
{
    note_call(self, 'k');
    return table_ops->fork(self, from, to);
}

static void slow_down(struct rollout_case *loop)
{
    table_ops = mpo_policies_local(loop->policies, 0)->ops;
    slow_ops = *table_ops;
    slow_ops.feed = slow_feed;
    slow_ops.collect = slow_collect;
    slow_ops.fork = slow_fork;
    for (int32_t k = 0; k < ROLLOUT_CASE_POLICIES; k++) {
        struct mpo_policy *policy = mpo_policies_local(loop->policies, k);
        policy->ops = &slow_ops;
        slow[k].self = policy->self;
    }
}

/* ---- a machine ---- */

static void admit(struct rollout_case *loop, int32_t slot, int32_t share)
{
    static const int32_t token[] = {1, 0, 2};
    int32_t index = -1;
    const struct mpo_decode_row row = {.slot = slot,
                                       .share = share,
                                       .free_count = ROLLOUT_CASE_MAX_TOKENS,
                                       .mu = mu,
                                       .end_bias = -50.0};
    if (share < 0)
        assert_ok(mpo_decode_offer_tokens(loop->decode, slot, token, 3));
    assert_ok(mpo_decode_admit(loop->decode, &row, &index));
    assert_int_equal(index, share < 0 ? slot : 2);
}

static void open_machine(struct rollout_case *loop)
{
    const struct rollout_case_spec spec = {.prompt_count = ROLLOUT_CASE_STARTS,
                                           .unit_prompts = 1,
                                           .responses = 1,
                                           .row_capacity = ROWS,
                                           .prefill = MPO_DECODE_MIXED,
                                           .prefill_tokens = ROWS,
                                           .prefill_step = ROWS,
                                           .prefill_idle = ROWS};
    rollout_case_open(loop, &spec);
    called[0] = '\0';
}

static int32_t step(struct rollout_case *loop, double *log_q, int32_t *token)
{
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    called[0] = '\0';
    assert_ok(mpo_decode_step(loop->decode, &event, &count));
    for (int32_t i = 0; i < count; i++) {
        log_q[i] = event[i].log_q;
        token[i] = event[i].token;
    }
    return count;
}

/* ---- cases ---- */

static void all_policies_are_at_work_before_the_first_is_waited_for(void **state)
{
    static const char *const expected[STEPS] = {
        "f0 f1 f2 c0 k0 c1 k1 c2 k2", /* two prompts, of which one is shared */
        "f0 f1 f2 c0 c1 c2", "f0 f1 f2 c0 c1 c2", "f0 f1 f2 c0 c1 c2"};
    struct rollout_case at_once;
    struct rollout_case launched;
    double log_q[2][ROWS];
    int32_t token[2][ROWS];
    (void)state;
    open_machine(&at_once);
    open_machine(&launched);
    slow_down(&launched);
    struct rollout_case *const both[] = {&at_once, &launched};
    for (int i = 0; i < 2; i++) {
        admit(both[i], 0, -1);
        admit(both[i], 1, -1);
        admit(both[i], 0, 0);
    }
    for (int32_t i = 0; i < STEPS; i++) {
        int32_t count = step(&at_once, log_q[0], token[0]);
        assert_string_equal(called, "");
        assert_int_equal(step(&launched, log_q[1], token[1]), count);
        assert_string_equal(called, expected[i]);
        assert_int_equal(count, 3);
        assert_memory_equal(token[0], token[1], (size_t)count * sizeof **token);
        assert_memory_equal(log_q[0], log_q[1], (size_t)count * sizeof **log_q);
    }
    rollout_case_close(&launched);
    rollout_case_close(&at_once);
}

/* A chunk of a prompt has no logits that could be waited for. */
static void what_gives_no_logits_is_not_waited_for(void **state)
{
    struct rollout_case loop;
    const float *row[OUTPUT_MAX] = {NULL};
    static const int32_t token[] = {1, 0, 2};
    struct mpo_policy_span span = {.row = 0, .slot = -1, .count = 3, .token = token};
    (void)state;
    open_machine(&loop);
    slow_down(&loop);
    struct mpo_policy *policy = mpo_policies_local(loop.policies, 1);
    assert_ok(mpo_policy_feed(policy, &span, 1, row));
    assert_ok(mpo_policy_collect(policy));
    assert_string_equal(called, "f1");
    span.want = MPO_WANT_LAST;
    assert_ok(mpo_policy_feed(policy, &span, 1, row));
    assert_null(row[0]);
    assert_ok(mpo_policy_collect(policy));
    assert_ok(mpo_policy_collect(policy)); /* there is nothing left */
    assert_non_null(row[0]);
    assert_string_equal(called, "f1 f1 c1");
    assert_ok(mpo_policy_feed(policy, &span, 1, row));
    mpo_policy_clear(policy);
    assert_ok(mpo_policy_collect(policy));
    assert_string_equal(called, "f1 f1 c1 f1");
    rollout_case_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_policies_are_at_work_before_the_first_is_waited_for),
        cmocka_unit_test(what_gives_no_logits_is_not_waited_for),
    };
    return run_cases("decode launch", tests);
}
