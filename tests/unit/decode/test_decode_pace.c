/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many prompt tokens go beside rows that draw, on machines whose steps cost what a case
 * says: seconds of a step, of each row that draws and of each prompt token, which costs more
 * the longer its prompt is already.
 */
#include <string.h>

#include "decode/pace.h"
#include "runner.h"

#define ROWS    16
#define STRETCH 2.25
#define SETTLED 12 /* steps with prompt tokens */

struct machine {
    double step, row, token;
    double growth; /* of a token's seconds, a token before it */
    double drag;   /* of a row's seconds, a token of the prompt */
    double load;   /* all takes so many times as long */
    int32_t fed;   /* of the prompt */
    struct mpo_decode_pace pace;
};

static void open_machine(struct machine *machine, double step, double row, double token)
{
    *machine = (struct machine){.step = step, .row = row, .token = token, .load = 1.0};
    assert_ok(mpo_decode_pace_open(&machine->pace, STRETCH, ROWS));
}

static double take_step(struct machine *machine, const struct mpo_decode_load *load,
                        int32_t chunk)
{
    double seconds = machine->step;
    seconds += load->drawing * machine->row * (1.0 + machine->drag * machine->fed);
    for (int32_t i = 0; i < chunk; i++)
        seconds += machine->token * (1.0 + machine->growth * machine->fed++);
    seconds *= machine->load;
    mpo_decode_pace_note(&machine->pace, load, chunk, seconds);
    return seconds;
}

static const struct mpo_decode_load eight = {.drawing = 8, .waiting = 1};

/* Some steps of eight rows without prompts, and the first ones beside one. The very first takes
 * as many tokens as if each were a row. */
static double settle(struct machine *machine)
{
    double calm = 0.0;
    for (int32_t i = 0; i < 10; i++)
        calm = take_step(machine, &(struct mpo_decode_load){.drawing = 8}, 0);
    assert_int_equal(mpo_decode_pace_choose(&machine->pace, &eight),
                     (int32_t)(8.0 * (STRETCH - 1.0)));
    for (int32_t i = 0; i < 1 + SETTLED; i++)
        take_step(machine, &eight, mpo_decode_pace_choose(&machine->pace, &eight));
    return calm;
}

/* ---- cases ---- */

static void nothing_is_known_at_first(void **state)
{
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.01, 0.007, 0.007);
    assert_int_equal(mpo_decode_pace_choose(&machine.pace, &eight), -1);
    take_step(&machine, &eight, 16); /* what draws take of it is not known */
    assert_int_equal(mpo_decode_pace_choose(&machine.pace, &eight), -1);
    mpo_decode_pace_close(&machine.pace);
}

/* Steps take what is allowed of the time without prompts, and the prompt no longer than
 * that makes it: its own seconds times stretch / (stretch - 1). */
static void steps_take_what_is_allowed(void **state)
{
    static const double token[] = {0.001, 0.0065, 0.03};
    (void)state;
    for (size_t i = 0; i < sizeof token / sizeof *token; i++) {
        struct machine machine;
        double beside = 0.0, own = 0.0;
        open_machine(&machine, 0.005, 0.0075, token[i]);
        machine.growth = 0.001;
        double calm = settle(&machine);
        for (int32_t step = 0; step < 200; step++) {
            int32_t chunk = mpo_decode_pace_choose(&machine.pace, &eight);
            double seconds = take_step(&machine, &eight, chunk);
            assert_true(seconds < 1.1 * STRETCH * calm);
            beside += seconds;
            own += seconds - calm;
            assert_true(chunk > 0 || step % 33 == 32 - SETTLED - 1);
        }
        assert_true(beside < 1.2 * own * STRETCH / (STRETCH - 1.0));
        mpo_decode_pace_close(&machine.pace);
    }
}

/* Rows that draw become slower beside a longer prompt, and less is left for it. */
static void slower_rows_leave_less(void **state)
{
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.005, 0.0075, 0.0065);
    machine.drag = 0.0002;
    machine.growth = 0.0005;
    double calm = settle(&machine);
    while (machine.fed < 1900)
        assert_true(take_step(&machine, &eight,
                              mpo_decode_pace_choose(&machine.pace, &eight)) < 3.0 * calm);
    mpo_decode_pace_close(&machine.pace);
}

