/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A specification of a session is somebody else's data. What contradicts itself is refused
 * by the names of its members, where later it would be taken in part, or for a bug of mpo.
 */
#include "spec.h"

#include <math.h>

#include "decode/text.h"

/* ---- the configuration ---- */

static enum mpo_status check_source(const struct mpo_session_spec *spec)
{
    enum mpo_status status = MPO_OK;
    static const char *const words[] = {"none",
                                        "config",
                                        "config_text",
                                        "config and config_text",
                                        "settings",
                                        "config and settings",
                                        "config_text and settings",
                                        "all three"};
    int given = (spec->config != NULL) | (spec->config_text != NULL) << 1 |
                (spec->settings != NULL) << 2;
    MPO_CHECK(given == 1 || given == 2 || given == 4, MPO_ERR_USAGE,
              "a session: expected one of config (a path), config_text and settings, found "
              "%s",
              words[given]);
    MPO_CHECK(spec->config_folder == NULL || spec->config_text != NULL, MPO_ERR_USAGE,
              "a session: expected config_folder only with config_text, found "
              "it with %s",
              spec->config != NULL ? "config, which has a folder" : "settings");
    MPO_CHECK(spec->flag_count >= 0 && (spec->flag_count == 0 || spec->flags != NULL),
              MPO_ERR_USAGE,
              "a session: expected flags [flag_count], found flag_count %d and %s",
              spec->flag_count, spec->flags != NULL ? "flags" : "flags NULL");
    MPO_CHECK(spec->settings == NULL || spec->flag_count == 0, MPO_ERR_USAGE,
              "a session: expected no flags with settings, which are read "
              "already, found %d; give them to mpo_config_open",
              spec->flag_count);
    for (int32_t i = 0; i < spec->flag_count; i++)
        MPO_CHECK(spec->flags[i] != NULL, MPO_ERR_USAGE,
                  "a session: expected %d texts in flags, found NULL as number %d",
                  spec->flag_count, i + 1);
cleanup:
    return status;
}

/* ---- the size ---- */

/* A member of the size. */
struct member {
    const char *name;
    int64_t value; /* of a number; else whether it is set */
    int64_t low;   /* where it is used at all */
    int64_t high;
};

/* The first that is not zero, NULL: none. */
static const struct member *find_set(const struct member *member, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (member[i].value != 0)
            return &member[i];
    return NULL;
}

static enum mpo_status check_ranges(const struct member *member, int32_t count)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < count; i++)
        MPO_CHECK(member[i].value >= member[i].low && member[i].value <= member[i].high,
                  MPO_ERR_USAGE,
                  "a session: size.%s: expected a number from %lld to %lld, found %lld",
                  member[i].name, (long long)member[i].low, (long long)member[i].high,
                  (long long)member[i].value);
cleanup:
    return status;
}

#define MACHINE_MEMBERS 12
#define ROLLOUT_MEMBERS 12

static void list_machine(const struct mpo_session_machine *machine,
                         struct member member[MACHINE_MEMBERS])
{
    const struct member all[MACHINE_MEMBERS] = {
        {"machine.row_capacity", machine->row_capacity, 1, MPO_ROW_COUNT_MAX},
        {"machine.parked_rows", machine->parked_rows, 0,
         (int64_t)MPO_ROW_COUNT_MAX - machine->row_capacity},
        {"machine.prompt_slots", machine->prompt_slots, 1, INT32_MAX},
        {"machine.given_positions", machine->given_positions, 0, INT16_MAX},
        {"machine.prefill_tokens", machine->prefill_tokens, 1, INT32_MAX},
        {"machine.prefill_step", machine->prefill_step, 0, INT32_MAX},
        {"machine.prefill_idle", machine->prefill_idle, 0, INT32_MAX},
        {"machine.top_max", machine->top_max, 0, MPO_DECODE_TOP_MAX},
        {"machine.bias_max", machine->bias_max, 0, INT32_MAX},
        {"machine.context_tokens", machine->context_tokens, 1, INT32_MAX},
        {"machine.mixes_prompts", machine->mixes_prompts, 0, 1},
        {"machine.blends", machine->blends, 0, MPO_POLICY_COUNT_MAX},
    };
    for (int i = 0; i < MACHINE_MEMBERS; i++)
        member[i] = all[i];
}

