/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices and prompts in any order, errors before and after the status line, and the
 * candidate that best_of picks.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "estimator/sample.h"
#include "mpo/rng.h"
#include "runner.h"
#include "answer_case.h"

/* Three prompts of two choices, whose events come in some order. */
struct deal {
    struct answer_case self;
    int32_t word[6];
    int32_t prompt_token[3][3];
    uint64_t seed;
    uint64_t drawn;
};

#define DEAL_TOKENS 5

static void make_deal(struct deal *deal, uint64_t seed, bool stream, bool echo)
{
    static char *texts[3] = {"ab", "ba", "bb"};
    static const char *const words[] = {"a", "b", "\xe2\x82", "\xac", "c"};
    answer_case_make(&deal->self);
    deal->seed = seed;
    deal->drawn = 0;
    for (int32_t i = 0; i < 5; i++)
        deal->word[i] = answer_case_word(&deal->self, words[i], (int32_t)strlen(words[i]));
    for (int32_t p = 0; p < 3; p++) {
        for (int32_t t = 0; t < 2; t++)
            deal->prompt_token[p][t] = deal->word[texts[p][t] - 'a'];
        deal->self.prompt[p] =
            (struct mpo_serve_prompt){texts[p], deal->prompt_token[p], 2};
    }
    deal->self.request.kind = MPO_SERVE_COMPLETION;
    deal->self.request.prompt_count = 3;
    deal->self.request.n = 2;
    deal->self.request.logprobs = true;
    deal->self.request.stream = stream;
    deal->self.request.echo = echo;
}

/* Send the next event of choice c of prompt p, whose step is next[p][c]: its prompt's seat,
 * once for both choices, what it scored of an echo, its tokens, its end. */
static bool deal_event(struct deal *deal, struct answer_case_sent *sent, int32_t p,
                       int32_t c, int32_t next[3][3])
{
    if (next[p][2] == 0) {
        next[p][2] = 1;
        answer_case_seat(&deal->self, sent, p);
        return true;
    }
    int32_t step = next[p][c]++ - 1;
    if (step < 0 && deal->self.request.echo)
        answer_case_given(sent, p, c, deal->prompt_token[p][1]);
    else if (step >= 0 && step < DEAL_TOKENS)
        answer_case_token(sent, p, c, deal->word[(2 * p + c + 3 * step) % 5]);
    else if (step == DEAL_TOKENS)
        answer_case_choice(sent, p, c, MPO_SERVE_FINISH_LENGTH);
    return step <= DEAL_TOKENS;
}

/* Seed 0: one choice after the other. */
static void play_deal(struct deal *deal, struct answer_case_sent *sent)
{
    int32_t next[3][3] = {{0}};
    answer_case_begin(&deal->self, sent);
    for (int32_t i = 0; deal->seed != 0 && i < 200; i++) {
        double uniform = runner_uniform(deal->seed, deal->drawn++);
        int32_t place = (int32_t)(uniform * 6.0);
        deal_event(deal, sent, place / 2, place % 2, next);
    }
    for (int32_t place = 0; place < 6; place++)
        while (deal_event(deal, sent, place / 2, place % 2, next))
            ;
    answer_case_done(sent);
    assert_true(sent->is_complete);
}

