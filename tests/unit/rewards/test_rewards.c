/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reward program that is a line of sh: requests and answers beyond what pipes hold, answers
 * cut anywhere, programs that end or are late, and the scale of measured rewards.
 */
#include "mpo/rewards.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "runner.h"

enum { K = 2, N = 3000, TEXT_BYTES = 120 };

static const char *const names[K] = {"tokens", "twice"};

/* Answers with the number of tokens, which is the last but one in a line. */
#define ECHO                                                                               \
    "sed -u 's/.*\"id\":\\([0-9]*\\),.*\"token_count\":\\([0-9]*\\),.*/"                   \
    "{\"twice\":\\2e1,\"id\":\\1,\"tokens\":\\2}/'"

struct room {
    const char *prompt[N];
    const char *prefill[N];
    char text[N * TEXT_BYTES];
    int64_t text_bytes[N];
    int32_t token_count[N];
    double reward[N * K];
};

static struct room room;

static struct mpo_rewards_batch make_batch(int32_t count, int64_t first_id)
{
    memset(room.text, 'x', sizeof room.text);
    for (int32_t i = 0; i < count; i++) {
        room.prompt[i] = "a \"prompt\"\n";
        room.prefill[i] = "";
        room.text_bytes[i] = TEXT_BYTES;
        room.token_count[i] = i % 97;
    }
    return (struct mpo_rewards_batch){
        .first_id = first_id,
        .count = count,
        .prompt = room.prompt,
        .prefill = room.prefill,
        .text = room.text,
        .text_bytes = room.text_bytes,
        .token_count = room.token_count,
    };
}

static enum mpo_status measure(const char *command, double deadline, int32_t count)
{
    struct mpo_rewards *rewards = NULL;
    const struct mpo_rewards_spec spec = {command, names, K, deadline};
    const struct mpo_rewards_batch batch = make_batch(count, 1000000);
    assert_ok(mpo_rewards_open(&spec, &rewards));
    enum mpo_status status = mpo_rewards_measure(rewards, &batch, room.reward);
    mpo_rewards_close(&rewards);
    assert_null(rewards);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
    assert_int_equal(errno, ECHILD);
    return status;
}

static void check_rewards(int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        assert_same_bits(room.reward[K * i], i % 97);
        assert_same_bits(room.reward[K * i + 1], 10.0 * (i % 97));
    }
}

static void a_batch_may_be_larger_than_the_pipes(void **state)
{
    (void)state;
    assert_ok(measure(ECHO, 60.0, N));
    check_rewards(N);
}

static void answers_may_come_in_pieces_and_in_any_order(void **state)
{
    (void)state;
    assert_ok(measure("head -50 | " ECHO " | sort -R | dd bs=7 2>/dev/null", 60.0, 50));
    check_rewards(50);
}

static void batches_follow_each_other(void **state)
{
    (void)state;
    struct mpo_rewards *rewards = NULL;
    const struct mpo_rewards_spec spec = {ECHO, names, K, 60.0};
    assert_ok(mpo_rewards_open(&spec, &rewards));
    for (int32_t count = 1; count < 200; count += 33) {
        const struct mpo_rewards_batch batch = make_batch(count, 10 * count);
        assert_ok(mpo_rewards_measure(rewards, &batch, room.reward));
        check_rewards(count);
    }
    mpo_rewards_close(&rewards);
}

static void programs_that_end_or_are_late_are_told_apart(void **state)
{
    (void)state;
    assert_status(measure("exit 3", 60.0, 5), MPO_ERR_PEER);
    assert_error_names("exit code 3");
    assert_status(measure("head -2 | " ECHO, 60.0, 5), MPO_ERR_PEER);
    assert_error_names("after 2 of 5 answers");
    assert_status(measure("kill -9 $$", 60.0, 5), MPO_ERR_PEER);
    assert_error_names("signal 9");
    assert_status(measure("sleep 100", 0.2, 5), MPO_ERR_PEER);
    assert_error_names("rewards.deadline (0.2 s)");
    assert_status(measure("exec <&-; sleep 100", 0.2, N), MPO_ERR_PEER);
    assert_error_names("late");
}

static void answers_that_are_none_are_shown(void **state)
{
    (void)state;
    static const char *const commands[] = {"yes",
                                           "head -c 100000 /dev/zero | tr '\\0' x",
                                           "echo '{\"id\": 1e3}'",
                                           "echo '{\"id\": -1}'",
                                           "printf '{\"id\":1000000}\\n'",
                                           "printf '\\0\\0\\n\\0'"};
    static const char *const words[] = {"found: y",           "less than 65536 bytes",
                                        "1000000 to 1000004", "1000000 to 1000004",
                                        "\"tokens\"",         "JSON"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        assert_status(measure(commands[i], 60.0, 5), MPO_ERR_DATA);
        assert_error_names(words[i]);
    }
}

/* ---- the scale ---- */

enum { UNITS = 5 };

static void what_is_given_is_not_measured(void **state)
{
    (void)state;
    static const double zeros[UNITS * K] = {1, 5, 2, 5, 3, 5, 2, 5, 2, 5};
    static const double ones[UNITS * K] = {4, 0, 5, 0, 5, 0, 5, 0, 6, 0};
    const struct mpo_rewards_measured measured = {UNITS, zeros, ones};
    double number[4][K] = {{NAN, -1.0}, {NAN, 2.0}};
    struct mpo_rewards_scale scale = {number[0], number[1], number[2], number[3]};
    assert_ok(mpo_rewards_settle_scale(&measured, names, K, &scale));
    assert_close(scale.zero[0], 2.0, 1e-15);
    assert_close(scale.one[0], 5.0, 1e-15);
    assert_close(scale.zero_error[0], sqrt(0.5 / UNITS), 1e-15);
    assert_same_bits(scale.zero[1], -1.0);
    assert_same_bits(scale.one[1], 2.0);
    assert_true(isnan(scale.zero_error[1]) && isnan(scale.one_error[1]));
}

/* Units that differ much, and the rise of each little: the error of the rise counts. */
static void the_rise_is_judged_by_its_own_error(void **state)
{
    (void)state;
    static const double rise[] = {0.0, 0.2, 0.1, 0.1, 0.1};
    double zeros[UNITS];
    double ones[UNITS];
    double number[4][1] = {{NAN}, {NAN}};
    struct mpo_rewards_scale scale = {number[0], number[1], number[2], number[3]};
    const struct mpo_rewards_measured measured = {UNITS, zeros, ones};
    for (int32_t u = 0; u < UNITS; u++) {
        zeros[u] = 10.0 * u;
        ones[u] = zeros[u] + rise[u];
    }
    assert_ok(mpo_rewards_settle_scale(&measured, names, 1, &scale));
    for (int32_t u = 0; u < UNITS; u++)
        ones[u] = zeros[u] + rise[u] - 0.05;
    number[0][0] = number[1][0] = NAN;
    assert_status(mpo_rewards_settle_scale(&measured, names, 1, &scale), MPO_ERR_DATA);
    assert_error_names("two standard errors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_may_be_larger_than_the_pipes),
        cmocka_unit_test(answers_may_come_in_pieces_and_in_any_order),
        cmocka_unit_test(batches_follow_each_other),
        cmocka_unit_test(programs_that_end_or_are_late_are_told_apart),
        cmocka_unit_test(answers_that_are_none_are_shown),
        cmocka_unit_test(what_is_given_is_not_measured),
        cmocka_unit_test(the_rise_is_judged_by_its_own_error),
    };
    return run_cases("rewards", tests);
}
