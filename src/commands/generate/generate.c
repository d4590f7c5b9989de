/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate: responses from the token mixture q_l at given or fitted weights.
 *
 * Prompts are cut into units of a fixed size, and each group of ranks decodes one at a
 * time: as many responses side by side as --parallel says, and a waiting prompt as soon as
 * there is room. Draws are counted by a prompt's place among all prompts. So what a prompt
 * gets does not depend on the number of ranks, and results appear a unit a group at a time.
 *
 * --best-of m draws m responses for each one wanted and picks one of them with probability
 * proportional to w_j = prod_k pi_k(y_j|x)^l_k / q_l(y_j|x), which goes to the mixture of
 * whole responses pi_l as m grows (src/README.md, Draws).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands/commands.h"
#include "text.h"
#include "commands/report/output.h"
#include "commands/report/walk.h"
#include "commands/report/log.h"
#include "estimator/sample.h"
#include "session/weights.h"

/* Rows per batch that are worthwhile on a CPU. */
#define PARALLEL_ROWS 16

/* Prompts per unit, in batches. A batch drains at the end of each unit, but results wait
 * for the unit's last response. */
#define UNIT_BATCHES 4

/* Lower ones overflow; 0 is the limit, the most probable token. */
#define TEMPERATURE_MIN 1e-3

struct generate {
    struct mpo_config *config;
    struct mpo_session *session;
    double *weights; /* [H] */
    struct mpo_decode_text text;
    int64_t prompt_count;
    int64_t *prompt;     /* [session->prompts_max] of one rollout */
    int32_t responses;   /* to each prompt, candidates included */
    int64_t token_count; /* on rank zero */
    double *candidates;  /* [2, best_of] log w and its softmax */
    bool several;        /* text output needs headings */
    struct stops stops;
    struct mpo_mixture_filter filter;
    struct stream stream;
    bool streams; /* print the response while it is generated */
};

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
static json_t *conversation(const struct mpo_prompt *prompt)
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
        "{s:I, s:i, s:s, s:o*, s:s, s:s, s:i, s:o, s:b, s:s, s:f, s:o}", "prompt_index",
        (json_int_t)prompt_index, "sample", index % responses->responses / best_of,
        "prompt", prompt->text, "messages", conversation(prompt), "prefill",
        prompt->prefill, "response", generate->text.bytes, "tokens",
        responses->token_count[index], "token_ids", token_ids(responses, index), "ended",
        responses->ended[index], "finish", finish, "log_mixture",
        responses->log_proposal[index], "log_policy", scores);
    return output_json(line);
}

static enum mpo_status print_responses(struct generate *generate,
                                       const struct mpo_responses *responses)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_generate *options = &generate->config->generate;
    bool as_json = options->format == MPO_GENERATE_JSONL;
    int32_t best_of = (int32_t)options->best_of;
    int32_t count = responses->prompt_count * responses->responses;
    for (int32_t first = 0; first < count; first += best_of) {
        int32_t i = best_of > 1 ? pick_candidate(generate, responses, first) : first;
        const int32_t *token = responses->token + (ptrdiff_t)i * responses->max_tokens;
        MPO_TRY(mpo_decode_text_set(&generate->text, token, responses->token_count[i]));
        int64_t prompt = responses->prompt[i / responses->responses];
        if (as_json)
            MPO_TRY(print_json(generate, responses, i));
        else
            print_text(generate, mpo_prompts_get(generate->session->prompts, prompt));
    }
    MPO_TRY(output_flush());
cleanup:
    return status;
}

/* ---- the loop ---- */

/* A streamed response that a request to stop cut short. */
static enum mpo_status tell_cut(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    double is_cut = generate->stream.is_cut;
    MPO_TRY(mpo_comm_max(generate->session->comm, &is_cut, 1));
    MPO_CHECK(is_cut == 0.0, MPO_REQUEUE, "stopped inside the response");
cleanup:
    return status;
}

/* A run of walk.h. */
static enum mpo_status generate_batch(void *command, struct mpo_rollout_step *step,
                                      int64_t first, int64_t *token_count)
{
    enum mpo_status status = MPO_OK;
    struct generate *generate = command;
    struct mpo_responses responses = {0};
    step->first_slot = first;
    MPO_TRY(mpo_rollout_run(generate->session->rollout, step, &responses));
    if (mpo_comm_rank(generate->session->comm) != 0)
        goto cleanup;
    mpo_log_clear_progress();
    MPO_TRY(print_responses(generate, &responses));
    generate->token_count += walk_count_tokens(
        responses.token_count, responses.prompt_count * responses.responses);
    *token_count = generate->token_count;
cleanup:
    return status;
}

static enum mpo_status generate_all(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    struct progress progress = {0};
    const struct mpo_config_generate *options = &generate->config->generate;
    struct walk walk = {
        .session = generate->session,
        .progress = &progress,
        .unit = "prompts",
        .prompt = generate->prompt,
        .prompt_count = generate->prompt_count,
        .responses = generate->responses,
        .step = {.mu = generate->weights,
                 .greedy = options->greedy,
                 .weighted_only =
                     options->format == MPO_GENERATE_TEXT && options->best_of == 1,
                 .filter = &generate->filter,
                 .yields = !generate->streams, /* what was shown ends with its line */
                 .watch = generate->streams ? stream_watch : NULL,
                 .watcher = &generate->stream},
        .run = generate_batch,
        .command = generate,
    };
    progress_begin(&progress, "generate", generate->streams ? 0 : generate->prompt_count);
    MPO_TRY(walk_prompts(&walk));
    progress_end(&progress);
    progress_tell(&progress);
    MPO_TRY(tell_cut(generate));
cleanup:
    return status;
}

