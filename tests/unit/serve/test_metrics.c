/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics: the text that Prometheus reads, what series there are, and a reader beside the
 * thread that counts.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"
#include "serve/metrics.h"

static char default_name[] = "mpo";
static char preset_name[] = "mpo:a\"b\\c\nd";
static char alone_name[] = "policy/one";
static struct mpo_serve_model models[] = {
    {.name = default_name}, {.name = preset_name}, {.name = alone_name}};
static const char *const policies[] = {"one", "two"};

static struct mpo_metrics *open_with_groups(const char *prefix, int32_t group_count)
{
    static struct mpo_serve_catalog catalog;
    struct mpo_metrics *metrics = NULL;
    catalog = (struct mpo_serve_catalog){.policy_name = policies,
                                         .policy_count = 2,
                                         .context_tokens = 64,
                                         .model = models,
                                         .model_count = 3};
    assert_ok(mpo_metrics_open(&catalog, prefix, 3 * group_count, group_count, &metrics));
    return metrics;
}

static struct mpo_metrics *open_metrics(const char *prefix)
{
    return open_with_groups(prefix, 1);
}

static char *text_of(const struct mpo_metrics *metrics)
{
    size_t bytes = 0;
    char *text = mpo_metrics_text(metrics, &bytes);
    assert_non_null(text);
    text = realloc(text, bytes + 1);
    assert_non_null(text);
    text[bytes] = '\0';
    return text;
}

static void assert_says(const struct mpo_metrics *metrics, const char *line)
{
    char *text = text_of(metrics);
    if (strstr(text, line) == NULL)
        fail_msg("no line\n%s in\n%s", line, text);
    free(text);
}

static void assert_says_nothing_of(const struct mpo_metrics *metrics, const char *word)
{
    char *text = text_of(metrics);
    assert_null(strstr(text, word));
    free(text);
}

/* ---- cases ---- */

static void counters_and_gauges_have_their_labels(void **state)
{
    struct mpo_metrics *metrics = open_metrics("mpo:");
    (void)state;
    int32_t preset = mpo_metrics_model(metrics, preset_name);
    mpo_metrics_add(metrics, MPO_METRIC_PROMPT_TOKENS, preset, 40.0);
    mpo_metrics_add(metrics, MPO_METRIC_PROMPT_TOKENS, preset, 2.0);
    mpo_metrics_add(metrics, MPO_METRIC_NUM_REQUESTS_RUNNING, 0, 1.0);
    mpo_metrics_add(metrics, MPO_METRIC_NUM_REQUESTS_RUNNING, 0, 1.0);
    mpo_metrics_add(metrics, MPO_METRIC_NUM_REQUESTS_RUNNING, 0, -1.0);
    mpo_metrics_set(metrics, MPO_METRIC_KV_CACHE_USAGE_PERC, 1, 0.25);
    mpo_metrics_set(metrics, MPO_METRIC_STAGE_SECONDS, MPO_METRIC_STAGE_EXCHANGE, 1.5);
    mpo_metrics_add(metrics, MPO_METRIC_REQUEST_SUCCESS,
                    mpo_metrics_finish(0, mpo_metrics_finish_of(MPO_SERVE_FINISH_STOP)),
                    1.0);
    mpo_metrics_add(metrics, MPO_METRIC_REQUESTS_REFUSED,
                    (int32_t)mpo_metrics_code("queue_full"), 1.0);
    mpo_metrics_add(metrics, MPO_METRIC_REQUESTS_REFUSED,
                    (int32_t)mpo_metrics_code("of another program"), 1.0);
    mpo_metrics_add(metrics, MPO_METRIC_HTTP_REQUESTS,
                    mpo_metrics_route(MPO_METRIC_PATH_CHAT, 429), 1.0);
    mpo_metrics_add(metrics, MPO_METRIC_HTTP_REQUESTS,
                    mpo_metrics_route(MPO_METRIC_PATH_PAGE, 418), 1.0);
    mpo_metrics_set(metrics, MPO_METRIC_HTTP_CONNECTIONS, 0, 12.0);
    mpo_metrics_set(metrics, MPO_METRIC_EXCHANGE_BYTES, 0, 1e12);
    assert_says(metrics, "\n# TYPE mpo:prompt_tokens_total counter\n");
    assert_says(metrics, "\nmpo:prompt_tokens_total{model_name=\"mpo\"} 0\n");
    assert_says(metrics, "{model_name=\"mpo:a\\\"b\\\\c\\nd\"} 42\n");
    assert_says(metrics, "\nmpo:num_requests_running{model_name=\"mpo\"} 1\n");
    assert_says(metrics,
                "\nmpo:kv_cache_usage_perc{model_name=\"mpo\",policy=\"two\"} 0.25\n");
    assert_says(metrics, "\nmpo:stage_seconds_total{stage=\"exchange\"} 1.5\n");
    assert_says(metrics, "\nmpo:request_success_total{model_name=\"mpo\","
                         "finished_reason=\"stop\"} 1\n");
    assert_says(metrics, "\nmpo:requests_refused_total{code=\"queue_full\"} 1\n");
    assert_says(metrics, "\nmpo:requests_refused_total{code=\"other\"} 1\n");
    assert_says(metrics, "\nmpo:http_requests_total{path=\"/v1/chat/completions\","
                         "status=\"429\"} 1\n");
    assert_says(metrics, "\nmpo:http_requests_total{path=\"/\",status=\"500\"} 1\n");
    assert_says(metrics, "\nmpo:http_connections 12\n");
    assert_says(metrics, "\nmpo:exchange_bytes_total{model_name=\"mpo\"} 1000000000000\n");
    assert_says(metrics, "\nmpo:ranks{model_name=\"mpo\"} 3\n");
    assert_true(mpo_metrics_get(metrics, MPO_METRIC_PROMPT_TOKENS, preset) == 42.0);
    mpo_metrics_close(&metrics);
    assert_null(metrics);
}

