/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler under arrivals at random: no row, cell or slot is lost, a client's requests
 * keep their order, nobody starves, and two clients who always ask get shares that differ by
 * a bound and no more.
 */
#include <stdlib.h>
#include <string.h>

#include "mpo/rng.h"
#include "runner.h"
#include "serve/schedule.h"

#define ROWS    8
#define SLOTS   12
#define CELLS   400
#define QUEUE   40
#define CLIENTS 3

static uint64_t chance_count;

static int32_t chance_of(int32_t count)
{
    const struct mpo_rng_counter counter = {.step = chance_count++};
    double uniform = mpo_rng_uniform(11, MPO_RNG_TOKENS, counter);
    return (int32_t)(uniform * count);
}

/* A request and what happens to its prompts. */
struct job {
    struct mpo_schedule_request request;
    int32_t prompt_tokens;
    int32_t row_tokens;
    int32_t offered; /* prompts in order */
    int32_t seated;
    int32_t ended;
    bool is_gone;
};

struct seat {
    struct job *job; /* NULL: none */
    int32_t rows;    /* that live; 0: it is offered */
    int32_t prompt;
};

struct world {
    struct mpo_schedule *schedule;
    struct seat seat[SLOTS];
    int32_t live_rows;
    int64_t used_cells;
};

static void open_world(struct world *world)
{
    const struct mpo_schedule_spec spec = {.row_capacity = ROWS,
                                           .slot_capacity = SLOTS,
                                           .queue_capacity = QUEUE,
                                           .cell_capacity = CELLS,
                                           .client_count = CLIENTS};
    *world = (struct world){0};
    assert_ok(mpo_schedule_open(&spec, &world->schedule));
}

static void close_world(struct world *world)
{
    mpo_schedule_close(&world->schedule);
    assert_null(world->schedule);
}

static void check_counts(const struct world *world)
{
    assert_int_equal(mpo_schedule_free_rows(world->schedule), ROWS - world->live_rows);
    assert_int_equal(mpo_schedule_free_cells(world->schedule), CELLS - world->used_cells);
}

/* Whether there was one to offer. */
static bool offer(struct world *world)
{
    struct mpo_schedule_prompt prompt = {0};
    if (!mpo_schedule_take_offer(world->schedule, &prompt))
        return false;
    struct job *job = prompt.owner;
    assert_null(world->seat[prompt.slot].job);
    assert_int_equal(prompt.prompt, job->offered++);
    world->seat[prompt.slot] = (struct seat){.job = job, .prompt = prompt.prompt};
    int64_t cells = job->prompt_tokens + (int64_t)job->row_tokens * job->request.rows;
    bool fits = mpo_schedule_measure(world->schedule, prompt.slot, job->prompt_tokens,
                                     job->row_tokens);
    assert_int_equal(fits, cells <= CELLS);
    if (!fits) {
        mpo_schedule_drop(world->schedule, prompt.slot);
        world->seat[prompt.slot].job = NULL;
        job->seated++;
        job->ended++;
    }
    return true;
}

static bool take_seat(struct world *world)
{
    struct mpo_schedule_prompt prompt = {0};
    if (!mpo_schedule_take_seat(world->schedule, &prompt))
        return false;
    struct seat *seat = &world->seat[prompt.slot];
    assert_ptr_equal(seat->job, prompt.owner);
    assert_int_equal(seat->prompt, prompt.prompt);
    assert_int_equal(prompt.rows, seat->job->request.rows);
    assert_true(!seat->job->request.isolated || world->live_rows == 0);
    seat->rows = prompt.rows;
    seat->job->seated++;
    world->live_rows += prompt.rows;
    world->used_cells += seat->job->prompt_tokens + prompt.rows * seat->job->row_tokens;
    assert_true(world->live_rows <= ROWS && world->used_cells <= CELLS);
    return true;
}

static void end_row(struct world *world, int32_t slot)
{
    struct seat *seat = &world->seat[slot];
    mpo_schedule_leave_row(world->schedule, slot);
    world->live_rows--;
    world->used_cells -= seat->job->row_tokens;
    if (--seat->rows > 0)
        return;
    world->used_cells -= seat->job->prompt_tokens;
    seat->job->ended++;
    seat->job = NULL;
}

