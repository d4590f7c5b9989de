/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewarded responses: lines of `generate --format jsonl` to which a program has added a number
 * for each reward, or what a record stores.
 *
 * A line says by itself what it was drawn with: "exponents" and "control", which generate
 * writes where it draws from the mixture as it is. So no line has to be found again in a
 * record, and lines of several runs may be put together.
 */
#include "reweigh.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/reason.h"

#define LINES_MAX 10000000

struct reader {
    struct reweigh *reweigh;
    int64_t number; /* of the line */
    char *line;
    size_t capacity;
};

/* Raise with the file and the line. */
#define REFUSE(reader, format, ...)                                                        \
    MPO_FAIL(MPO_ERR_DATA, "%s:%lld: " format, (reader)->reweigh->source,                  \
             (long long)(reader)->number, __VA_ARGS__)

/* Numbers [H] of an object by the names of policies. */
static enum mpo_status read_figures(const struct reader *reader, const json_t *answer,
                                    const char *member, double *out)
{
    enum mpo_status status = MPO_OK;
    const struct reweigh *reweigh = reader->reweigh;
    const json_t *object = json_object_get(answer, member);
    if (!json_is_object(object))
        REFUSE(
            reader,
            "expected \"%s\", found %s: generate --format jsonl writes it where it draws "
            "from the mixture as it is; draw again without --best-of, --exact, "
            "--greedy and filters, and with --end-bias=0 if the record has a tilt",
            member, object == NULL ? "none" : "something else");
    for (int32_t h = 0; h < reweigh->policy_count; h++) {
        const char *name = mpo_record_policy(reweigh->refit->record, h);
        const json_t *number = json_object_get(object, name);
        if (!json_is_number(number))
            REFUSE(reader, "expected a number for '%s' in \"%s\", found %s", name, member,
                   number == NULL ? "none" : "something else");
        out[h] = json_number_value(number);
    }
cleanup:
    return status;
}

static enum mpo_status read_rewards(const struct reader *reader, const json_t *answer,
                                    double *out)
{
    enum mpo_status status = MPO_OK;
    for (int32_t k = 0; k < reader->reweigh->objective_count; k++) {
        const char *name = reader->reweigh->name[k];
        const json_t *number = json_object_get(answer, name);
        if (!json_is_number(number))
            REFUSE(
                reader,
                "expected a number \"%s\", the reward of '%s', found %s; the program that "
                "measures rewards adds it to each line",
                name, mpo_record_objective(reader->reweigh->refit->record, k),
                number == NULL ? "none" : "something else");
        out[k] = json_number_value(number);
    }
cleanup:
    return status;
}

/* What is predicted is the token mixture as it is; of a tilt the control variates say nothing. */
static enum mpo_status check_tilt(const struct reader *reader, const json_t *line)
{
    enum mpo_status status = MPO_OK;
    const json_t *tilt = json_object_get(line, "end_bias");
    if (tilt == NULL || (json_is_number(tilt) && json_number_value(tilt) == 0.0))
        return MPO_OK;
    if (!json_is_number(tilt))
        REFUSE(reader, "expected \"end_bias\" to be a number, found %s", "something else");
    REFUSE(
        reader,
        "expected a response drawn without an end tilt, found \"end_bias\" %g; draw with "
        "generate --end-bias=0",
        json_number_value(tilt));
cleanup:
    return status;
}

static enum mpo_status grow_arrays(struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    size_t needed = (size_t)reweigh->count + 1;
    size_t policies = (size_t)reweigh->policy_count;
    size_t objectives = (size_t)reweigh->objective_count;
    const char *what = "rewarded responses";
    MPO_TRY(mpo_memory_grow((void **)&reweigh->prompt, &reweigh->capacity[0], needed,
                            sizeof *reweigh->prompt, what));
    MPO_TRY(mpo_memory_grow((void **)&reweigh->base, &reweigh->capacity[1],
                            needed * policies, sizeof *reweigh->base, what));
    MPO_TRY(mpo_memory_grow((void **)&reweigh->control, &reweigh->capacity[2],
                            needed * policies, sizeof *reweigh->control, what));
    MPO_TRY(mpo_memory_grow((void **)&reweigh->reward, &reweigh->capacity[3],
                            needed * objectives, sizeof *reweigh->reward, what));
    MPO_TRY(mpo_memory_grow((void **)&reweigh->tokens, &reweigh->capacity[4], needed,
                            sizeof *reweigh->tokens, what));
cleanup:
    return status;
}