/* A single response to a single prompt is printed on a terminal while it is generated. */
static void open_stream(struct generate *generate)
{
    const struct mpo_config_generate *options = &generate->config->generate;
    generate->stream = (struct stream){
        .prefill = mpo_prompts_get(generate->session->prompts, 0)->prefill,
        .text = &generate->text,
    };
    generate->streams = !generate->several && options->n == 1 && options->best_of == 1 &&
                        options->format == MPO_GENERATE_TEXT && isatty(STDOUT_FILENO) == 1;
}

/* Rows decoded at once and prompts per unit; neither depends on the ranks. */
static void choose_batch(const struct mpo_config_generate *options,
                         struct mpo_session_size *size)
{
    int64_t rows = options->parallel;
    if (rows == MPO_AUTO_INTEGER)
        rows = size->responses > PARALLEL_ROWS ? size->responses : PARALLEL_ROWS;
    bool single = options->prompt[0] != '\0';
    size->unit_prompts =
        single ? 1 : (int32_t)(UNIT_BATCHES * rows + size->responses - 1) / size->responses;
    size->row_capacity = single ? size->responses : (int32_t)rows;
}

static enum mpo_status allocate_room(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(generate->session->prompts_max, &generate->prompt);
    MPO_NEW(2 * generate->config->generate.best_of, &generate->candidates);
cleanup:
    return status;
}

static enum mpo_status open_generate(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_generate *options = &generate->config->generate;
    struct mpo_weights_choice choice = {options->weights,  options->iterate,
                                        options->step,     options->allow_any_weights,
                                        options->strength, false,
                                        "--weights"};
    MPO_TRY(mpo_comm_agree(mpo_weights_check_choice(generate->config, &choice)));
    generate->responses = (int32_t)(options->n * options->best_of);
    struct mpo_session_spec spec = {.command = "generate", .settings = generate->config};
    spec.size = (struct mpo_session_size){
        .responses = generate->responses,
        .prompt = options->prompt,
        .stop = generate->stops.text,
        .stop_count = generate->stops.count,
        .advice = "lower --parallel, --n, --best-of or rollout.max_tokens",
    };
    choose_batch(options, &spec.size);
    MPO_TRY(mpo_session_open(&spec, &generate->session));
    MPO_TRY(mpo_weights_open(generate->session, &choice, &generate->weights));
    generate->prompt_count = mpo_prompts_count(generate->session->prompts);
    if (options->limit > 0 && options->limit < generate->prompt_count)
        generate->prompt_count = options->limit;
    generate->several = generate->prompt_count > 1;
    MPO_TRY(mpo_comm_agree(allocate_room(generate)));
    const struct mpo_decode_stops stops = {generate->stops.text, generate->stops.count};
    mpo_decode_text_open(&generate->text, generate->session->policies, &stops);
    open_stream(generate);
cleanup:
    return status;
}

static enum mpo_status check_options(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_generate *options = &generate->config->generate;
    MPO_CHECK(options->n * options->best_of <= MPO_ROW_COUNT_MAX, MPO_ERR_USAGE,
              "--n: expected --n times --best-of to be at most %d, found %lld times %lld",
              MPO_ROW_COUNT_MAX, (long long)options->n, (long long)options->best_of);
    MPO_CHECK(
        options->parallel == MPO_AUTO_INTEGER ||
            options->parallel >= options->n * options->best_of,
        MPO_ERR_USAGE,
        "--parallel: expected at least --n times --best-of, %lld, because the responses "
        "to a prompt are decoded together; found %lld",
        (long long)(options->n * options->best_of), (long long)options->parallel);
    MPO_CHECK(options->temperature == 0.0 || options->temperature >= TEMPERATURE_MIN,
              MPO_ERR_USAGE,
              "--temperature: expected 0 or a number from %g to 1000, found %g",
              TEMPERATURE_MIN, options->temperature);
    if (options->temperature == 0.0) {
        generate->config->generate.greedy = true;
        generate->config->generate.temperature = 1.0;
    }
    generate->filter = (struct mpo_mixture_filter){
        .temperature = options->temperature,
        .top_k = options->top_k < INT32_MAX ? (int32_t)options->top_k : INT32_MAX,
        .top_p = options->top_p,
        .min_p = options->min_p,
    };
    MPO_CHECK(
        options->best_of == 1 || (!options->greedy && options->stop[0] == '\0' &&
                                  mpo_mixture_filter_is_open(&generate->filter)),
        MPO_ERR_USAGE,
        "--best-of: cannot be combined with --greedy, --temperature, --top-k, --top-p, "
        "--min-p or --stop, because it weighs draws from the mixture itself");
    MPO_TRY(stops_open(options->stop, &generate->stops));
    if (!mpo_weights_are_of_a_record(generate->config, options->weights))
        generate->config->record.hash_models = false; /* nothing to compare them with */
cleanup:
    return status;
}

enum mpo_status mpo_command_generate(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct generate generate = {0};
    MPO_TRY(mpo_command_configure("generate", argc, argv, &generate.config));
    MPO_TRY(mpo_comm_agree(check_options(&generate)));
    MPO_TRY(open_generate(&generate));
    MPO_TRY(mpo_session_end_loop(generate_all(&generate)));
cleanup:
    free(generate.candidates);
    free(generate.prompt);
    mpo_decode_text_close(&generate.text);
    free(generate.weights);
    mpo_session_close(&generate.session);
    stops_close(&generate.stops);
    mpo_config_close(&generate.config);
    return status;
}
