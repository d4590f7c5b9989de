/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts that wait for rows: what the rollout asks of a policy, call by call, is what
 * follows from the lengths of the responses by the rule of mpo/rollout.h. Tables do not
 * depend on the batch, so no capacity may change a response.
 *
 * The linker sends the calls of two verbs through the functions below (--wrap,
 * see tests/CMakeLists.txt).
 */
#include <string.h>

#include "rollout_case.h"
#include "runner.h"

#define PROMPTS    11
#define ROWS_MAX   24
#define CALLS_MAX  256
#define MAX_TOKENS ROLLOUT_CASE_MAX_TOKENS

/* ---- what was asked of the first policy ---- */

struct call {
    int32_t prompt_count; /* begun, the first of them is `prompt`; 0: rows were extended */
    int64_t prompt;
    int32_t row_count;
    int32_t row[ROWS_MAX];
    int32_t row_of[ROWS_MAX]; /* that a row became a copy of */
    int32_t token[ROWS_MAX];  /* of each row, when rows were extended */
};

static const struct mpo_policy *listened;
static struct call calls[CALLS_MAX];
static int32_t call_count;

enum mpo_status __real_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits);
enum mpo_status __wrap_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits);
enum mpo_status __real_mpo_policy_fork(struct mpo_policy *policy, int32_t from, int32_t to);
enum mpo_status __wrap_mpo_policy_fork(struct mpo_policy *policy, int32_t from, int32_t to);

enum mpo_status __wrap_mpo_policy_feed(struct mpo_policy *policy,
                                       const struct mpo_policy_span *spans,
                                       int32_t span_count, const float **logits)
{
    if (policy == listened) {
        assert_in_range(call_count, 0, CALLS_MAX - 1);
        assert_in_range(span_count, 1, ROWS_MAX);
        struct call *call = &calls[call_count++];
        *call = (struct call){.row_count = span_count};
        memset(call->row_of, -1, sizeof call->row_of);
        if (spans[0].slot >= 0) {
            call->prompt = spans[0].slot;
            call->prompt_count = span_count;
        }
        for (int32_t i = 0; i < span_count; i++) {
            call->row[i] = spans[i].row;
            if (call->prompt_count > 0)
                assert_int_equal(spans[i].slot, call->prompt + i);
            else
                call->token[i] = spans[i].token[0];
        }
    }
    return __real_mpo_policy_feed(policy, spans, span_count, logits);
}

/* A prompt's other rows stand after the one that it was fed into. */
enum mpo_status __wrap_mpo_policy_fork(struct mpo_policy *policy, int32_t from, int32_t to)
{
    if (policy == listened) {
        struct call *call = &calls[call_count - 1];
        int32_t place = 0;
        assert_in_range(call->row_count, 1, ROWS_MAX - 1);
        while (call->row[place] != from)
            assert_in_range(++place, 0, call->row_count - 1);
        do
            place++;
        while (place < call->row_count && call->row_of[place] == from);
        for (int32_t i = call->row_count++; i > place; i--) {
            call->row[i] = call->row[i - 1];
            call->row_of[i] = call->row_of[i - 1];
        }
        call->row[place] = to;
        call->row_of[place] = from;
    }
    return __real_mpo_policy_fork(policy, from, to);
}

/* ---- what the rule asks for ---- */

/* A batch in which every response takes as many positions as it has tokens. */
struct oracle {
    const struct mpo_responses *responses;
    int32_t capacity;
    int32_t response[ROWS_MAX]; /* of each row, -1 when it is free */
    int32_t order[ROWS_MAX];    /* rows in order of joining */
    int32_t made[ROWS_MAX];     /* tokens of each row's response so far */
    int32_t live_count;
};

/* Rows place .. live_count - 1 draw a token; those whose response is whole become free. */
static void oracle_draw(struct oracle *oracle, int32_t place)
{
    int32_t kept = place;
    for (int32_t i = place; i < oracle->live_count; i++) {
        int32_t row = oracle->order[i];
        if (++oracle->made[row] == oracle->responses->token_count[oracle->response[row]])
            oracle->response[row] = -1;
        else
            oracle->order[kept++] = row;
    }
    oracle->live_count = kept;
}

static void oracle_begin(struct oracle *oracle, const struct call *call)
{
    int32_t first = oracle->live_count;
    int32_t m = oracle->responses->responses;
    assert_int_equal(call->row_count, call->prompt_count * m);
    for (int32_t i = 0; i < call->row_count; i++) {
        int32_t row = 0;
        while (row < oracle->capacity && oracle->response[row] >= 0)
            row++;
        assert_in_range(row, 0, oracle->capacity - 1);
        assert_int_equal(call->row[i], row);
        oracle->response[row] = (int32_t)call->prompt * m + i;
        oracle->made[row] = 0;
        oracle->order[oracle->live_count++] = row;
    }
    oracle_draw(oracle, first);
}