static void choices_and_prompts_may_come_in_any_order(void **state)
{
    (void)state;
    for (int32_t echo = 0; echo < 2; echo++) {
        struct deal deal;
        struct answer_case_sent ordered;
        make_deal(&deal, 0, false, echo != 0);
        play_deal(&deal, &ordered);
        json_t *body = answer_case_json(&ordered);
        assert_int_equal(json_array_size(json_object_get(body, "choices")), 6);
        for (uint64_t seed = 1; seed < 40; seed++) {
            struct answer_case_sent sent;
            bool is_done = false;
            make_deal(&deal, seed, false, echo != 0);
            play_deal(&deal, &sent);
            assert_string_equal(sent.bytes, ordered.bytes);
            answer_case_end(&sent);
            make_deal(&deal, seed, true, echo != 0);
            play_deal(&deal, &sent);
            json_t *chunks = answer_case_chunks(&sent, &is_done);
            assert_true(is_done);
            for (int32_t i = 0; i < 6; i++) {
                char *text = answer_case_joined_text(chunks, i);
                json_t *logprobs = answer_case_joined_logprobs(chunks, i);
                assert_string_equal(text, answer_case_whole_text(body, i));
                assert_true(json_equal(logprobs, answer_case_whole_logprobs(body, i)));
                json_decref(logprobs);
                free(text);
            }
            json_decref(chunks);
            answer_case_end(&sent);
        }
        json_decref(body);
        answer_case_end(&ordered);
    }
}

/* ---- errors ---- */

static void refuse(struct answer_case_sent *sent, int http_status, const char *code)
{
    struct mpo_serve_refusal refusal = {0};
    mpo_serve_refuse(&refusal, http_status, code, "n", "expected \"%s\"", "\xff");
    answer_case_take(sent, &(struct mpo_serve_event){.kind = MPO_SERVE_REFUSED,
                                                     .choice = -1,
                                                     .refusal = &refusal});
    answer_case_done(sent);
}

static void a_refusal_before_the_status_line_is_a_status(void **state)
{
    (void)state;
    for (int32_t seated = 0; seated < 2; seated++) {
        struct answer_case self;
        struct answer_case_sent sent;
        struct mpo_answer_ready ready;
        answer_case_make(&self);
        self.request.stream = seated == 0;
        answer_case_begin(&self, &sent);
        if (seated != 0)
            answer_case_seat(&self, &sent, 0);
        refuse(&sent, 503, "queue_timeout");
        assert_true(sent.is_complete);
        assert_int_equal(sent.http_status, 503);
        mpo_answer_ready(sent.answer, &ready);
        assert_false(ready.is_stream);
        assert_false(ready.is_lost);
        assert_int_equal(ready.refusal->retry_after_seconds, 5);
        json_t *body = answer_case_json(&sent);
        answer_case_assert_json(body,
                                "{\"error\": {\"message\": \"expected \\\"\\ufffd\\\"\","
                                " \"type\": \"server_error\", \"param\": \"n\","
                                " \"code\": \"queue_timeout\"}}");
        json_decref(body);
        answer_case_end(&sent);
    }
}

static void a_refusal_after_the_status_line_is_an_event_and_no_end(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    bool is_done = false;
    (void)state;
    answer_case_make(&self);
    int32_t word = answer_case_word(&self, "hi", 2);
    self.request.stream = true;
    answer_case_begin(&self, &sent);
    answer_case_seat(&self, &sent, 0);
    answer_case_token(&sent, 0, 0, word);
    refuse(&sent, 500, "row_failed");
    assert_true(sent.is_complete);
    assert_int_equal(sent.http_status, 200);
    json_t *chunks = answer_case_chunks(&sent, &is_done);
    assert_false(is_done);
    assert_int_equal(json_array_size(chunks), 3);
    json_t *error = json_object_get(json_array_get(chunks, 2), "error");
    answer_case_assert_json(json_object_get(error, "code"), "\"row_failed\"");
    json_decref(chunks);
    answer_case_end(&sent);
}

static void an_answer_that_ends_too_early_is_none(void **state)
{
    struct answer_case self;
    struct answer_case_sent sent;
    (void)state;
    answer_case_make(&self);
    answer_case_begin(&self, &sent);
    answer_case_seat(&self, &sent, 0);
    answer_case_done(&sent);
    assert_int_equal(sent.http_status, 500);
    assert_true(sent.is_complete);
    answer_case_end(&sent);
}

/* ---- best of ---- */