static void cancel(struct world *world, struct job *job)
{
    for (int32_t slot = 0; slot < SLOTS; slot++) {
        struct seat *seat = &world->seat[slot];
        if (seat->job != job)
            continue;
        if (seat->rows == 0) {
            mpo_schedule_drop(world->schedule, slot);
            seat->job = NULL;
        }
        while (seat->job != NULL)
            end_row(world, slot);
    }
    int32_t left = mpo_schedule_withdraw(world->schedule, job);
    assert_int_equal(left, job->request.prompt_count - job->offered);
    assert_int_equal(mpo_schedule_withdraw(world->schedule, job), 0);
    job->is_gone = true;
}

static void make_job(struct job *job)
{
    *job = (struct job){.request = {.owner = job,
                                    .client = chance_of(CLIENTS),
                                    .prompt_count = 1 + chance_of(3),
                                    .rows = chance_of(4) == 0 ? 1 + chance_of(ROWS) : 1,
                                    .isolated = chance_of(12) == 0},
                        .prompt_tokens = 1 + chance_of(60),
                        .row_tokens = 1 + chance_of(chance_of(20) == 0 ? 500 : 50)};
}

/* ---- cases ---- */

static void nothing_is_lost_and_everybody_is_served(void **state)
{
    (void)state;
    static struct job job[400];
    struct world world;
    int32_t count = 0;
    int32_t cancelled = 0;
    open_world(&world);
    for (int32_t turn = 0; turn < 20000; turn++) {
        bool arrives = count < 400 && chance_of(6) == 0;
        if (arrives) {
            make_job(&job[count]);
            if (mpo_schedule_enter(world.schedule, &job[count].request))
                count++;
            else
                assert_int_equal(mpo_schedule_waiting(world.schedule), QUEUE);
        }
        if (count > 0 && chance_of(40) == 0) {
            struct job *victim = &job[chance_of(count)];
            if (!victim->is_gone && victim->ended < victim->request.prompt_count) {
                cancel(&world, victim);
                cancelled++;
            }
        }
        offer(&world);
        while (take_seat(&world))
            ;
        int32_t slot = chance_of(SLOTS);
        if (world.seat[slot].rows > 0)
            end_row(&world, slot);
        check_counts(&world);
    }
    assert_int_equal(count, 400);
    assert_in_range(cancelled, 20, 390);
    for (int32_t i = 0; i < count; i++)
        assert_true(job[i].is_gone || job[i].ended == job[i].request.prompt_count);
    assert_int_equal(world.live_rows, 0);
    assert_int_equal(mpo_schedule_waiting(world.schedule), 0);
    close_world(&world);
}

/* A prompt of all rows among prompts of one: it is passed over so often and no more. */
static void a_large_prompt_is_passed_over_a_few_times_only(void **state)
{
    (void)state;
    static struct job small[64];
    static struct job large;
    struct world world;
    int32_t passed = 0;
    open_world(&world);
    for (int32_t i = 0; i < 4; i++) {
        small[i] = (struct job){
            .request = {&small[i], 0, 1, 1, false}, .prompt_tokens = 1, .row_tokens = 1};
        assert_true(mpo_schedule_enter(world.schedule, &small[i].request));
    }
    while (offer(&world))
        ;
    while (take_seat(&world))
        ;
    large = (struct job){
        .request = {&large, 0, 1, ROWS, false}, .prompt_tokens = 1, .row_tokens = 1};
    assert_true(mpo_schedule_enter(world.schedule, &large.request));
    for (int32_t i = 4; i < 64 && large.seated == 0; i++) {
        small[i] = (struct job){
            .request = {&small[i], 0, 1, 1, false}, .prompt_tokens = 1, .row_tokens = 1};
        assert_true(mpo_schedule_enter(world.schedule, &small[i].request));
        while (offer(&world))
            ;
        while (take_seat(&world))
            passed += large.seated == 0;
        for (int32_t slot = 0; slot < SLOTS; slot++)
            if (world.seat[slot].rows == 1) {
                end_row(&world, slot);
                break;
            }
    }
    assert_int_equal(large.seated, 1);
    assert_int_equal(passed, MPO_SCHEDULE_PATIENCE);
    close_world(&world);
}

/* A prompt that waits for another one's tokens is seated after others, and is not passed over
 * by that: the others never have to wait for it. */