/* Numbers come first: unit_prompts and responses are those that no rollout is without. */
#define ROLLOUT_NUMBERS 6

static void list_rollout(const struct mpo_session_size *size,
                         struct member member[ROLLOUT_MEMBERS])
{
    const struct mpo_prompts_spec *prompts = &size->prompts;
    bool has_prompt = size->prompt != NULL && size->prompt[0] != '\0';
    const struct member all[ROLLOUT_MEMBERS] = {
        {"unit_prompts", size->unit_prompts, 1, MPO_SESSION_PROMPTS_MAX},
        {"responses", size->responses, 1, MPO_ROW_COUNT_MAX},
        {"prompts_max", size->prompts_max, 0, MPO_SESSION_PROMPTS_MAX},
        {"row_capacity", size->row_capacity, 0, MPO_ROW_COUNT_MAX},
        {"stop_count", size->stop_count, 0, INT32_MAX},
        {"try_limit", size->try_limit, 0, INT64_MAX},
        {.name = "prompt", .value = has_prompt},
        {.name = "integrates_ends", .value = size->integrates_ends},
        {.name = "distinct_prompts", .value = size->distinct_prompts},
        {.name = "prompts.path", .value = prompts->path != NULL},
        {.name = "prompts.format",
         .value = prompts->format != NULL || prompts->prefill != NULL},
        {"prompts.response_count", prompts->response_count, 0,
         MPO_PROMPTS_RESPONSE_COUNT_MAX},
    };
    for (int i = 0; i < ROLLOUT_MEMBERS; i++)
        member[i] = all[i];
}

bool mpo_session_is_sized(const struct mpo_session_size *size)
{
    return size->unit_prompts > 0 || size->machine.row_capacity > 0;
}

static enum mpo_status check_stop_texts(const struct mpo_session_size *size)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_decode_stops stops = {size->stop, size->stop_count};
    MPO_CHECK(size->stop_count == 0 || size->stop != NULL, MPO_ERR_USAGE,
              "a session: size.stop: expected %d texts (size.stop_count), found NULL",
              size->stop_count);
    for (int32_t i = 0; i < size->stop_count; i++)
        MPO_CHECK(
            size->stop[i] != NULL, MPO_ERR_USAGE,
            "a session: size.stop: expected %d texts (size.stop_count), found NULL as "
            "number %d",
            size->stop_count, i + 1);
    MPO_TRY(mpo_decode_stops_check(&stops));
cleanup:
    return status;
}

/* Where prompts come from. */
static enum mpo_status check_prompts(const struct mpo_session_size *size)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_prompts_spec *prompts = &size->prompts;
    bool has_prompt = size->prompt != NULL && size->prompt[0] != '\0';
    MPO_CHECK(!has_prompt || prompts->path == NULL, MPO_ERR_USAGE,
              "a session: expected one of size.prompt and size.prompts.path, found both; a "
              "prompt stands in for the file");
    MPO_CHECK(!has_prompt || prompts->response_count == 0, MPO_ERR_USAGE,
              "a session: size.prompts.response_count: expected 0 with size.prompt, which "
              "has no responses, found %d; give them in a file",
              prompts->response_count);
    MPO_CHECK(prompts->path != NULL ||
                  (prompts->format == NULL && prompts->prefill == NULL),
              MPO_ERR_USAGE,
              "a session: size.prompts.path: expected a file with size.prompts.%s, found "
              "NULL; without a path file, format and prefill are the configuration's",
              prompts->format != NULL ? "format" : "prefill");
    MPO_CHECK(!size->distinct_prompts || size->prompts_max > 0, MPO_ERR_USAGE,
              "a session: size.prompts_max: expected the prompts of a step beside "
              "size.distinct_prompts, found 0");
cleanup:
    return status;
}

