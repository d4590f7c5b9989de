/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The row machine by itself: rows with exponents, lengths, rules and seeds of their own,
 * admitted and cancelled at random moments, are to the bit what each of them is alone. On
 * one rank and on several; the root plays, the others follow.
 */
#include <math.h>

#include "decode_requests.h"
#include "runner.h"

static void compare_requests(struct mpo_decode *decode)
{
    static struct decode_request requests[DECODE_REQUESTS];
    for (int32_t i = 0; i < DECODE_REQUESTS; i++) {
        decode_request_make(&requests[i]);
        decode_request_run_alone(decode, &requests[i]);
    }
    decode_requests_run_in_company(decode, requests);
}

/* ---- cases ---- */

static void rows_in_company_are_what_each_is_alone(void **state)
{
    (void)state;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_ALONE, 0);
    decode_play(&spec, compare_requests);
}

static void prompts_in_chunks_beside_rows_change_nothing(void **state)
{
    (void)state;
    for (int32_t tokens = 1; tokens <= 8; tokens *= 2) {
        struct rollout_case_spec spec = decode_machine(MPO_DECODE_MIXED, tokens);
        decode_play(&spec, compare_requests);
    }
}

/* A machine on each transport that serves the group, under both patterns. */
static void play_everywhere(struct rollout_case_spec spec,
                            void (*root)(struct mpo_decode *))
{
    static const char *const transports[2][2] = {{"self", NULL}, {"shared", "mpi"}};
    static const enum mpo_pattern patterns[2] = {MPO_PATTERN_GATHER, MPO_PATTERN_ALLTOALL};
    for (int32_t i = 0; i < 4; i++) {
        spec.transport = transports[mpo_comm_job_size() > 1][i / 2];
        spec.pattern = patterns[i % 2];
        if (spec.transport != NULL)
            decode_play(&spec, root);
    }
}

static void every_transport_and_pattern_serves_rows_of_their_own(void **state)
{
    (void)state;
    play_everywhere(decode_machine(MPO_DECODE_MIXED, 2), compare_requests);
}

/* ---- rows of weighted policies only ---- */

/* Alone with all figures, in company without those of policies that have no weight. */
static void leave_figures(struct decode_request *request)
{
    request->row.weighted_only = decode_chance() < 0.6;
    for (int32_t i = 0; request->row.weighted_only && i < request->alone_count; i++)
        for (int32_t h = 0; h < DECODE_POLICIES; h++)
            if (request->mu[h] == 0.0) {
                request->alone[i].log_policy[h] = NAN;
                request->alone[i].expectation[h] = request->row.moments ? NAN : 0.0;
            }
}

static void compare_weighted_requests(struct mpo_decode *decode)
{
    static struct decode_request requests[DECODE_REQUESTS];
    int32_t skipping = 0;
    for (int32_t i = 0; i < DECODE_REQUESTS; i++) {
        decode_request_make(&requests[i]);
        for (int32_t h = 0; h < DECODE_POLICIES; h++)
            requests[i].mu[h] *= decode_chance() < 0.4 ? 0.0 : 1.0;
        decode_request_run_alone(decode, &requests[i]);
        leave_figures(&requests[i]);
        for (int32_t h = 0; h < DECODE_POLICIES; h++)
            skipping += requests[i].row.weighted_only && requests[i].mu[h] == 0.0;
    }
    assert_in_range(skipping, DECODE_REQUESTS / 2, 2 * DECODE_REQUESTS);
    decode_requests_run_in_company(decode, requests);
}

static void rows_of_weighted_policies_only_have_the_same_tokens(void **state)
{
    (void)state;
    play_everywhere(decode_machine(MPO_DECODE_ALONE, 0), compare_weighted_requests);
    for (int32_t tokens = 1; tokens <= 8; tokens *= 2)
        play_everywhere(decode_machine(MPO_DECODE_MIXED, tokens),
                        compare_weighted_requests);
}

#define WEIGHTED_ROWS 3

