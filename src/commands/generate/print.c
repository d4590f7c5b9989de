/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is printed of a rollout's responses: all of them, the best of m each, or the exact
 * ones that were drawn.
 */
#include "generate_impl.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "commands/report/log.h"
#include "commands/report/output.h"
#include "estimator/sample.h"

/* ---- best of m ---- */

/* The chosen one of the candidates first .. first + best_of - 1. */
static int32_t pick_candidate(const struct generate *generate,
                              const struct mpo_responses *responses, int32_t first)
{
    int32_t count = (int32_t)generate->config->generate.best_of;
    struct mpo_sample sample = mpo_sample_of_step(responses, first, count);
    struct mpo_sample_query query = {.exponent_count = responses->policy_count,
                                     .exponent = generate->weights};
    struct mpo_sample_figures figures = {.log_weight = generate->candidates,
                                         .share = generate->candidates + count};
    struct mpo_rng_counter counter = {
        .prompt = (uint64_t)responses->prompt[first / responses->responses],
        .response = (uint64_t)(first % responses->responses / count),
    };
    mpo_sample_estimate(&sample, &query, &figures);
    double uniform =
        mpo_rng_uniform((uint64_t)generate->config->run.seed, MPO_RNG_PICK, counter);
    return first + mpo_sample_pick(figures.share, count, uniform);
}

/* ---- output ---- */

static void print_text(const struct generate *generate, const struct mpo_prompt *prompt)
{
    if (generate->streams) {
        printf("%s\n", generate->text.bytes + generate->stream.shown);
        return;
    }
    if (generate->several)
        printf("### %s\n", prompt->text);
    printf("%s%s\n", prompt->prefill, generate->text.bytes);
}

/* The ids that were drawn, all that "tokens" counts: a drawn end token is the last, and a
 * text that a stop text cut is shorter. */
static json_t *token_ids(const struct mpo_responses *responses, int32_t index)
{
    json_t *array = json_array();
    const int32_t *token = responses->token + (ptrdiff_t)index * responses->max_tokens;
    for (int32_t t = 0; t < responses->token_count[index]; t++)
        json_array_append_new(array, json_integer(token[t]));
    return array;
}

/* What "prompt" does not say: NULL for one message of a user. */
static json_t *list_messages(const struct mpo_prompt *prompt)
{
    if (prompt->message_count == 1)
        return NULL;
    json_t *array = json_array();
    for (int32_t i = 0; i < prompt->message_count; i++)
        json_array_append_new(array,
                              json_pack("{s:s, s:s}", "role", prompt->messages[i].role,
                                        "content", prompt->messages[i].content));
    if (*prompt->prefill != '\0')
        json_array_append_new(array, json_pack("{s:s, s:s}", "role", "assistant", "content",
                                               prompt->prefill));
    return array;
}

/* Written wherever a tilt was drawn with or could have been, so that score gives a line the
 * figures that it has here. */
static json_t *tilt_member(const struct generate *generate)
{
    const struct mpo_config_generate *options = &generate->config->generate;
    bool is_plain = generate->end_bias == 0.0 && isnan(options->end_bias) &&
                    options->best_of == 1 && !options->exact;
    return is_plain ? NULL : json_real(generate->end_bias);
}

static json_t *tries_member(const struct mpo_responses *responses, int32_t index)
{
    return responses->tries != NULL ? json_integer(responses->tries[index]) : NULL;
}

static json_t *by_policy(const struct generate *generate, const double *number)
{
    json_t *object = json_object();
    for (int32_t h = 0; h < generate->config->policy_count; h++)
        json_object_set_new(object, generate->config->policies[h].name,
                            output_number(number[h]));
    return object;
}

/* What refit --rewards predicts with, of draws from the mixture as it is. */
static void add_draw(const struct generate *generate, const struct mpo_responses *responses,
                     int32_t index, json_t *line)
{
    const struct mpo_config_generate *options = &generate->config->generate;
    if (options->best_of > 1 || options->exact ||
        !mpo_mixture_filter_is_open(&generate->filter) || options->greedy)
        return;
    json_object_set_new(line, "exponents", by_policy(generate, generate->weights));
    json_object_set_new(
        line, "control",
        by_policy(generate, responses->control + index * responses->policy_count));
}

static enum mpo_status print_json(const struct generate *generate,
                                  const struct mpo_responses *responses, int32_t index)
{
    int32_t best_of = (int32_t)generate->config->generate.best_of;
    const char *finish = generate->text.is_stopped ? "stop"
                         : responses->ended[index] ? "end"
                                                   : "length";
    int64_t prompt_index = responses->prompt[index / responses->responses];
    const struct mpo_prompt *prompt =
        mpo_prompts_get(generate->session->prompts, prompt_index);
    json_t *scores = json_object();
    for (int32_t h = 0; h < responses->policy_count; h++)
        json_object_set_new(
            scores, generate->config->policies[h].name,
            json_real(responses->log_policy[index * responses->policy_count + h]));
    json_t *line = json_pack(
        "{s:I, s:i, s:s, s:o*, s:s, s:s, s:i, s:o, s:b, s:s, s:o*, s:o*, s:f, s:o}",
        "prompt_index", (json_int_t)prompt_index, "sample",
        index % responses->responses / best_of, "prompt", prompt->text, "messages",
        list_messages(prompt), "prefill", prompt->prefill, "response", generate->text.bytes,
        "tokens", responses->token_count[index], "token_ids", token_ids(responses, index),
        "ended", responses->ended[index], "finish", finish, "tries",
        tries_member(responses, index), "end_bias", tilt_member(generate), "log_mixture",
        responses->log_proposal[index], "log_policy", scores);
    add_draw(generate, responses, index, line);
    return output_json(line);
}

enum mpo_status generate_print(struct generate *generate,
                               const struct mpo_responses *responses)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_generate *options = &generate->config->generate;
    bool as_json = options->format == MPO_GENERATE_JSONL;
    int32_t best_of = (int32_t)options->best_of;
    int32_t count = responses->prompt_count * responses->responses;
    for (int32_t first = 0; first < count; first += best_of) {
        int32_t i = best_of > 1 ? pick_candidate(generate, responses, first) : first;
        if (responses->tries != NULL && responses->tries[i] == 0)
            continue; /* not drawn */
        const int32_t *token = responses->token + (ptrdiff_t)i * responses->max_tokens;
        MPO_TRY(mpo_decode_text_set(&generate->text, token, responses->token_count[i]));
        int64_t prompt = responses->prompt[i / responses->responses];
        if (as_json)
            MPO_TRY(print_json(generate, responses, i));
        else
            print_text(generate, mpo_prompts_get(generate->session->prompts, prompt));
    }
    if (responses->tries != NULL)
        generate_exact_count(generate, responses);
    MPO_TRY(output_flush());
cleanup:
    return status;
}