static enum mpo_status add_line(const struct reader *reader)
{
    enum mpo_status status = MPO_OK;
    struct reweigh *reweigh = reader->reweigh;
    int64_t policies = reweigh->policy_count;
    json_error_t problem = {0};
    json_t *line = json_loads(reader->line, JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(line))
        REFUSE(reader, "expected one JSON object, found another line (%s)",
               line == NULL ? problem.text : "no object");
    const json_t *prompt = json_object_get(line, "prompt_index");
    if (!json_is_integer(prompt))
        REFUSE(reader,
               "expected \"prompt_index\", as generate --format jsonl writes it, "
               "found %s",
               prompt == NULL ? "none" : "something else");
    MPO_TRY(grow_arrays(reweigh));
    reweigh->prompt[reweigh->count] = json_integer_value(prompt);
    const json_t *tokens = json_object_get(line, "tokens");
    if (!json_is_integer(tokens) || json_integer_value(tokens) < 0)
        REFUSE(reader, "expected \"tokens\", a number of them, found %s",
               tokens == NULL ? "none" : "something else");
    reweigh->tokens[reweigh->count] = json_integer_value(tokens);
    MPO_TRY(
        read_figures(reader, line, "exponents", reweigh->base + reweigh->count * policies));
    MPO_TRY(check_tilt(reader, line));
    MPO_TRY(read_figures(reader, line, "control",
                         reweigh->control + reweigh->count * policies));
    MPO_TRY(read_rewards(reader, line,
                         reweigh->reward + reweigh->count * reweigh->objective_count));
    reweigh->count++;
cleanup:
    json_decref(line);
    return status;
}

static enum mpo_status read_lines(struct reader *reader, FILE *stream)
{
    enum mpo_status status = MPO_OK;
    errno = 0;
    while (getline(&reader->line, &reader->capacity, stream) >= 0) {
        reader->number++;
        MPO_CHECK(reader->number <= LINES_MAX, MPO_ERR_DATA,
                  "%s: expected at most %d lines, found more", reader->reweigh->source,
                  LINES_MAX);
        if (reader->line[strspn(reader->line, " \t\r\n")] != '\0')
            MPO_TRY(add_line(reader));
    }
    MPO_CHECK(!ferror(stream), mpo_reason_of_input(errno), "%s: %s",
              reader->reweigh->source, strerror(errno));
cleanup:
    return status;
}

/* What generate itself writes would be read as a reward. */
static enum mpo_status check_names(const struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    for (int32_t k = 0; k < reweigh->objective_count; k++)
        MPO_CHECK(!mpo_config_is_line_field(reweigh->name[k]), MPO_ERR_DATA,
                  "%s: the reward of '%s' is named \"%s\", and generate writes a field of "
                  "this name, which is no reward; fit with policies.NAME.reward set to "
                  "another name",
                  reweigh->refit->path, mpo_record_objective(reweigh->refit->record, k),
                  reweigh->name[k]);
cleanup:
    return status;
}

static enum mpo_status read_file(struct reweigh *reweigh, const char *path)
{
    enum mpo_status status = MPO_OK;
    struct reader reader = {.reweigh = reweigh};
    bool is_standard = strcmp(path, "-") == 0;
    FILE *stream = NULL;
    reweigh->source = is_standard ? "standard input" : path;
    MPO_TRY(check_names(reweigh));
    stream = is_standard ? stdin : fopen(path, "rb");
    MPO_CHECK(stream != NULL, mpo_reason_of_input(errno),
              "%s: expected a file of rewarded responses: %s", path, strerror(errno));
    MPO_TRY(read_lines(&reader, stream));
    MPO_CHECK(reweigh->count > 0, MPO_ERR_DATA,
              "%s: expected lines of generate --format jsonl with rewards, found none",
              reweigh->source);
cleanup:
    free(reader.line);
    if (stream != NULL && !is_standard)
        fclose(stream);
    return status;
}