/* Rows that share a prompt, and keep their caches. The last policy has no weight. */
static bool leaves_figures;

static void run_weighted(struct mpo_decode *decode)
{
    static const double mu[DECODE_POLICIES] = {0.7, 0.5};
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    int32_t row = -1;
    mpo_decode_clear(decode);
    for (int32_t j = 0; j < WEIGHTED_ROWS; j++) {
        struct mpo_decode_row wish = {.share = j > 0 ? 0 : -1,
                                      .free_count = 5,
                                      .mu = mu,
                                      .end_bias = -50.0,
                                      .weighted_only = leaves_figures,
                                      .parks = true};
        wish.rule.counter.response = (uint64_t)j;
        assert_ok(mpo_decode_admit(decode, &wish, &row));
        assert_int_equal(row, j);
    }
    while (mpo_decode_live_rows(decode) > 0) {
        assert_ok(mpo_decode_step(decode, &event, &count));
        for (int32_t i = 0; i < count; i++)
            assert_int_equal(isnan(event[i].log_policy[DECODE_POLICIES - 1]),
                             leaves_figures);
    }
}

/* Nothing of a policy without weight is computed or sent: its caches are empty, and a rank
 * that has no other policy is silent. */
static void a_policy_without_weight_is_neither_fed_nor_exchanged(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        struct rollout_case_spec spec =
            decode_machine(i / 2 == 0 ? MPO_DECODE_ALONE : MPO_DECODE_MIXED, 2);
        struct rollout_case loop;
        int32_t first = 0;
        int32_t local_count = 0;
        leaves_figures = i % 2 == 1;
        rollout_case_open(&loop, &spec);
        const struct mpo_placement placement = mpo_placement_of(DECODE_POLICIES, loop.comm);
        mpo_placement_block(&placement, mpo_comm_group_rank(loop.comm), &first,
                            &local_count);
        decode_play_on(&loop, run_weighted);
        for (int32_t k = 0; k < local_count; k++)
            for (int32_t row = 0; row < WEIGHTED_ROWS; row++) {
                bool skipped = leaves_figures && first + k == DECODE_POLICIES - 1;
                int32_t tokens =
                    mpo_policy_row_tokens(mpo_policies_local(loop.policies, k), row);
                assert_int_equal(tokens > 0, !skipped);
            }
        struct mpo_exchange_traffic traffic = mpo_exchange_traffic(loop.exchange);
        if (first == DECODE_POLICIES - 1)
            assert_int_equal(traffic.sent_bytes > 0, !leaves_figures);
        rollout_case_close(&loop);
    }
}

/* Rows that share a prompt are rows with a prompt each. */
static void share_prompts(struct mpo_decode *decode)
{
    static struct decode_request requests[4];
    const struct mpo_decode_event *event = NULL;
    int32_t count = 0;
    decode_request_make(&requests[0]);
    requests[0].row.given_count = 0;
    requests[0].row.free_count = 6;
    requests[0].row.slot = 0;
    for (int32_t j = 0; j < 4; j++) {
        requests[j] = requests[0];
        requests[j].row.rule.counter.response = (uint64_t)j;
        requests[j].alone_count = 0;
        decode_request_run_alone(decode, &requests[j]);
    }
    /* the first one is cancelled before its prompt is fed: the others
     * have it all the same */
    for (int32_t cancels = 0; cancels < 2; cancels++) {
        mpo_decode_clear(decode);
        for (int32_t j = 0; j < 4; j++) {
            requests[j].seen = 0;
            requests[j].row.share = j > 0 ? requests[0].row_index : -1;
            assert_ok(mpo_decode_admit(decode, &requests[j].row, &requests[j].row_index));
        }
        if (cancels)
            mpo_decode_cancel(decode, requests[0].row_index);
        while (mpo_decode_live_rows(decode) > 0) {
            assert_ok(mpo_decode_step(decode, &event, &count));
            for (int32_t i = 0; i < count; i++) {
                struct decode_request *request = &requests[event[i].row];
                struct decode_figures figures = decode_figures_of(&request->row, &event[i]);
                assert_false(cancels && event[i].row == 0);
                assert_memory_equal(&figures, &request->alone[request->seen++],
                                    sizeof(struct decode_figures));
            }
        }
        for (int32_t j = cancels; j < 4; j++)
            assert_int_equal(requests[j].seen, requests[j].alone_count);
        assert_int_equal(mpo_decode_free_rows(decode), DECODE_ROW_COUNT);
    }
}