static void a_histogram_adds_up(void **state)
{
    static const double seconds[] = {0.0005, 0.001, 0.0011, 0.5, 3000.0};
    struct mpo_metrics *metrics = open_metrics("vllm:");
    (void)state;
    for (int32_t i = 0; i < 5; i++)
        mpo_metrics_observe(metrics, MPO_METRIC_TIME_TO_FIRST_TOKEN, 0, seconds[i]);
    mpo_metrics_observe(metrics, MPO_METRIC_REQUEST_PROMPT_TOKENS, 0, 50.0);
#define FIRST "\nvllm:time_to_first_token_seconds"
    assert_says(metrics, "\n# TYPE vllm:time_to_first_token_seconds histogram" FIRST
                         "_bucket{model_name=\"mpo\",le=\"0.001\"} 2" FIRST
                         "_bucket{model_name=\"mpo\",le=\"0.005\"} 3" FIRST
                         "_bucket{model_name=\"mpo\",le=\"0.01\"} 3\n");
    assert_says(metrics, FIRST "_bucket{model_name=\"mpo\",le=\"1.0\"} 4\n");
    assert_says(metrics, FIRST "_bucket{model_name=\"mpo\",le=\"2560.0\"} 4" FIRST
                               "_bucket{model_name=\"mpo\",le=\"+Inf\"} 5" FIRST
                               "_sum{model_name=\"mpo\"} 3000.5025999999998" FIRST
                               "_count{model_name=\"mpo\"} 5\n");
#undef FIRST
    /* lengths end at the context, here 64 tokens */
    assert_says(metrics,
                "_bucket{model_name=\"mpo\",le=\"20.0\"} 0\n"
                "vllm:request_prompt_tokens_bucket{model_name=\"mpo\",le=\"50.0\"} 1\n"
                "vllm:request_prompt_tokens_bucket{model_name=\"mpo\",le=\"+Inf\"} 1\n");
    mpo_metrics_close(&metrics);
}

static void series_nobody_asked_for_are_not_shown(void **state)
{
    struct mpo_metrics *metrics = open_metrics("mpo:");
    (void)state;
    assert_says_nothing_of(metrics, alone_name);
    assert_says_nothing_of(metrics, "mpo@");
    assert_says_nothing_of(metrics, "/v1/models");
    int32_t alone = mpo_metrics_model(metrics, alone_name);
    int32_t any = mpo_metrics_model(metrics, "mpo@0.25:0.75");
    assert_int_equal(mpo_metrics_model(metrics, "mpo@one=1:two=0"), any);
    assert_int_not_equal(alone, any);
    assert_says(metrics, "{model_name=\"policy/one\"} 0\n");
    assert_says(metrics, "{model_name=\"mpo@\"} 0\n");
    assert_says_nothing_of(metrics, "other\"} 0\nmpo:generation");
    assert_int_not_equal(mpo_metrics_model(metrics, "a name of serve.name"), any);
    assert_says(metrics, "{model_name=\"other\"} 0\n");
    mpo_metrics_close(&metrics);
}

