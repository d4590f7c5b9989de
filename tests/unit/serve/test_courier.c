/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two couriers and their links in one process: the test is the HTTP thread at one end and the
 * decode thread at the other.
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/timing.h"
#include "request_case.h"
#include "runner.h"
#include "serve/courier.h"
#include "serve/wire.h"

#define POLICIES     SERVE_CASE_POLICIES
#define STEP_EVENTS  8
#define WAIT_SECONDS 60.0
#define GROUP        1 /* of the near end's metrics */

struct end {
    struct mpo_link *link;
    struct mpo_courier *courier;
    struct mpo_metrics *metrics;
    _Atomic int lost;
    char text[256]; /* of the loss */
};

struct world {
    struct end near;
    struct end far;
};

static void note_loss(void *argument, const char *text)
{
    struct end *end = argument;
    snprintf(end->text, sizeof end->text, "%s", text);
    end->lost++;
}

static void ignore_news(void *argument)
{
    (void)argument;
}

static void open_end(struct end *end, int socket, bool is_near, double patience)
{
    const struct mpo_link_spec link = {.policy_count = POLICIES,
                                       .step_events = STEP_EVENTS,
                                       .notify = is_near ? ignore_news : mpo_courier_wake,
                                       .argument = &end->courier,
                                       .asked = is_near ? mpo_courier_wake : NULL,
                                       .asked_argument = &end->courier};
    assert_ok(
        mpo_metrics_open(&request_world.catalog, "", 2, is_near ? 2 : 1, &end->metrics));
    assert_ok(mpo_link_open(&link, &end->link));
    const struct mpo_courier_spec courier = {.socket = socket,
                                             .is_near = is_near,
                                             .peer = is_near ? 4 : 0,
                                             .policy_count = POLICIES,
                                             .link = end->link,
                                             .metrics = end->metrics,
                                             .group = is_near ? GROUP : 0,
                                             .alive_seconds = 0.05,
                                             .patience_seconds = patience,
                                             .lost = note_loss,
                                             .argument = end};
    assert_ok(mpo_courier_open(&courier, &end->courier));
}

static void close_end(struct end *end)
{
    mpo_courier_close(&end->courier);
    mpo_link_close(&end->link);
    mpo_metrics_close(&end->metrics);
}