static void rows_that_share_a_prompt_draw_as_if_each_had_it(void **state)
{
    (void)state;
    struct rollout_case_spec alone = decode_machine(MPO_DECODE_ALONE, 0);
    struct rollout_case_spec mixed = decode_machine(MPO_DECODE_MIXED, 2);
    decode_play(&alone, share_prompts);
    decode_play(&mixed, share_prompts);
}

/* The most probable tokens have the figures of tokens that are drawn or given. */
static void look_at_tops(struct mpo_decode *decode)
{
    struct decode_request request;
    const struct mpo_decode_event *event = NULL;
    int32_t row = -1;
    int32_t count = 0;
    decode_request_make(&request);
    request.row.rule = (struct mpo_draw_rule){.greedy = true};
    request.row.given_count = 0;
    request.row.free_count = 5;
    request.row.top_count = DECODE_TOP_MAX;
    mpo_decode_clear(decode);
    assert_ok(mpo_decode_admit(decode, &request.row, &row));
    while (mpo_decode_live_rows(decode) > 0) {
        assert_ok(mpo_decode_step(decode, &event, &count));
        assert_int_equal(count, 1);
        assert_int_equal(event->top_token[0], event->token);
        assert_same_bits(event->top_log_q[0], event->log_q);
        for (int32_t i = 1; i < DECODE_TOP_MAX; i++)
            assert_true(event->top_log_q[i] <= event->top_log_q[i - 1]);
    }
}

static void the_most_probable_token_is_the_greedy_one_with_its_figure(void **state)
{
    (void)state;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_ALONE, 0);
    decode_play(&spec, look_at_tops);
}

/* A parked row keeps its place until it is given back. */
static void park_rows(struct mpo_decode *decode)
{
    struct decode_request request;
    const struct mpo_decode_event *event = NULL;
    int32_t row[2] = {-1, -1};
    int32_t count = 0;
    decode_request_make(&request);
    request.row.given_count = 0;
    request.row.free_count = 5;
    request.row.end_bias = -50.0; /* never ends by itself */
    request.row.slot = 1;         /* a prompt of one chunk */
    mpo_decode_clear(decode);
    assert_ok(mpo_decode_admit(decode, &request.row, &row[0]));
    assert_ok(mpo_decode_step(decode, &event, &count));
    mpo_decode_park(decode, row[0]);
    assert_int_equal(mpo_decode_live_rows(decode), 0);
    request.row.parks = true;
    assert_ok(mpo_decode_admit(decode, &request.row, &row[1]));
    assert_int_not_equal(row[0], row[1]);
    while (mpo_decode_live_rows(decode) > 0)
        assert_ok(mpo_decode_step(decode, &event, &count));
    assert_int_equal(mpo_decode_free_rows(decode), DECODE_ROW_COUNT - 2);
    mpo_decode_cancel(decode, row[0]);
    mpo_decode_cancel(decode, row[1]);
    assert_int_equal(mpo_decode_free_rows(decode), DECODE_ROW_COUNT);
    assert_ok(mpo_decode_admit(decode, &request.row, &row[0]));
    assert_int_equal(row[0], 0);
    assert_ok(mpo_decode_step(decode, &event, &count));
    assert_int_equal(count, 1);
}

static void parked_rows_keep_their_places(void **state)
{
    (void)state;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_MIXED, 2);
    decode_play(&spec, park_rows);
}

