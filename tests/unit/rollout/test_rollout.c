/*
 * The decode loop on table policies: what it reports of a response is what the policies say
 * of it, finished rows cost no decode, and nothing in it allocates.
 *
 * The linker sends the library's calls of the allocator and of mpo_policy_extend through
 * the counters below (--wrap, see tests/CMakeLists.txt).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/mpo.h"

#include "bigram.h"
#include "runner.h"
#include "table_files.h"

#define POLICIES   3
#define VOCAB      5
#define PROMPTS    3
#define RESPONSES  8
#define MAX_TOKENS 12

/* Two answers to each of three prompts; the longest one takes several runs of positions. */
#define ANSWER_COUNT 2
#define TEN(text)    text text text text text text text text text text
#define ANSWERS                                                                            \
    "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"" TEN("a b c d a ")            \
        TEN("d c ") TEN("b ")                                                              \
            TEN("c a ") "\"}\n"                                                            \
                        "{\"prompt\": \"b\", \"chosen\": \"\", \"rejected\": \"c a\"}\n"   \
                        "{\"prompt\": \"c\", \"chosen\": \"a a\", \"rejected\": \"d\", "   \
                        "\"ended\": false}\n"

/* ---- counters ---- */

static long allocation_count;
static long extended_rows;

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__real_reallocarray(void *old, size_t count, size_t bytes);
void *__wrap_reallocarray(void *old, size_t count, size_t bytes);
enum mpo_status __real_mpo_policy_extend(struct mpo_policy *policy,
                                         const struct mpo_policy_batch *batch,
                                         const float **logits);
enum mpo_status __wrap_mpo_policy_extend(struct mpo_policy *policy,
                                         const struct mpo_policy_batch *batch,
                                         const float **logits);

void *__wrap_malloc(size_t bytes)
{
    allocation_count++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    allocation_count++;
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    allocation_count++;
    return __real_realloc(old, bytes);
}

void *__wrap_reallocarray(void *old, size_t count, size_t bytes)
{
    allocation_count++;
    return __real_reallocarray(old, count, bytes);
}

enum mpo_status __wrap_mpo_policy_extend(struct mpo_policy *policy,
                                         const struct mpo_policy_batch *batch,
                                         const float **logits)
{
    extended_rows += batch->row_count;
    return __real_mpo_policy_extend(policy, batch, logits);
}

/* ---- a job of table policies ---- */

struct loop {
    char folder[TABLE_PATH_BYTES];
    float logits[POLICIES][VOCAB + 1][VOCAB];
    struct bigram *bigram;
    struct mpo_comm *comm;
    struct mpo_prompts *prompts;
    struct mpo_policies *policies;
    struct mpo_exchange *exchange;
    struct mpo_mixture *mixture;
    struct mpo_rollout *rollout;
    int32_t start[PROMPTS];
    bool scores; /* given answers instead of made responses */
};

static const double temperature[POLICIES] = {1.0, 0.7, 1.5};
static const int32_t end_token = VOCAB - 1;

/* Never in a text of these tables: looking for them must change nothing. */
static const char *const stops[] = {"z", "a  b"};

static void open_bigram(struct loop *loop)
{
    for (int32_t p = 0; p < PROMPTS; p++)
        loop->start[p] = p;
    bigram_random_logits(5, 1.5, sizeof loop->logits / sizeof(float),
                         &loop->logits[0][0][0]);
    struct bigram_spec spec = {
        .logits = &loop->logits[0][0][0],
        .end_token = &end_token,
        .start = loop->start,
        .policy_count = POLICIES,
        .vocab_size = VOCAB,
        .state_count = VOCAB + 1,
        .end_count = 1,
        .start_count = PROMPTS,
        .max_tokens = MAX_TOKENS,
    };
    loop->bigram = bigram_open(&spec);
}