/* A rollout does one thing: draw, draw exactly, integrate or score. */
static enum mpo_status check_purpose(const struct mpo_session_size *size)
{
    enum mpo_status status = MPO_OK;
    int32_t given = size->prompts.response_count;
    const char *purpose = given > 0               ? "prompts.response_count"
                          : size->integrates_ends ? "integrates_ends"
                          : size->try_limit > 0   ? "try_limit"
                                                  : NULL;
    bool several = (given > 0) + size->integrates_ends + (size->try_limit > 0) > 1;
    MPO_CHECK(!several, MPO_ERR_USAGE,
              "a session: expected one of size.integrates_ends, size.try_limit and "
              "size.prompts.response_count, found %s%s%s; a rollout has one purpose",
              given > 0 ? "response_count " : "",
              size->integrates_ends ? "integrates_ends " : "",
              size->try_limit > 0 ? "try_limit" : "");
    MPO_CHECK(purpose == NULL || size->stop_count == 0, MPO_ERR_USAGE,
              "a session: size.stop_count: expected 0 with size.%s, where no text ends a "
              "response, found %d",
              purpose, size->stop_count);
    MPO_CHECK(given == 0 || (size->unit_prompts == 1 && size->responses == given),
              MPO_ERR_USAGE,
              "a session: expected size.unit_prompts 1 and size.responses %d beside "
              "size.prompts.response_count %d, found %d and %d; given responses are scored "
              "one prompt at a time",
              given, given, size->unit_prompts, size->responses);
cleanup:
    return status;
}

static enum mpo_status check_rollout(const struct mpo_session_size *size)
{
    enum mpo_status status = MPO_OK;
    struct member member[ROLLOUT_MEMBERS];
    list_rollout(size, member);
    const struct member *set = find_set(member, ROLLOUT_MEMBERS);
    if (set == NULL)
        return MPO_OK; /* that of a fit */
    for (int i = 0; i < 2; i++)
        MPO_CHECK(member[i].value != 0, MPO_ERR_USAGE,
                  "a session: size.%s: expected 1 or more with size.%s, found 0; set "
                  "size.unit_prompts and size.responses, or leave all of size at zero for "
                  "that of a fit",
                  member[i].name, set->name);
    MPO_TRY(check_ranges(member, ROLLOUT_NUMBERS));
    MPO_TRY(check_ranges(&member[ROLLOUT_MEMBERS - 1], 1));
    int64_t rows = size->row_capacity > 0 ? size->row_capacity
                                          : (int64_t)size->unit_prompts * size->responses;
    MPO_CHECK(rows >= size->responses && rows <= MPO_ROW_COUNT_MAX, MPO_ERR_USAGE,
              "a session: expected %d (size.responses) to %d rows at once, found %lld; set "
              "size.row_capacity, or lower size.unit_prompts (%d)",
              size->responses, MPO_ROW_COUNT_MAX, (long long)rows, size->unit_prompts);
    MPO_TRY(check_stop_texts(size));
    MPO_TRY(check_prompts(size));
    MPO_TRY(check_purpose(size));
cleanup:
    return status;
}

static enum mpo_status check_size(const struct mpo_session_size *size)
{
    enum mpo_status status = MPO_OK;
    struct member member[MACHINE_MEMBERS];
    struct member others[ROLLOUT_MEMBERS];
    list_machine(&size->machine, member);
    list_rollout(size, others);
    const struct member *set = find_set(member, MACHINE_MEMBERS);
    const struct member *other = find_set(others, ROLLOUT_MEMBERS);
    if (set == NULL)
        return check_rollout(size);
    MPO_CHECK(other == NULL, MPO_ERR_USAGE,
              "a session: size.%s: expected 0 with size.%s, because a machine has no "
              "prompts and no rollout; set size.machine, or what follows it",
              other->name, set->name);
    MPO_TRY(check_ranges(member, MACHINE_MEMBERS));
    double stretch = size->machine.prefill_stretch;
    MPO_CHECK(stretch == 0.0 || (stretch >= 1.0 && stretch < INFINITY), MPO_ERR_USAGE,
              "a session: size.machine.prefill_stretch: expected 0, or a number from 1, "
              "found %g",
              stretch);
cleanup:
    return status;
}

enum mpo_status mpo_session_check_spec(const struct mpo_session_spec *spec)
{
    enum mpo_status status = MPO_OK;
    if (spec->command != NULL)
        MPO_TRY(mpo_config_check_command(spec->command));
    MPO_TRY(check_source(spec));
    MPO_TRY(check_size(&spec->size));
cleanup:
    return status;
}