static void refuse(struct mpo_decode *decode, struct mpo_decode_row row, const char *says)
{
    int32_t index = -1;
    assert_status(mpo_decode_admit(decode, &row, &index), MPO_ERR_USAGE);
    assert_error_names(says);
    assert_int_equal(index, -1);
}

/* What would reach the arithmetic, or end the job. */
static void refuse_requests(struct mpo_decode *decode, const struct mpo_decode_row *good)
{
    static const struct mpo_mixture_bias biases[3] = {
        {DECODE_VOCAB, 0.0}, {-1, 0.0}, {0, NAN}};
    static const struct {
        struct mpo_mixture_filter filter;
        const char *says;
    } filters[6] = {{{.temperature = -1.0}, "temperature -1"},
                    {{.temperature = NAN}, "temperature"},
                    {{.top_k = -1}, "top_k -1"},
                    {{.top_p = 1.5}, "top_p 1.5"},
                    {{.top_p = NAN}, "top_p"},
                    {{.min_p = 2.0}, "min_p 2"}};
    struct mpo_decode_row row = *good;
    row.mu = NULL;
    refuse(decode, row, "mu NULL, expected 3 exponents");
    row = *good;
    row.given_count = 1;
    refuse(decode, row, "given is NULL");
    row = *good;
    row.free_count = INT32_MAX;
    refuse(decode, row, "and room for 40; lower free_count");
    for (int32_t i = 0; i < 2; i++) {
        const double mu[DECODE_POLICIES] = {0.5, i == 0 ? NAN : INFINITY, 0.3};
        row = *good;
        row.mu = mu;
        refuse(decode, row, "of policy 'two', expected a finite one");
        row = *good;
        row.end_bias = i == 0 ? NAN : -INFINITY;
        refuse(decode, row, "end bias");
    }
    for (int32_t i = 0; i < 6; i++) {
        row = *good;
        row.rule.filter = filters[i].filter;
        refuse(decode, row, filters[i].says);
    }
    for (int32_t i = 0; i < 3; i++) {
        row = *good;
        row.rule.bias = &biases[i];
        row.rule.bias_count = 1;
        refuse(decode, row, "expected one below infinity on a token of a vocabulary of 5");
    }
}

static void refuse_rows(struct mpo_decode *decode)
{
    static const int32_t given[DECODE_GIVEN_MAX] = {0};
    static const int32_t strange[1] = {DECODE_VOCAB};
    const double mu[DECODE_POLICIES] = {0.5, 0.2, 0.3};
    const double other[DECODE_POLICIES] = {0.4, 0.3, 0.3};
    const struct mpo_decode_row good = {.share = -1, .free_count = 1, .mu = mu};
    struct mpo_decode_row row = good;
    int32_t index = -1;
    int32_t leader = -1;
    mpo_decode_clear(decode);
    row.free_count = 0;
    refuse(decode, row, "0 given and 0 drawn");
    row = good;
    row.slot = ROLLOUT_CASE_PROMPTS_MAX;
    refuse(decode, row, "prompt slot 16, of 16");
    row = good;
    row.slot = DECODE_SLOT_COUNT;
    refuse(decode, row, "offered no prompt");
    row = good;
    row.top_count = DECODE_TOP_MAX + 1;
    refuse(decode, row, "4 most probable tokens");
    row = good;
    row.given = strange;
    row.given_count = 1;
    refuse(decode, row, "given token 5 of a vocabulary of 5");
    row = good;
    row.rule.bias_count = DECODE_BIAS_MAX + 1;
    refuse(decode, row, "3 biases");
    row = good;
    row.share = 3;
    refuse(decode, row, "the prompt of row 3");
    refuse_requests(decode, &good);
    assert_ok(mpo_decode_admit(decode, &good, &leader));
    row = good;
    row.share = leader;
    row.mu = other;
    refuse(decode, row, "the same slot, exponents");
    row = good;
    row.given = given;
    row.given_count = DECODE_GIVEN_MAX;
    for (int32_t i = 1; i < DECODE_ROW_COUNT; i++)
        assert_ok(mpo_decode_admit(decode, &row, &index));
    index = -1;
    refuse(decode, good, "all 7 rows are in use");
    mpo_decode_clear(decode);
    assert_int_equal(mpo_decode_free_rows(decode), DECODE_ROW_COUNT);
}