static void open_policies(struct loop *loop, int32_t unit_prompts)
{
    static const char *const names[POLICIES] = {"one", "two", "three"};
    char paths[POLICIES][TABLE_PATH_BYTES];
    struct mpo_policy_spec specs[POLICIES];
    char prompts[TABLE_PATH_BYTES];
    for (int32_t k = 0; k < POLICIES; k++) {
        table_write_bigram(loop->folder, names[k], loop->bigram, k, VOCAB, paths[k]);
        specs[k] = (struct mpo_policy_spec){names[k], "table", paths[k],      "", 1.0, "",
                                            "",       "auto",  temperature[k]};
    }
    table_write_text(loop->folder, "prompts.txt", loop->scores ? ANSWERS : "a\nb\nc\n",
                     prompts);
    struct mpo_prompts_spec prompts_spec = {
        .path = prompts,
        .format = loop->scores ? "jsonl" : "text",
        .prefill = "",
        .answer_name = {"chosen", "rejected"},
        .answer_count = loop->scores ? ANSWER_COUNT : 0,
        .ended = true,
    };
    struct mpo_policies_spec spec = {
        .policies = specs,
        .policy_count = POLICIES,
        .thread_count = 1,
        .unit_prompts = unit_prompts,
        .responses = loop->scores ? ANSWER_COUNT : RESPONSES,
        .max_tokens = MAX_TOKENS,
        .scores_answers = loop->scores,
    };
    assert_ok(mpo_prompts_open(&prompts_spec, &loop->prompts));
    assert_ok(mpo_policies_open(&spec, loop->comm, loop->prompts, &loop->policies));
}

static void open_as(struct loop *loop, int32_t unit_prompts, bool scores)
{
    *loop = (struct loop){.scores = scores};
    int32_t rows = mpo_rollout_positions(unit_prompts * RESPONSES, scores);
    table_folder_make(loop->folder);
    open_bigram(loop);
    assert_ok(mpo_comm_open(POLICIES, 0, &loop->comm));
    open_policies(loop, unit_prompts);
    struct mpo_exchange_spec exchange = {"auto", POLICIES, rows, VOCAB};
    struct mpo_mixture_spec mixture = {
        .device = "cpu",
        .temperature = temperature,
        .end_token = &end_token,
        .policy_count = POLICIES,
        .end_count = 1,
        .vocab_size = VOCAB,
        .row_capacity = rows,
    };
    assert_ok(mpo_exchange_open(&exchange, loop->comm, &loop->exchange));
    assert_ok(mpo_mixture_open(&mixture, &loop->mixture));
    struct mpo_rollout_spec rollout = {
        .comm = loop->comm,
        .policies = loop->policies,
        .exchange = loop->exchange,
        .mixture = loop->mixture,
        .seed = 3,
        .policy_count = POLICIES,
        .prompts_max = PROMPTS,
        .unit_prompts = unit_prompts,
        .responses = scores ? ANSWER_COUNT : RESPONSES,
        .max_tokens = MAX_TOKENS,
        .stop = stops,
        .stop_count = 2,
        .scores_answers = scores,
    };
    assert_ok(mpo_rollout_open(&rollout, &loop->rollout));
}

static void open_loop(struct loop *loop, int32_t unit_prompts)
{
    open_as(loop, unit_prompts, false);
}

static void close_loop(struct loop *loop)
{
    mpo_rollout_close(&loop->rollout);
    mpo_mixture_close(&loop->mixture);
    mpo_exchange_close(&loop->exchange);
    mpo_policies_close(&loop->policies);
    mpo_prompts_close(&loop->prompts);
    mpo_comm_close(&loop->comm);
    bigram_close(&loop->bigram);
    table_folder_remove(loop->folder);
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

static void run_step(struct loop *loop, int64_t step, bool greedy,
                     struct mpo_responses *responses)
{
    static const double mu[POLICIES] = {0.5, 0.2, 0.3};
    static const int64_t prompt[PROMPTS] = {0, 1, 2};
    struct mpo_rollout_step draw = {
        .step = step,
        .prompt = prompt,
        .prompt_count = PROMPTS,
        .mu = mu,
        .end_bias = 0.4,
        .greedy = greedy,
        .filter = step > 2 ? &filter : NULL,
        .report = take_report,
        .reporter = &reported,
    };
    memset(&reported, 0, sizeof reported);
    assert_ok(mpo_rollout_run(loop->rollout, &draw, responses));
}

/* ---- cases ---- */

/* log pi_h(y|x) by hand, from the tables as the policies read them. */
static double log_response(const struct loop *loop, int32_t h, int32_t start,
                           const int32_t *token, int32_t token_count)
{
    double sum = 0.0;
    int32_t state = start;
    for (int32_t t = 0; t < token_count; t++) {
        double norm = 0.0;
        for (int32_t v = 0; v < VOCAB; v++)
            norm += exp(bigram_log_policy(loop->bigram, h, state, v) / temperature[h]);
        sum += bigram_log_policy(loop->bigram, h, state, token[t]) / temperature[h] -
               log(norm);
        state = token[t];
    }
    return sum;
}

static void scores_are_the_policies_own(void **state)
{
    struct loop loop;
    struct mpo_responses responses = {0};
    (void)state;
    open_loop(&loop, 2);
    run_step(&loop, 0, false, &responses);
    for (int32_t i = 0; i < PROMPTS * RESPONSES; i++) {
        const int32_t *token = responses.token + i * MAX_TOKENS;
        int32_t count = responses.token_count[i];
        assert_in_range(count, 1, MAX_TOKENS);
        assert_int_equal(responses.ended[i], token[count - 1] == end_token);
        if (!responses.ended[i])
            assert_int_equal(count, MAX_TOKENS);
        /* Tables hold log-probabilities as float: 1e-6 a token is what is left of them. */
        for (int32_t h = 0; h < POLICIES; h++)
            assert_close(responses.log_policy[i * POLICIES + h],
                         log_response(&loop, h, loop.start[i / RESPONSES], token, count),
                         2e-6 * count);
    }
    close_loop(&loop);
}

static void finished_rows_cost_no_decode(void **state)
{
    struct loop loop;
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
    close_loop(&loop);
}

static void reports_grow_to_all_responses_and_tokens(void **state)
{
    struct loop loop;
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
        close_loop(&loop);
    }
}