static void oracle_extend(struct oracle *oracle, const struct call *call)
{
    assert_int_equal(call->prompt_count, 0);
    assert_int_equal(call->row_count, oracle->live_count);
    for (int32_t i = 0; i < call->row_count; i++) {
        int32_t row = oracle->order[i];
        int32_t last = oracle->response[row] * MAX_TOKENS + oracle->made[row] - 1;
        assert_int_equal(call->row[i], row);
        assert_int_equal(call->token[i], oracle->responses->token[last]);
    }
    oracle_draw(oracle, 0);
}

/* One unit's calls, from calls[at] on. @return where the next unit's begin */
static int32_t check_unit(struct oracle *oracle, int32_t at, int64_t prompt, int64_t end)
{
    memset(oracle->response, -1, sizeof oracle->response);
    while (prompt < end || oracle->live_count > 0) {
        assert_in_range(at, 0, call_count - 1);
        const struct call *call = &calls[at++];
        int64_t room =
            (oracle->capacity - oracle->live_count) / oracle->responses->responses;
        int64_t joining = room < end - prompt ? room : end - prompt;
        if (joining == 0) {
            oracle_extend(oracle, call);
            continue;
        }
        assert_int_equal(call->prompt_count, joining);
        assert_int_equal(call->prompt, prompt);
        oracle_begin(oracle, call);
        prompt += joining;
    }
    return at;
}

/* ---- cases ---- */

static const struct rollout_case_spec waiting[] = {
    {.prompt_count = PROMPTS, .unit_prompts = PROMPTS, .responses = 1, .row_capacity = 1},
    {.prompt_count = PROMPTS, .unit_prompts = PROMPTS, .responses = 1, .row_capacity = 4},
    {.prompt_count = PROMPTS, .unit_prompts = 4, .responses = 1, .row_capacity = 3},
    {.prompt_count = PROMPTS, .unit_prompts = PROMPTS, .responses = 2, .row_capacity = 5},
    {.prompt_count = PROMPTS, .unit_prompts = PROMPTS, .responses = 3, .row_capacity = 3},
    {.prompt_count = PROMPTS, .unit_prompts = 6, .responses = 4, .row_capacity = ROWS_MAX},
};
#define WAITING_COUNT (sizeof waiting / sizeof *waiting)

static void waiting_prompts_take_the_rows_of_finished_ones(void **state)
{
    (void)state;
    int32_t joined_beside_others = 0;
    for (size_t i = 0; i < WAITING_COUNT; i++) {
        struct rollout_case loop;
        struct mpo_responses responses = {0};
        rollout_case_open(&loop, &waiting[i]);
        struct mpo_rollout_step step = rollout_case_step(&loop, 0);
        listened = mpo_policies_local(loop.policies, 0);
        call_count = 0;
        assert_ok(mpo_rollout_run(loop.rollout, &step, &responses));
        struct oracle oracle = {.responses = &responses,
                                .capacity = waiting[i].row_capacity};
        int32_t at = 0;
        for (int32_t first = 0; first < PROMPTS; first += waiting[i].unit_prompts) {
            int32_t end = first + waiting[i].unit_prompts;
            at = check_unit(&oracle, at, first, end < PROMPTS ? end : PROMPTS);
        }
        assert_int_equal(at, call_count);
        for (int32_t j = 2; j < call_count; j++)
            joined_beside_others +=
                calls[j].prompt_count > 0 && calls[j].row_count < waiting[i].row_capacity;
        listened = NULL;
        rollout_case_close(&loop);
    }
    assert_true(joined_beside_others > 10); /* the cases are such that it happens */
}

/* All responses of a step under one capacity; the arrays stay the caller's. */
struct kept {
    int32_t token_count[ROWS_MAX];
    int32_t token[ROWS_MAX * MAX_TOKENS];
    double log_proposal[ROWS_MAX];
    double control[ROWS_MAX * ROLLOUT_CASE_POLICIES];
};

static void keep_step(const struct rollout_case_spec *spec, bool greedy, struct kept *kept)
{
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    size_t count = (size_t)spec->prompt_count * (size_t)spec->responses;
    rollout_case_open(&loop, spec);
    struct mpo_rollout_step step = rollout_case_step(&loop, 7);
    step.greedy = greedy;
    assert_ok(mpo_rollout_run(loop.rollout, &step, &responses));
    *kept = (struct kept){.token_count = {0}};
    memcpy(kept->token_count, responses.token_count, count * sizeof(int32_t));
    for (size_t i = 0; i < count; i++)
        memcpy(kept->token + i * MAX_TOKENS, responses.token + i * MAX_TOKENS,
               (size_t)responses.token_count[i] * sizeof(int32_t));
    memcpy(kept->log_proposal, responses.log_proposal, count * sizeof(double));
    memcpy(kept->control, responses.control,
           count * ROLLOUT_CASE_POLICIES * sizeof(double));
    rollout_case_close(&loop);
}