static void rows_that_have_no_room_are_refused(void **state)
{
    (void)state;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_MIXED, 2);
    spec.response_tokens = 40;
    decode_play(&spec, refuse_rows);
}

static void rows_are_admitted_at_the_root_alone(void **state)
{
    (void)state;
    struct rollout_case loop;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_ALONE, 0);
    const double mu[DECODE_POLICIES] = {1.0};
    rollout_case_open(&loop, &spec);
    if (mpo_comm_group_rank(loop.comm) != 0) {
        const struct mpo_decode_event *event = NULL;
        int32_t count = 0;
        refuse(loop.decode, (struct mpo_decode_row){.share = -1, .mu = mu, .free_count = 1},
               "admitted at the root of their group");
        assert_status(mpo_decode_offer_text(loop.decode, 0, "a", NULL), MPO_ERR_USAGE);
        assert_status(mpo_decode_step(loop.decode, &event, &count), MPO_ERR_USAGE);
        assert_status(mpo_decode_rebias(loop.decode, 0, NULL, 0), MPO_ERR_USAGE);
        assert_int_equal(mpo_decode_live_rows(loop.decode), 0);
        assert_int_equal(mpo_decode_free_rows(loop.decode), 0);
        mpo_decode_cancel(loop.decode, 0);
        mpo_decode_pause(loop.decode, 0, true);
        mpo_decode_park(loop.decode, 0);
        mpo_decode_clear(loop.decode);
    }
    rollout_case_close(&loop);
}

static void offer_prompts(struct mpo_decode *decode)
{
    int32_t lengths[DECODE_POLICIES] = {0};
    assert_status(mpo_decode_offer_text(decode, 1, "a q", lengths), MPO_ERR_DATA);
    assert_error_names("'q' is not a token");
    const double mu[DECODE_POLICIES] = {1.0};
    refuse(decode,
           (struct mpo_decode_row){.slot = 1, .share = -1, .mu = mu, .free_count = 1},
           "prompt slot 1, which was offered no prompt");
    assert_status(mpo_decode_offer_text(decode, -1, "a", lengths), MPO_ERR_USAGE);
    assert_ok(mpo_decode_offer_text(decode, 1, "a b c", lengths));
    for (int32_t h = 0; h < DECODE_POLICIES; h++)
        assert_int_equal(lengths[h], 4); /* with the table's <s> */
    assert_ok(mpo_decode_idle(decode));
    compare_requests(decode);
}

static void a_prompt_that_a_policy_refuses_leaves_the_machine_whole(void **state)
{
    (void)state;
    struct rollout_case_spec spec = decode_machine(MPO_DECODE_MIXED, 2);
    decode_play(&spec, offer_prompts);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_in_company_are_what_each_is_alone),
        cmocka_unit_test(prompts_in_chunks_beside_rows_change_nothing),
        cmocka_unit_test(every_transport_and_pattern_serves_rows_of_their_own),
        cmocka_unit_test(rows_that_share_a_prompt_draw_as_if_each_had_it),
        cmocka_unit_test(the_most_probable_token_is_the_greedy_one_with_its_figure),
        cmocka_unit_test(parked_rows_keep_their_places),
        cmocka_unit_test(rows_that_have_no_room_are_refused),
        cmocka_unit_test(rows_are_admitted_at_the_root_alone),
        cmocka_unit_test(a_prompt_that_a_policy_refuses_leaves_the_machine_whole),
        cmocka_unit_test(rows_of_weighted_policies_only_have_the_same_tokens),
        cmocka_unit_test(a_policy_without_weight_is_neither_fed_nor_exchanged),
    };
    return run_cases_on_ranks(argc, argv, "decode", tests);
}