/* Like the lines of a file, responses of a record are of the token mixture as it is. */
static enum mpo_status check_steps(const struct reweigh *reweigh, int64_t steps)
{
    enum mpo_status status = MPO_OK;
    double *tilt = NULL; /* [steps] */
    MPO_NEW(steps, &tilt);
    MPO_TRY(mpo_record_read(reweigh->refit->record, "end_bias", 0, steps, tilt));
    for (int64_t step = 0; step < steps; step++)
        MPO_CHECK(
            tilt[step] == 0.0, MPO_ERR_DATA,
            "%s: expected responses drawn without an end tilt, found one of %g nat in "
            "step %lld; draw others with generate --end-bias=0, and give --rewards=FILE",
            reweigh->source, tilt[step], (long long)step);
cleanup:
    free(tilt);
    return status;
}

/* Exponents of each response: those of the step that drew it. */
static enum mpo_status find_bases(struct reweigh *reweigh,
                                  const struct mpo_record_scores *scores)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = reweigh->refit->record;
    int64_t steps = mpo_record_step_count(record);
    double *weights = NULL; /* [steps, K] */
    bool from_reference = reweigh->recorded->rollout.proposal == MPO_PROPOSAL_REFERENCE;
    MPO_NEW(steps * reweigh->objective_count, &weights);
    MPO_TRY(check_steps(reweigh, steps));
    MPO_TRY(mpo_record_read(record, "weights", 0, steps, weights));
    for (int64_t i = 0; i < reweigh->count; i++) {
        double *base = reweigh->base + i * reweigh->policy_count;
        int64_t step = scores->step[i] < steps ? scores->step[i] : steps - 1;
        if (from_reference)
            base[reweigh->policy_count - 1] = 1.0;
        else
            mpo_exponents_of(&reweigh->exponents, weights + step * reweigh->objective_count,
                             base);
    }
cleanup:
    free(weights);
    return status;
}

static enum mpo_status read_record(struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record *record = reweigh->refit->record;
    struct mpo_record_scores scores = {0};
    bool is_there = false;
    reweigh->source = reweigh->refit->path;
    MPO_TRY(mpo_record_has(record, "responses/reward", &is_there));
    MPO_CHECK(is_there, MPO_ERR_DATA,
              "%s: expected rewards of its responses, found none: its run had no reward "
              "program; give --rewards=FILE",
              reweigh->source);
    MPO_TRY(mpo_record_read_scores(record, &scores));
    MPO_CHECK(scores.count > 0, MPO_ERR_DATA,
              "%s: expected stored responses, found none (record.responses: false, or no "
              "step yet)",
              reweigh->source);
    reweigh->count = scores.count;
    MPO_NEW(scores.count * reweigh->policy_count, &reweigh->base);
    MPO_NEW(scores.count * reweigh->policy_count, &reweigh->control);
    MPO_NEW(scores.count * reweigh->objective_count, &reweigh->reward);
    MPO_NEW(scores.count, &reweigh->tokens);
    MPO_TRY(mpo_record_read_response_rewards(record, scores.count, reweigh->reward,
                                             reweigh->control, reweigh->tokens));
    MPO_TRY(find_bases(reweigh, &scores));
    reweigh->prompt = scores.prompt;
    scores.prompt = NULL;
cleanup:
    mpo_record_release_scores(&scores);
    return status;
}

enum mpo_status reweigh_read(struct reweigh *reweigh, const char *source)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(strcmp(source, "record") == 0 ? read_record(reweigh)
                                          : read_file(reweigh, source));
    MPO_TRY(mpo_rewards_check_size(reweigh->reward, reweigh->count, reweigh->policy,
                                   reweigh->objective_count));
    MPO_TRY(refit_order_by_prompt(reweigh->prompt, reweigh->count, &reweigh->order));
    MPO_NEW(reweigh->count + reweigh->policy_count, &reweigh->work);
    MPO_NEW(reweigh->count * reweigh->objective_count, &reweigh->prompt_mean);
    MPO_NEW(reweigh->policy_count * reweigh->policy_count, &reweigh->covariance);
    reweigh_measure_covariance(reweigh);
cleanup:
    return status;
}