static void token_loop_allocates_nothing(void **state)
{
    struct loop loop;
    struct mpo_responses responses = {0};
    (void)state;
    allocation_count = 0;
    open_loop(&loop, 2);
    assert_true(allocation_count > 0); /* the counter counts */
    allocation_count = 0;
    for (int64_t step = 0; step < 5; step++)
        run_step(&loop, step, false, &responses);
    assert_int_equal(allocation_count, 0);
    close_loop(&loop);
}

static void scoring_allocates_nothing_and_keeps_its_books(void **state)
{
    static const double mu[POLICIES] = {0.5, 0.2, 0.3};
    static const int64_t prompt[PROMPTS] = {0, 1, 2};
    static const int32_t lengths[PROMPTS * ANSWER_COUNT] = {2, 101, 1, 3, 2, 1};
    struct mpo_rollout_step step = {.prompt = prompt,
                                    .prompt_count = PROMPTS,
                                    .mu = mu,
                                    .report = take_report,
                                    .reporter = &reported};
    struct mpo_scores scores = {0};
    struct loop loop;
    (void)state;
    open_as(&loop, 1, true);
    allocation_count = 0;
    for (int i = 0; i < 3; i++) {
        memset(&reported, 0, sizeof reported);
        assert_ok(mpo_rollout_score(loop.rollout, &step, &scores));
    }
    assert_int_equal(allocation_count, 0);
    assert_close(reported.responses, PROMPTS * ANSWER_COUNT, 0);
    assert_int_equal(reported.tokens, 2 + 101 + 1 + 3 + 2 + 1);
    for (int32_t i = 0; i < PROMPTS * ANSWER_COUNT; i++) {
        double sum = 0.0;
        for (int32_t h = 0; h < POLICIES; h++)
            sum += mu[h] * scores.log_policy[i * POLICIES + h];
        assert_int_equal(scores.token_count[i], lengths[i]);
        assert_close(scores.log_mixture[i], sum - scores.log_z[i], 1e-10);
        assert_true(scores.log_z[i] < 0.0);
    }
    close_loop(&loop);
}

/* Units are a matter of batching: what a prompt gets does not depend on them. */
static void responses_do_not_depend_on_units(void **state)
{
    struct loop one;
    struct loop three;
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
    close_loop(&three);
    close_loop(&one);
}

static void greedy_responses_to_a_prompt_are_alike(void **state)
{
    struct loop loop;
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
    close_loop(&loop);
}

static void another_step_draws_other_responses(void **state)
{
    struct loop loop;
    struct mpo_responses responses = {0};
    int32_t before[PROMPTS * RESPONSES];
    (void)state;
    open_loop(&loop, 1);
    run_step(&loop, 0, false, &responses);
    memcpy(before, responses.token_count, sizeof before);
    run_step(&loop, 1, false, &responses);
    assert_memory_not_equal(before, responses.token_count, sizeof before);
    close_loop(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_policies_own),
        cmocka_unit_test(finished_rows_cost_no_decode),
        cmocka_unit_test(reports_grow_to_all_responses_and_tokens),
        cmocka_unit_test(token_loop_allocates_nothing),
        cmocka_unit_test(scoring_allocates_nothing_and_keeps_its_books),
        cmocka_unit_test(responses_do_not_depend_on_units),
        cmocka_unit_test(greedy_responses_to_a_prompt_are_alike),
        cmocka_unit_test(another_step_draws_other_responses),
    };
    return run_cases("rollout", tests);
}