static void no_capacity_changes_what_tables_give(void **state)
{
    static const char *const stops[] = {"b", "c a"};
    (void)state;
    for (int32_t variant = 0; variant < 3; variant++) {
        struct rollout_case_spec spec = {.prompt_count = PROMPTS,
                                         .unit_prompts = PROMPTS,
                                         .responses = 2,
                                         .stop = stops,
                                         .stop_count = variant == 2 ? 2 : 0};
        struct kept all;
        struct kept few;
        keep_step(&spec, variant == 1, &all);
        for (spec.row_capacity = 2; spec.row_capacity < 2 * PROMPTS; spec.row_capacity++) {
            keep_step(&spec, variant == 1, &few);
            assert_memory_equal(&few, &all, sizeof all);
        }
    }
}

static void a_step_in_several_calls_draws_what_one_call_does(void **state)
{
    (void)state;
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    struct rollout_case_spec spec = {
        .prompt_count = PROMPTS, .unit_prompts = 4, .responses = 2, .row_capacity = 4};
    struct kept whole;
    keep_step(&spec, false, &whole);
    rollout_case_open(&loop, &spec);
    for (int32_t first = 0; first < PROMPTS; first += 4) {
        struct mpo_rollout_step step = rollout_case_step(&loop, 7);
        step.first_slot = first;
        step.prompt += first;
        step.prompt_count = PROMPTS - first < 4 ? PROMPTS - first : 4;
        assert_ok(mpo_rollout_run(loop.rollout, &step, &responses));
        size_t count = (size_t)step.prompt_count * 2;
        assert_memory_equal(responses.token_count, whole.token_count + 2 * first,
                            count * sizeof(int32_t));
        assert_memory_equal(responses.log_proposal, whole.log_proposal + 2 * first,
                            count * sizeof(double));
    }
    rollout_case_close(&loop);
}

struct seen {
    int32_t watched;
    int32_t reported;
    double responses;
};

static bool count_token(void *watcher, const int32_t *token, int32_t token_count)
{
    struct seen *seen = watcher;
    assert_in_range(token[token_count - 1], 0, ROLLOUT_CASE_VOCAB - 1);
    seen->watched++;
    return true;
}

static bool allow_two_tokens(void *watcher, const int32_t *token, int32_t token_count)
{
    (void)watcher;
    (void)token;
    return token_count < 2;
}

static void count_report(void *reporter, double responses, int32_t token_count)
{
    struct seen *seen = reporter;
    assert_true(responses > seen->responses);
    seen->responses = responses;
    seen->reported += token_count;
}

static void every_token_is_watched_and_reported(void **state)
{
    (void)state;
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    struct seen seen = {0};
    int32_t made = 0;
    rollout_case_open(&loop, &waiting[3]);
    struct mpo_rollout_step step = rollout_case_step(&loop, 0);
    step.watch = count_token;
    step.watcher = &seen;
    step.report = count_report;
    step.reporter = &seen;
    assert_ok(mpo_rollout_run(loop.rollout, &step, &responses));
    for (int32_t i = 0; i < PROMPTS * responses.responses; i++)
        made += responses.token_count[i];
    assert_int_equal(seen.watched, made);
    assert_int_equal(seen.reported, made);
    assert_same_bits(seen.responses, PROMPTS * responses.responses);
    rollout_case_close(&loop);
}

static void a_watcher_ends_responses(void **state)
{
    (void)state;
    struct rollout_case loop;
    struct mpo_responses responses = {0};
    int32_t cut = 0;
    rollout_case_open(&loop, &waiting[3]);
    struct mpo_rollout_step step = rollout_case_step(&loop, 0);
    step.watch = allow_two_tokens;
    assert_ok(mpo_rollout_run(loop.rollout, &step, &responses));
    for (int32_t i = 0; i < PROMPTS * responses.responses; i++) {
        assert_in_range(responses.token_count[i], 1, 2);
        assert_true(responses.ended[i] || responses.token_count[i] == 2);
        cut += !responses.ended[i];
    }
    assert_true(cut > 0);
    rollout_case_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_prompts_take_the_rows_of_finished_ones),
        cmocka_unit_test(no_capacity_changes_what_tables_give),
        cmocka_unit_test(a_step_in_several_calls_draws_what_one_call_does),
        cmocka_unit_test(every_token_is_watched_and_reported),
        cmocka_unit_test(a_watcher_ends_responses),
    };
    return run_cases("rollout_rows", tests);
}
