/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No memory, at each allocation of an answer: the answer says so, or does not need it, and
 * what was sent before is whole.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "allocations.h"
#include "runner.h"
#include "answer_case.h"

#define SENT_BYTES  65536
#define ANSWERS     4 /* chat and completion, whole and stream */
#define TOKEN_COUNT 6

/* Bytes without an allocation. */
struct kept {
    char bytes[SENT_BYTES];
    size_t count;
    int http_status;
    bool is_open;
    bool is_complete;
    bool is_lost;
};

static void keep_ready(struct mpo_answer *answer, struct kept *kept)
{
    struct mpo_answer_ready ready = {0};
    mpo_answer_ready(answer, &ready);
    kept->is_lost = ready.is_lost;
    kept->is_complete = ready.is_complete;
    kept->http_status = ready.http_status;
    if (ready.http_status == 0)
        return;
    assert_true(kept->count + ready.count < SENT_BYTES);
    memcpy(kept->bytes + kept->count, ready.bytes, ready.count);
    kept->count += ready.count;
    kept->bytes[kept->count] = '\0';
    mpo_answer_sent(answer);
}

static void make_case(struct answer_case *self, int32_t which, int32_t token[3])
{
    static char text[] = "ab";
    answer_case_make(self);
    token[0] = answer_case_word(self, "a", 1);
    token[1] = answer_case_word(self, "b", 1);
    token[2] = answer_case_word(self, "\xe2\x82", 2);
    self->prompt[0] = (struct mpo_serve_prompt){text, token, 2};
    self->request.kind = which % 2 == 0 ? MPO_SERVE_CHAT : MPO_SERVE_COMPLETION;
    self->request.echo = which % 2 != 0;
    self->request.stream = which / 2 != 0;
    self->request.include_usage = true;
    self->request.n = 2;
    self->request.logprobs = true;
    self->request.top_logprobs = 2;
    self->request.policy_scores = true;
}

/* The whole of an answer; so many allocations fail from one on. */
struct failing {
    long first;
    long count;
};

static void run_answer(struct answer_case *self, const int32_t token[3],
                       struct failing failing, struct kept *kept)
{
    static const int32_t length[ANSWER_CASE_POLICIES] = {2, 2};
    static const double log_policy[ANSWER_CASE_POLICIES] = {-1.0, -2.0};
    static const double top_log_q[2] = {-0.5, -1.5};
    struct mpo_answer *answer = NULL;
    struct mpo_serve_event event = {.kind = MPO_SERVE_SEATED,
                                    .length = length,
                                    .log_policy = log_policy,
                                    .top_count = 2,
                                    .top_token = token,
                                    .top_log_q = top_log_q};
    *kept = (struct kept){0};
    allocations_reset();
    allocations_fail(failing.first, failing.count);
    kept->is_open = mpo_answer_open(&self->catalog, &self->request, "f", &answer) == MPO_OK;
    for (int32_t i = 0; kept->is_open && i < 2 * TOKEN_COUNT + 5; i++) {
        event.choice = i % 2;
        event.token = token[i / 2 % 3];
        event.kind = i == 0                    ? MPO_SERVE_SEATED
                     : i == 1                  ? MPO_SERVE_GIVEN
                     : i < 2 * TOKEN_COUNT + 2 ? MPO_SERVE_TOKEN
                     : i < 2 * TOKEN_COUNT + 4 ? MPO_SERVE_CHOICE
                                               : MPO_SERVE_DONE;
        event.finish = MPO_SERVE_FINISH_LENGTH;
        if (event.kind == MPO_SERVE_GIVEN)
            event.choice = 0;
        mpo_answer_take(answer, &event);
        keep_ready(answer, kept);
    }
    mpo_answer_close(&answer);
    allocations_fail(0, 0);
}

static void check_lost(const struct kept *kept, const struct kept *right, bool is_stream)
{
    const char *last = strstr(kept->bytes, "{\"error\":");
    assert_non_null(last);
    assert_true(kept->is_lost && kept->is_complete);
    assert_non_null(strstr(last, "out_of_memory"));
    if (kept->http_status == 500) {
        assert_ptr_equal(last, kept->bytes);
        json_t *body = json_loads(last, 0, NULL);
        assert_non_null(body);
        json_decref(body);
        return;
    }
    assert_true(is_stream && kept->http_status == 200);
    size_t before = (size_t)(last - kept->bytes) - strlen("data: ");
    assert_memory_equal(kept->bytes, right->bytes, before);
    assert_true(before == 0 || memcmp(kept->bytes + before - 2, "\n\n", 2) == 0);
    assert_string_equal(kept->bytes + kept->count - 2, "\n\n");
    assert_null(strstr(kept->bytes, "[DONE]"));
}

/* Each allocation once, and all from each on. */
static void fail_everywhere(struct answer_case *self, const int32_t token[3], long made,
                            const struct kept *right)
{
    static struct kept kept;
    int32_t lost = 0;
    for (long first = 0; first < 2 * made; first++) {
        struct failing failing = {first / 2, first % 2 == 0 ? 1 : LONG_MAX};
        run_answer(self, token, failing, &kept);
        if (!kept.is_open)
            continue;
        lost += kept.is_lost;
        if (kept.is_lost)
            check_lost(&kept, right, self->request.stream);
        else
            assert_string_equal(kept.bytes, right->bytes);
    }
    assert_true(lost > 200);
}

static void every_allocation_may_fail(void **state)
{
    static struct kept right;
    (void)state;
    json_set_alloc_funcs(malloc, free); /* Jansson's are counted too */
    for (int32_t which = 0; which < ANSWERS; which++) {
        struct answer_case self;
        int32_t token[3];
        make_case(&self, which, token);
        run_answer(&self, token, (struct failing){0}, &right);
        long made = allocations_made();
        assert_true(right.is_complete && right.http_status == 200);
        assert_true(made > 100);
        fail_everywhere(&self, token, made, &right);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return run_cases("answer memory", tests);
}