/* ---- two threads ---- */

#define STEPS 200000

static void *count_steps(void *data)
{
    struct mpo_metrics *metrics = data;
    for (int32_t i = 0; i < STEPS; i++) {
        mpo_metrics_add(metrics, MPO_METRIC_STEPS, 0, 1.0);
        mpo_metrics_observe(metrics, MPO_METRIC_STEP_POSITIONS, 0, i % 40);
    }
    return NULL;
}

static void a_reader_beside_the_decode_thread_sees_counters_grow(void **state)
{
    struct mpo_metrics *metrics = open_metrics("mpo:");
    pthread_t thread;
    double before = 0.0;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, count_steps, metrics), 0);
    for (int32_t i = 0; i < 50; i++) {
        char *text = text_of(metrics);
        double steps = mpo_metrics_get(metrics, MPO_METRIC_STEPS, 0);
        assert_between(steps, before, STEPS);
        before = steps;
        free(text);
    }
    pthread_join(thread, NULL);
    assert_says(metrics, "\nmpo:steps_total{model_name=\"mpo\"} 200000\n");
    assert_says(metrics, "\nmpo:step_positions_count{model_name=\"mpo\"} 200000\n");
    assert_says(metrics, "\nmpo:step_positions_sum{model_name=\"mpo\"} 3900000\n");
    mpo_metrics_close(&metrics);
}

/* What a group's engine has counted in a process of its own, as rank zero tells it. */
static void each_group_has_series_of_its_own(void **state)
{
    struct mpo_metrics *own = open_metrics("");
    struct mpo_metrics *all = open_with_groups("", 2);
    int32_t count = mpo_metrics_group_values(own);
    double *values = calloc((size_t)count, sizeof *values);
    (void)state;
    assert_non_null(values);
    assert_int_equal(mpo_metrics_group_values(all), count);
    mpo_metrics_set(own, MPO_METRIC_ROWS, 0, 5.0);
    mpo_metrics_add(own, MPO_METRIC_STEPS, 0, 7.0);
    mpo_metrics_set(own, MPO_METRIC_KV_CACHE_USAGE_PERC, 1, 0.5);
    mpo_metrics_set(own, MPO_METRIC_STAGE_SECONDS, MPO_METRIC_STAGE_MIXTURE, 2.0);
    mpo_metrics_observe(own, MPO_METRIC_STEP_POSITIONS, 0, 3.0);
    mpo_metrics_set(all, MPO_METRIC_ROWS, 0, 1.0);
    mpo_metrics_read_group(own, 0, values);
    mpo_metrics_write_group(all, 1, values);
    assert_says(all, "rows{model_name=\"mpo\",group=\"0\"} 1\n");
    assert_says(all, "rows{model_name=\"mpo\",group=\"1\"} 5\n");
    assert_says(all, "ranks{model_name=\"mpo\",group=\"0\"} 3\n");
    assert_says(all, "ranks{model_name=\"mpo\",group=\"1\"} 3\n");
    assert_says(all, "steps_total{model_name=\"mpo\",group=\"1\"} 7\n");
    assert_says(all, "perc{model_name=\"mpo\",policy=\"two\",group=\"1\"} 0.5\n");
    assert_says(all, "perc{model_name=\"mpo\",policy=\"two\",group=\"0\"} 0\n");
    assert_says(all, "seconds_total{stage=\"mixture\",group=\"1\"} 2\n");
    assert_says(all, "seconds_total{stage=\"http\",group=\"0\"} 0\n");
    assert_says_nothing_of(all, "{stage=\"http\",group=\"1\"}");
    assert_says(all, "positions_count{model_name=\"mpo\",group=\"1\"} 1\n");
    assert_says(all, "positions_bucket{model_name=\"mpo\",group=\"1\",le=\"4.0\"} 1\n");
    assert_says_nothing_of(own, "group=");
    free(values);
    mpo_metrics_close(&all);
    mpo_metrics_close(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_and_gauges_have_their_labels),
        cmocka_unit_test(a_histogram_adds_up),
        cmocka_unit_test(series_nobody_asked_for_are_not_shown),
        cmocka_unit_test(a_reader_beside_the_decode_thread_sees_counters_grow),
        cmocka_unit_test(each_group_has_series_of_its_own),
    };
    return run_cases("metrics", tests);
}