static void held_prompts_wait_and_nobody_for_them(void **state)
{
    (void)state;
    static struct job job[MPO_SCHEDULE_PATIENCE + 4];
    struct world world;
    open_world(&world);
    job[0] = (struct job){
        .request = {&job[0], 0, 1, ROWS, false}, .prompt_tokens = 1, .row_tokens = 1};
    assert_true(mpo_schedule_enter(world.schedule, &job[0].request));
    assert_true(offer(&world));
    mpo_schedule_hold(world.schedule, 0, true);
    assert_false(take_seat(&world));
    for (int32_t i = 1; i < MPO_SCHEDULE_PATIENCE + 4; i++) {
        job[i] = (struct job){
            .request = {&job[i], 0, 1, 1, false}, .prompt_tokens = 1, .row_tokens = 1};
        assert_true(mpo_schedule_enter(world.schedule, &job[i].request));
        assert_true(offer(&world));
        assert_true(take_seat(&world));
        assert_int_equal(job[i].seated, 1);
        for (int32_t slot = 1; slot < SLOTS; slot++)
            if (world.seat[slot].rows == 1)
                end_row(&world, slot);
    }
    mpo_schedule_hold(world.schedule, 0, false);
    assert_true(take_seat(&world));
    assert_int_equal(job[0].seated, 1);
    close_world(&world);
}

/* Two clients who always have requests waiting; one asks for ten times as many tokens. */
static void two_clients_get_equal_shares_of_work(void **state)
{
    (void)state;
    static struct job job[4000];
    struct world world;
    int64_t work[2] = {0, 0};
    int32_t waiting[2] = {0, 0};
    int32_t count = 0;
    const int32_t tokens[2] = {40, 4};
    open_world(&world);
    for (int32_t turn = 0; turn < 3000; turn++) {
        for (int32_t client = 0; client < 2; client++)
            while (waiting[client] < 4 && count < 4000) {
                job[count] = (struct job){.request = {&job[count], client, 1, 1, false},
                                          .prompt_tokens = tokens[client],
                                          .row_tokens = tokens[client]};
                assert_true(mpo_schedule_enter(world.schedule, &job[count++].request));
                waiting[client]++;
            }
        struct mpo_schedule_prompt prompt = {0};
        if (!mpo_schedule_take_offer(world.schedule, &prompt))
            break;
        const struct job *served = prompt.owner;
        int32_t client = served->request.client;
        waiting[client]--;
        mpo_schedule_charge(world.schedule, client, tokens[client], tokens[client]);
        work[client] += 3 * tokens[client];
        mpo_schedule_drop(world.schedule, prompt.slot);
        /* a bound of twice the largest request */
        assert_true(llabs(work[0] - work[1]) <= 2 * 3 * tokens[0]);
    }
    assert_true(work[0] > 20000 && work[1] > 20000);
    close_world(&world);
}

/* Who comes late has no credit for the time in which he asked for nothing. */
static void a_client_who_comes_back_has_saved_nothing(void **state)
{
    (void)state;
    static struct job job[8];
    struct world world;
    int32_t of_late = 0;
    open_world(&world);
    for (int32_t i = 0; i < 4; i++) {
        job[i].request = (struct mpo_schedule_request){&job[i], 0, 1, 1, false};
        job[4 + i].request = (struct mpo_schedule_request){&job[4 + i], 1, 1, 1, false};
        assert_true(mpo_schedule_enter(world.schedule, &job[i].request));
    }
    mpo_schedule_charge(world.schedule, 0, 1000000, 0);
    for (int32_t i = 0; i < 4; i++)
        assert_true(mpo_schedule_enter(world.schedule, &job[4 + i].request));
    for (int32_t i = 0; i < 4; i++) {
        struct mpo_schedule_prompt prompt = {0};
        assert_true(mpo_schedule_take_offer(world.schedule, &prompt));
        const struct job *served = prompt.owner;
        mpo_schedule_charge(world.schedule, served->request.client, 10, 0);
        of_late += served->request.client;
    }
    assert_int_equal(of_late, 2);
    close_world(&world);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_and_everybody_is_served),
        cmocka_unit_test(a_large_prompt_is_passed_over_a_few_times_only),
        cmocka_unit_test(held_prompts_wait_and_nobody_for_them),
        cmocka_unit_test(two_clients_get_equal_shares_of_work),
        cmocka_unit_test(a_client_who_comes_back_has_saved_nothing),
    };
    return run_cases("schedule", tests);
}
