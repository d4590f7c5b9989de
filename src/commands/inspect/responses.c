/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect --responses N: responses of the mixture with their scores.
 *
 * The samples are spread evenly over the run and end with its last response. The log weight
 * is that of the estimator at the weights of the response's own step.
 */
#include "inspect_impl.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "commands/report/output.h"

#define LABEL_WIDTH 12

struct shown {
    const struct inspect *inspect;
    const struct mpo_record_scores *scores;
    int64_t index;
    double *mu; /* [H] of its step */
    double log_weight;
    struct mpo_record_sample sample;
};

/* NaN when the record has no such step. */
static double log_weight(const struct shown *shown)
{
    const struct inspect *inspect = shown->inspect;
    const struct mpo_record_scores *scores = shown->scores;
    const struct mpo_exponents exponents = inspect_exponents(inspect);
    const int64_t index = shown->index;
    const int32_t count = inspect->objective_count;
    const double step = (double)scores->step[index];
    int64_t low = 0;
    int64_t high = inspect->step_count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (inspect->step[middle] < step)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == inspect->step_count || inspect->step[low] != step)
        return NAN;
    struct mpo_sample response = {
        .count = 1,
        .policy_count = scores->policy_count,
        .log_proposal = scores->log_proposal + index,
        .log_policy = scores->log_policy + index * scores->policy_count,
    };
    mpo_exponents_of(&exponents, inspect->series[INSPECT_weights] + low * count, shown->mu);
    return mpo_sample_log_weight(&response, shown->mu, exponents.policy_count, 0);
}

/* ---- text ---- */

/* Further lines are indented like the first. */
static void print_text(const char *label, const char *text)
{
    printf("  %-*s", LABEL_WIDTH, label);
    for (const char *byte = text; *byte != '\0'; byte++) {
        if (*byte == '\n')
            printf("\n  %-*s", LABEL_WIDTH, "");
        else
            fputc(*byte, stdout);
    }
    printf("\n");
}

static void print_sample(const struct shown *shown)
{
    const struct mpo_record_scores *scores = shown->scores;
    const struct mpo_record_sample *sample = &shown->sample;
    const double *log_policy = scores->log_policy + shown->index * scores->policy_count;
    printf("response %lld, step %lld, prompt %lld, %d tokens, %s\n",
           (long long)shown->index, (long long)scores->step[shown->index],
           (long long)sample->prompt, sample->token_count,
           sample->ended ? "ended" : "cut at max_tokens");
    print_text("prompt", sample->prompt_text);
    print_text("text", sample->text);
    printf("  %-*s", LABEL_WIDTH, "log pi");
    for (int32_t h = 0; h < scores->policy_count; h++)
        printf("%s%s %.3f", h > 0 ? ", " : "", mpo_record_policy(shown->inspect->record, h),
               log_policy[h]);
    printf(" nat\n  %-*s%.3f nat\n", LABEL_WIDTH, "log q",
           scores->log_proposal[shown->index]);
    printf("  %-*s%.3f nat\n\n", LABEL_WIDTH, "log weight", shown->log_weight);
}

/* ---- json ---- */

static json_t *make_sample(const struct shown *shown)
{
    const struct mpo_record_scores *scores = shown->scores;
    const struct mpo_record_sample *sample = &shown->sample;
    json_t *log_policy = json_object();
    for (int32_t h = 0; h < scores->policy_count; h++)
        json_object_set_new(
            log_policy, mpo_record_policy(shown->inspect->record, h),
            output_number(scores->log_policy[shown->index * scores->policy_count + h]));
    return json_pack("{sIsIsIsosososisbsoso}", "response", (json_int_t)shown->index, "step",
                     (json_int_t)scores->step[shown->index], "prompt_index",
                     (json_int_t)sample->prompt, "prompt", output_text(sample->prompt_text),
                     "text", output_text(sample->text), "log_policy", log_policy,
                     "token_count", sample->token_count, "ended", sample->ended,
                     "log_proposal", output_number(scores->log_proposal[shown->index]),
                     "log_weight", output_number(shown->log_weight));
}

/* ---- both ---- */

static enum mpo_status print_samples(const struct inspect *inspect,
                                     const struct mpo_record_scores *scores, int64_t count,
                                     json_t *list)
{
    enum mpo_status status = MPO_OK;
    struct shown shown = {.inspect = inspect, .scores = scores};
    MPO_NEW(mpo_record_policy_count(inspect->record), &shown.mu);
    for (int64_t i = 0; i < count; i++) {
        shown.index =
            (int64_t)((double)(i + 1) * (double)scores->count / (double)count) - 1;
        shown.log_weight = log_weight(&shown);
        MPO_TRY(mpo_record_read_sample(inspect->record, shown.index, &shown.sample));
        if (list != NULL)
            json_array_append_new(list, make_sample(&shown));
        else
            print_sample(&shown);
        mpo_record_release_sample(&shown.sample);
    }
cleanup:
    mpo_record_release_sample(&shown.sample);
    free(shown.mu);
    return status;
}

enum mpo_status inspect_print_responses(const struct inspect *inspect,
                                        const struct inspect_request *request)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_scores scores = {0};
    const bool is_json = request->format == MPO_INSPECT_JSON;
    json_t *list = is_json ? json_array() : NULL;
    MPO_TRY(mpo_record_read_scores(inspect->record, &scores));
    MPO_CHECK(scores.count > 0, MPO_ERR_DATA, "%s: expected responses, found none%s",
              inspect->path,
              inspect->step_count > 0 ? "; the run had record.responses: false" : " yet");
    const int64_t count =
        request->responses < scores.count ? request->responses : scores.count;
    if (!is_json)
        printf("%s, %s: %lld of %lld responses\n\n", inspect->path, inspect_state(inspect),
               (long long)count, (long long)scores.count);
    MPO_TRY(print_samples(inspect, &scores, count, list));
    if (is_json) {
        status = output_json(list);
        list = NULL;
    }
cleanup:
    json_decref(list);
    mpo_record_release_scores(&scores);
    return status;
}