static void open_world(struct world *world)
{
    int pair[2];
    *world = (struct world){0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    open_end(&world->near, pair[0], true, WAIT_SECONDS);
    open_end(&world->far, pair[1], false, WAIT_SECONDS);
}

static void close_world(struct world *world)
{
    assert_int_equal(world->near.lost, 0);
    assert_int_equal(world->far.lost, 0);
    close_end(&world->near);
    close_end(&world->far);
}

/* Wait for what another thread does. */
#define wait_until(condition)                                                              \
    do {                                                                                   \
        double until = mpo_timing_now() + WAIT_SECONDS;                                    \
        while (!(condition) && mpo_timing_now() < until)                                   \
            poll(NULL, 0, 1);                                                              \
        assert_true(condition);                                                            \
    } while (0)

/* The decode thread's next request. */
static struct mpo_serve_request *listen_for(struct mpo_link *link)
{
    double until = mpo_timing_now() + WAIT_SECONDS;
    struct mpo_link_news news = {0};
    while (news.submitted == NULL && mpo_timing_now() < until)
        news = mpo_link_listen(link, true, 0.1);
    assert_non_null(news.submitted);
    return news.submitted;
}

static struct mpo_serve_request *submit(struct world *world)
{
    struct mpo_serve_request *request =
        request_expect(MPO_SERVE_COMPLETION, "\"max_tokens\": 5");
    mpo_link_submit(world->near.link, request);
    return request;
}

static void put(struct mpo_link *link, struct mpo_serve_request *request,
                enum mpo_serve_event_kind kind, int32_t token)
{
    mpo_link_put(
        link, &(struct mpo_serve_event){.request = request, .kind = kind, .token = token});
}

/* Take events until `count` are there: tokens are 0, 1, ... in order, the last is DONE. */
static void take_in_order(struct mpo_link *link, const struct mpo_serve_request *request,
                          int32_t count)
{
    double until = mpo_timing_now() + WAIT_SECONDS;
    int32_t taken = 0;
    while (taken < count && mpo_timing_now() < until) {
        const struct mpo_serve_event *event = NULL;
        int32_t some = mpo_link_take(link, &event);
        for (int32_t i = 0; i < some; i++, taken++) {
            assert_ptr_equal(event[i].request, request);
            assert_int_equal(event[i].kind,
                             taken + 1 < count ? MPO_SERVE_TOKEN : MPO_SERVE_DONE);
            assert_true(taken + 1 == count || event[i].token == taken);
        }
        poll(NULL, 0, some == 0);
    }
    assert_int_equal(taken, count);
}

/* ---- cases ---- */

static void a_request_goes_there_and_its_events_come_back(void **state)
{
    struct world world;
    (void)state;
    open_world(&world);
    for (int32_t round = 0; round < 3; round++) {
        struct mpo_serve_request *near = submit(&world);
        struct mpo_serve_request *far = listen_for(world.far.link);
        assert_string_equal(far->id, near->id);
        assert_int_equal(far->prompt[0].token_count, near->prompt[0].token_count);
        for (int32_t i = 0; i < 3; i++)
            put(world.far.link, far, MPO_SERVE_TOKEN, i);
        put(world.far.link, far, MPO_SERVE_DONE, 0);
        mpo_link_send(world.far.link);
        take_in_order(world.near.link, near, 4);
        mpo_serve_request_close(&near);
    }
    close_world(&world);
}

static void cancellations_and_pauses_arrive(void **state)
{
    struct world world;
    (void)state;
    open_world(&world);
    struct mpo_serve_request *near = submit(&world);
    struct mpo_serve_request *far = listen_for(world.far.link);
    mpo_link_pause(world.near.link, near, true);
    wait_until(far->is_paused);
    mpo_link_pause(world.near.link, near, false);
    wait_until(!far->is_paused);
    assert_false(far->is_cancelled);
    mpo_link_cancel(world.near.link, near);
    wait_until(far->is_cancelled);
    put(world.far.link, far, MPO_SERVE_DONE, 0);
    mpo_link_send(world.far.link);
    take_in_order(world.near.link, near, 1);
    mpo_serve_request_close(&near);
    close_world(&world);
}

static void a_refusal_belongs_to_its_request(void **state)
{
    struct world world;
    const struct mpo_serve_event *event = NULL;
    (void)state;
    open_world(&world);
    struct mpo_serve_request *near = submit(&world);
    struct mpo_serve_request *far = listen_for(world.far.link);
    mpo_serve_refuse(&far->refusal, 503, "queue_timeout", "", "late");
    mpo_link_put(world.far.link, &(struct mpo_serve_event){.request = far,
                                                           .kind = MPO_SERVE_REFUSED,
                                                           .refusal = &far->refusal});
    mpo_link_send(world.far.link);
    int32_t count = 0;
    wait_until(count > 0 || (count = mpo_link_take(world.near.link, &event)) > 0);
    assert_int_equal(count, 1);
    assert_ptr_equal(event->refusal, &near->refusal);
    assert_string_equal(near->refusal.code, "queue_timeout");
    assert_string_equal(near->refusal.message, "late");
    put(world.far.link, far, MPO_SERVE_DONE, 0);
    mpo_link_send(world.far.link);
    take_in_order(world.near.link, near, 1);
    mpo_serve_request_close(&near);
    close_world(&world);
}

static void figures_in_use_arrive(void **state)
{
    struct world world;
    const struct mpo_link_use use = {
        .rows_live = 3, .cells_used = 70, .steps = 9, .last_step = mpo_timing_now() - 2.0};
    (void)state;
    open_world(&world);
    mpo_metrics_set(world.far.metrics, MPO_METRIC_ROWS, 0, 3.0);
    mpo_metrics_set(world.far.metrics, MPO_METRIC_KV_CACHE_USAGE_PERC, POLICIES - 1, 0.25);
    mpo_metrics_observe(world.far.metrics, MPO_METRIC_STEP_POSITIONS, 0, 5.0);
    mpo_link_show(world.far.link, &use);
    mpo_link_send(world.far.link);
    wait_until(mpo_link_use(world.near.link).rows_live == 3);
    struct mpo_link_use got = mpo_link_use(world.near.link);
    assert_int_equal(got.cells_used, 70);
    assert_int_equal(got.steps, 9);
    assert_between(mpo_timing_now() - got.last_step, 2.0, 2.0 + WAIT_SECONDS);
    assert_true(got.last_idle == 0.0);
    assert_close(mpo_metrics_get(world.near.metrics, MPO_METRIC_ROWS, GROUP), 3.0, 0.0);
    assert_close(mpo_metrics_get(world.near.metrics, MPO_METRIC_ROWS, 0), 0.0, 0.0);
    assert_close(mpo_metrics_get(world.near.metrics, MPO_METRIC_KV_CACHE_USAGE_PERC,
                                 GROUP * POLICIES + POLICIES - 1),
                 0.25, 0.0);
    close_world(&world);
}

/* Both have more to say than a socket holds, and nobody takes it at first. */
static void much_in_both_directions_is_no_deadlock(void **state)
{
    enum { REQUESTS = 40, EVENTS = 9000, PROMPT = 50000 };
    struct world world;
    struct mpo_serve_request *near[REQUESTS];
    (void)state;
    open_world(&world);
    struct mpo_serve_request *first = submit(&world);
    struct mpo_serve_request *far = listen_for(world.far.link);
    for (int32_t i = 0; i < REQUESTS; i++) {
        near[i] = request_expect(MPO_SERVE_COMPLETION, "\"max_tokens\": 5");
        near[i]->prompt[0].token = realloc(near[i]->prompt[0].token, PROMPT * 4);
        memset(near[i]->prompt[0].token, 0, PROMPT * 4);
        near[i]->prompt[0].token_count = PROMPT;
        mpo_link_submit(world.near.link, near[i]);
    }
    for (int32_t i = 0; i < EVENTS; i++)
        put(world.far.link, far, MPO_SERVE_TOKEN, i);
    put(world.far.link, far, MPO_SERVE_DONE, 0);
    mpo_link_send(world.far.link);
    take_in_order(world.near.link, first, EVENTS + 1);
    for (int32_t got = 0; got < REQUESTS;) {
        struct mpo_serve_request *request = listen_for(world.far.link);
        while (request != NULL) {
            struct mpo_serve_request *next = request->next;
            assert_int_equal(request->prompt[0].token_count, PROMPT);
            assert_string_equal(request->id, near[got++]->id);
            put(world.far.link, request, MPO_SERVE_DONE, 0);
            request = next;
        }
        mpo_link_send(world.far.link);
    }
    mpo_serve_request_close(&first);
    for (int32_t ended = 0; ended < REQUESTS;) {
        const struct mpo_serve_event *event = NULL;
        int32_t count = mpo_link_take(world.near.link, &event);
        for (int32_t i = 0; i < count; i++, ended++)
            assert_ptr_equal(event[i].request, near[ended]);
        poll(NULL, 0, count == 0);
    }
    for (int32_t i = 0; i < REQUESTS; i++)
        mpo_serve_request_close(&near[i]);
    close_world(&world);
}

static void the_last_events_arrive_before_the_end(void **state)
{
    struct world world;
    (void)state;
    open_world(&world);
    struct mpo_serve_request *near = submit(&world);
    struct mpo_serve_request *far = listen_for(world.far.link);
    mpo_link_stop(world.near.link);
    wait_until(mpo_link_listen(world.far.link, false, 0.0).stops);
    for (int32_t i = 0; i < 500; i++)
        put(world.far.link, far, MPO_SERVE_TOKEN, i);
    put(world.far.link, far, MPO_SERVE_DONE, 0);
    mpo_link_send(world.far.link);
    mpo_courier_finish(world.far.courier);
    mpo_courier_finish(world.near.courier);
    take_in_order(world.near.link, near, 501);
    mpo_serve_request_close(&near);
    close_world(&world);
}

static void a_peer_that_is_gone_is_lost_once(void **state)
{
    struct end near = {0};
    int pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    open_end(&near, pair[0], true, WAIT_SECONDS);
    close(pair[1]); /* as when its process dies */
    wait_until(near.lost > 0);
    assert_non_null(strstr(near.text, "rank 4 was lost"));
    poll(NULL, 0, 100);
    assert_int_equal(near.lost, 1);
    close_end(&near);
}

static void a_peer_that_closes_is_not_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct world world;
        open_world(&world);
        close_end(i == 0 ? &world.far : &world.near);
        poll(NULL, 0, 100); /* two signs of life, sent to nobody */
        close_world(&world);
    }
}