/* softmax(log w) by its definition. */
static int32_t pick_by_hand(const double *mu,
                            const double (*log_policy)[ANSWER_CASE_POLICIES],
                            const double *log_q, int32_t count, double uniform)
{
    double share[8];
    double sum = 0.0;
    for (int32_t j = 0; j < count; j++) {
        double second = mu[1] != 0.0 ? mu[1] * log_policy[j][1] : 0.0;
        share[j] = exp(mu[0] * log_policy[j][0] + second - log_q[j]);
        sum += share[j];
    }
    for (int32_t j = 0; j < count; j++)
        share[j] /= sum;
    return mpo_sample_pick(share, count, uniform);
}

static void best_of_picks_as_generate_does(void **state)
{
    int32_t picked[4] = {0};
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        static char *texts[2] = {"p", "q"};
        double log_policy[2][4][ANSWER_CASE_POLICIES];
        double log_q[2][4];
        struct answer_case self;
        struct answer_case_sent sent;
        answer_case_make(&self);
        for (int32_t i = 0; i < 4; i++)
            answer_case_word(&self, &"abcd"[i], 1);
        int32_t token = 0;
        for (int32_t p = 0; p < 2; p++)
            self.prompt[p] = (struct mpo_serve_prompt){texts[p], &token, 1};
        self.request.kind = MPO_SERVE_COMPLETION;
        self.request.prompt_count = 2;
        self.request.best_of = 4;
        self.request.seed = seed;
        double alone[ANSWER_CASE_POLICIES] = {1.0, 0.0};
        if (seed % 2 == 0)
            self.request.mu = alone;
        answer_case_begin(&self, &sent);
        for (int32_t p = 0; p < 2; p++)
            answer_case_seat(&self, &sent, p);
        for (int32_t i = 0; i < 8; i++) {
            int32_t p = i % 2;
            int32_t c = i / 2;
            for (int32_t h = 0; h < ANSWER_CASE_POLICIES; h++)
                log_policy[p][c][h] = -3.0 * runner_uniform(seed, (uint64_t)(4 * i + h));
            if (seed % 2 == 0)
                log_policy[p][c][1] = NAN; /* was not fed */
            log_q[p][c] = -3.0 * runner_uniform(seed, (uint64_t)(4 * i + 2));
            answer_case_take(&sent,
                             &(struct mpo_serve_event){.kind = MPO_SERVE_TOKEN,
                                                       .prompt = p,
                                                       .choice = c,
                                                       .token = c,
                                                       .log_q = log_q[p][c],
                                                       .log_policy = log_policy[p][c]});
            answer_case_choice(&sent, p, c, MPO_SERVE_FINISH_LENGTH);
        }
        answer_case_done(&sent);
        json_t *body = answer_case_json(&sent);
        assert_int_equal(json_array_size(json_object_get(body, "choices")), 2);
        for (int32_t p = 0; p < 2; p++) {
            double uniform = mpo_rng_uniform(
                seed, MPO_RNG_PICK, (struct mpo_rng_counter){.prompt = (uint64_t)p});
            int32_t by_hand = pick_by_hand(
                self.request.mu, (const double(*)[ANSWER_CASE_POLICIES])log_policy[p],
                log_q[p], 4, uniform);
            assert_int_equal(answer_case_whole_text(body, p)[0], "abcd"[by_hand]);
            picked[by_hand]++;
        }
        answer_case_assert_json(
            json_object_get(json_object_get(body, "usage"), "completion_tokens"), "8");
        json_decref(body);
        answer_case_end(&sent);
    }
    for (int32_t c = 0; c < 4; c++)
        assert_true(picked[c] > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_and_prompts_may_come_in_any_order),
        cmocka_unit_test(a_refusal_before_the_status_line_is_a_status),
        cmocka_unit_test(a_refusal_after_the_status_line_is_an_event_and_no_end),
        cmocka_unit_test(an_answer_that_ends_too_early_is_none),
        cmocka_unit_test(best_of_picks_as_generate_does),
    };
    return run_cases("answer order", tests);
}
