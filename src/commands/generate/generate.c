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
 * whole responses pi_l as m grows; --exact draws from pi_l itself, by tries that seldom
 * survive (src/README.md, Draws).
 */
#include "generate_impl.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "commands/commands.h"
#include "commands/report/log.h"
#include "commands/report/walk.h"
#include "session/weights.h"

/* Rows per batch that are worthwhile on a CPU. */
#define PARALLEL_ROWS 16

/* Prompts per unit, in batches. A batch drains at the end of each unit, but results wait
 * for the unit's last response. */
#define UNIT_BATCHES 4

/* Lower ones overflow; 0 is the limit, the most probable token. */
#define TEMPERATURE_MIN 1e-3

/* ---- the warm-up ---- */

struct mpo_end_bias_query generate_begin_warm_up(const struct generate *generate,
                                                 const int64_t *prompt, int32_t count)
{
    mpo_log_note("warm-up: %d rows for each of %d prompt%s", MPO_END_BIAS_ROWS, count,
                 mpo_text_plural(count));
    return (struct mpo_end_bias_query){generate->weights, prompt, count};
}

/* Candidates of best-of-m are weighed, so they had better end as often as whole responses. */
static enum mpo_status find_tilt(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    int64_t prompt[MPO_END_BIAS_PROMPTS] = {0};
    int32_t count = 0;
    while (count < MPO_END_BIAS_PROMPTS && count < generate->prompt_count) {
        prompt[count] = count;
        count++;
    }
    const struct mpo_end_bias_query query = generate_begin_warm_up(generate, prompt, count);
    MPO_TRY(mpo_session_find_end_bias(generate->session, &query, &generate->end_bias));
    mpo_log_note("candidates are drawn with --end-bias=%.4g nat", generate->end_bias);
cleanup:
    return status;
}

static enum mpo_status warm_up(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_generate *options = &generate->config->generate;
    bool wants_tilt = options->best_of > 1 && isnan(options->end_bias) &&
                      generate->end_bias == 0.0; /* a record has none */
    if (!wants_tilt && !options->exact)
        return MPO_OK;
    MPO_TRY(mpo_session_begin_step(
        generate->session,
        &(struct mpo_session_progress){0, 0, generate->prompt_count, "prompts"}));
    if (options->exact)
        MPO_TRY(generate_exact_tell_price(generate));
    else
        MPO_TRY(find_tilt(generate));
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
    MPO_TRY(generate_print(generate, &responses));
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
    MPO_TRY(warm_up(generate));
    struct walk walk = {
        .session = generate->session,
        .progress = &progress,
        .unit = "prompts",
        .prompt = generate->prompt,
        .prompt_count = generate->prompt_count,
        .responses = generate->responses,
        .step = {.mu = generate->weights,
                 .end_bias = generate->end_bias,
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
                        !options->exact && options->format == MPO_GENERATE_TEXT &&
                        isatty(STDOUT_FILENO) == 1;
}

/* Rows decoded at once and prompts per unit; neither depends on the ranks. */
static void choose_batch(const struct mpo_config_generate *options,
                         struct mpo_session_size *size)
{
    int64_t rows = options->parallel;
    if (rows == MPO_AUTO_INTEGER)
        rows = size->responses > PARALLEL_ROWS ? size->responses : PARALLEL_ROWS;
    bool single = options->prompt[0] != '\0';
    bool fits = single && !options->exact; /* tries come in rounds */
    size->unit_prompts =
        single ? 1 : (int32_t)(UNIT_BATCHES * rows + size->responses - 1) / size->responses;
    size->row_capacity = fits ? size->responses : (int32_t)rows;
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
    struct mpo_weights_choice choice = {
        options->weights,  options->iterate, options->step, options->allow_any_weights,
        options->strength, "--weights",      false};
    MPO_TRY(mpo_comm_agree(mpo_weights_check_choices(generate->config, &choice, 1)));
    generate->responses = (int32_t)(options->n * options->best_of);
    struct mpo_session_spec spec = {.command = "generate", .settings = generate->config};
    spec.size = (struct mpo_session_size){
        .responses = generate->responses,
        .prompt = options->prompt,
        .stop = generate->stops.text,
        .stop_count = generate->stops.count,
        .try_limit = options->exact ? options->exact_limit : 0,
        .advice = "lower --parallel, --n, --best-of or rollout.max_tokens",
    };
    choose_batch(options, &spec.size);
    MPO_TRY(mpo_session_open(&spec, &generate->session));
    MPO_TRY(mpo_weights_open(generate->session, &choice, &generate->weights));
    MPO_TRY(mpo_weights_end_bias(generate->session, &choice,
                                 options->exact ? 0.0 : options->end_bias,
                                 &generate->end_bias));
    MPO_TRY(mpo_comm_agree(generate_exact_check_exponents(generate)));
    generate->prompt_count = mpo_prompts_count(generate->session->prompts);
    if (options->limit > 0 && options->limit < generate->prompt_count)
        generate->prompt_count = options->limit;
    MPO_TRY(generate_exact_read_price(generate, &choice));
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
    MPO_TRY(generate_exact_check_options(options));
    MPO_CHECK(
        generate->config->rollout.mixture == MPO_MIXING_LOGITS ||
            (!options->exact && options->best_of == 1),
        MPO_ERR_USAGE,
        "%s: draws from the mixture of whole responses, which is one of logits, found "
        "rollout.mixture: adapters; leave it out, or use --rollout.mixture=logits",
        options->exact ? "--exact" : "--best-of");
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
    MPO_TRY(generate_exact_end(&generate));
cleanup:
    free(generate.candidates);
    free(generate.log_z);
    free(generate.prompt);
    mpo_decode_text_close(&generate.text);
    free(generate.weights);
    mpo_session_close(&generate.session);
    stops_close(&generate.stops);
    mpo_config_close(&generate.config);
    return status;
}