static void a_peer_that_says_nothing_is_lost_at_its_time(void **state)
{
    struct end far = {0};
    int pair[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    double began = mpo_timing_now();
    open_end(&far, pair[1], false, 0.5);
    wait_until(far.lost > 0);
    assert_between(mpo_timing_now() - began, 0.5, WAIT_SECONDS);
    assert_non_null(strstr(far.text, "rank 0 has not responded"));
    close(pair[0]);
    close_end(&far);
}

/* For longer than either's patience, which a busy machine may exhaust: then with more of it. */
static void idle_peers_hear_of_each_other(void **state)
{
    bool is_lost = true;
    (void)state;
    for (double patience = 0.6; is_lost && patience < WAIT_SECONDS; patience *= 5.0) {
        struct world world = {0};
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        open_end(&world.near, pair[0], true, patience);
        open_end(&world.far, pair[1], false, patience);
        poll(NULL, 0, (int)(2500.0 * patience));
        is_lost = world.near.lost + world.far.lost > 0;
        close_end(&world.near);
        close_end(&world.far);
    }
    assert_false(is_lost);
}

static void why_a_group_fails_is_told(void **state)
{
    struct world world;
    (void)state;
    open_world(&world);
    mpo_courier_report(world.far.courier, "rank 5 does not wake up");
    wait_until(world.near.lost == 1);
    assert_string_equal(world.near.text, "rank 5 does not wake up");
    close_end(&world.far); /* the near end has ended, and is no loss */
    close_end(&world.near);
}

static void bytes_that_are_no_frames_are_a_loss(void **state)
{
    struct end near = {0};
    int pair[2];
    char bytes[64];
    (void)state;
    memset(bytes, 0x7f, sizeof bytes);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    open_end(&near, pair[0], true, 5.0);
    assert_int_equal(send(pair[1], bytes, sizeof bytes, 0), sizeof bytes);
    wait_until(near.lost == 1);
    close(pair[1]);
    close_end(&near);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_goes_there_and_its_events_come_back),
        cmocka_unit_test(cancellations_and_pauses_arrive),
        cmocka_unit_test(a_refusal_belongs_to_its_request),
        cmocka_unit_test(figures_in_use_arrive),
        cmocka_unit_test(much_in_both_directions_is_no_deadlock),
        cmocka_unit_test(the_last_events_arrive_before_the_end),
        cmocka_unit_test(a_peer_that_is_gone_is_lost_once),
        cmocka_unit_test(a_peer_that_closes_is_not_lost),
        cmocka_unit_test(a_peer_that_says_nothing_is_lost_at_its_time),
        cmocka_unit_test(idle_peers_hear_of_each_other),
        cmocka_unit_test(why_a_group_fails_is_told),
        cmocka_unit_test(bytes_that_are_no_frames_are_a_loss),
    };
    return cmocka_run_group_tests_name("courier", tests, request_case_open,
                                       request_case_close);
}