/* A machine that has become slower takes as many tokens as before, after a few probes. */
static void a_slower_machine_is_measured_anew(void **state)
{
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.005, 0.0075, 0.0065);
    settle(&machine);
    int32_t before = mpo_decode_pace_choose(&machine.pace, &eight);
    machine.load = 3.0;
    int32_t least = before;
    for (int32_t step = 0; step < 400; step++) {
        int32_t chunk = mpo_decode_pace_choose(&machine.pace, &eight);
        least = chunk > 0 && chunk < least ? chunk : least;
        take_step(&machine, &eight, chunk);
    }
    assert_int_equal(least, 2); /* for eight rows */
    int32_t after = mpo_decode_pace_choose(&machine.pace, &eight);
    assert_true(after >= before - 1 && after <= before + 1);
    mpo_decode_pace_close(&machine.pace);
}

static void one_slow_step_is_not_believed(void **state)
{
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.005, 0.0075, 0.0065);
    settle(&machine);
    int32_t before = mpo_decode_pace_choose(&machine.pace, &eight);
    machine.load = 50.0;
    take_step(&machine, &eight, before);
    machine.load = 1.0;
    assert_true(mpo_decode_pace_choose(&machine.pace, &eight) >= before / 1.25 - 1);
    take_step(&machine, &(struct mpo_decode_load){.drawing = 8}, 0);
    assert_true(mpo_decode_pace_choose(&machine.pace, &eight) >= before / 1.25 - 1);
    mpo_decode_pace_close(&machine.pace);
}

/* Numbers of rows that were never alone: a row more costs about what a token does. */
static void other_numbers_of_rows_are_estimated(void **state)
{
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.03, 0.007, 0.007);
    settle(&machine);
    for (int32_t rows = 1; rows <= ROWS; rows++) {
        struct mpo_decode_load load = {.drawing = rows, .waiting = 1};
        double calm = 0.03 + rows * 0.007;
        int32_t chunk = mpo_decode_pace_choose(&machine.pace, &load);
        assert_true(chunk >= 1);
        assert_true(calm + chunk * 0.007 < 1.05 * STRETCH * calm);
        if (rows >= 8)
            assert_true(calm + chunk * 0.007 > 0.9 * STRETCH * calm);
    }
    mpo_decode_pace_close(&machine.pace);
}

/* Given tokens that are looked up hide what the others cost, and no probe waits for them. */
static void looking_up_teaches_nothing(void **state)
{
    const struct mpo_decode_load busy = {.drawing = 8, .looked_up = 32, .waiting = 1};
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.005, 0.0075, 0.0065);
    settle(&machine);
    int32_t before = mpo_decode_pace_choose(&machine.pace, &eight);
    for (int32_t step = 0; step < 100; step++) {
        mpo_decode_pace_note(&machine.pace, &busy, before, 1.0);
        assert_int_equal(mpo_decode_pace_choose(&machine.pace, &busy), before);
    }
    for (int32_t step = 0; step < 32 - SETTLED - 1; step++) {
        assert_true(mpo_decode_pace_choose(&machine.pace, &eight) > 0);
        take_step(&machine, &eight, before);
    }
    assert_int_equal(mpo_decode_pace_choose(&machine.pace, &eight), 0);
    assert_true(mpo_decode_pace_choose(&machine.pace, &busy) > 0);
    mpo_decode_pace_close(&machine.pace);
}

/* However little is allowed, a prompt goes on. */
static void a_prompt_always_goes_on(void **state)
{
    struct machine machine;
    (void)state;
    open_machine(&machine, 0.005, 0.0075, 10.0);
    settle(&machine);
    assert_int_equal(mpo_decode_pace_choose(&machine.pace, &eight), 2);
    mpo_decode_pace_close(&machine.pace);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_at_first),
        cmocka_unit_test(steps_take_what_is_allowed),
        cmocka_unit_test(slower_rows_leave_less),
        cmocka_unit_test(a_slower_machine_is_measured_anew),
        cmocka_unit_test(one_slow_step_is_not_believed),
        cmocka_unit_test(other_numbers_of_rows_are_estimated),
        cmocka_unit_test(looking_up_teaches_nothing),
        cmocka_unit_test(a_prompt_always_goes_on),
    };
    return run_cases("decode_pace", tests);
}
