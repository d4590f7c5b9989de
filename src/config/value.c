/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a text becomes a value, and how a message names what is wrong with it.
 *
 * There is one parser per type and its input is text, because a YAML scalar and a
 * command-line argument are both text. Numbers are read strictly (the whole text, decimal,
 * finite): strtod alone would accept "0x10", "inf" and "12abc".
 */
#include "config_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/argument.h"
#include "base/memory.h"

const char *mpo_config_where(struct mpo_config_build *build,
                             const struct mpo_config_assignment *assignment)
{
    const struct mpo_config_place *place = &assignment->place;
    const struct mpo_config_option *option = assignment->option;
    char key[96];
    char position[48] = "";
    if (option->section == MPO_SECTION_policies)
        snprintf(key, sizeof key, "policies[%d].%s", assignment->policy_index,
                 option->name);
    else
        snprintf(key, sizeof key, "%s", option->full_name);
    if (place->line > 0)
        snprintf(position, sizeof position, ":%zu:%zu", place->line, place->column);
    if (place->flag != NULL)
        snprintf(build->where, sizeof build->where, "%.*s", place->flag_bytes, place->flag);
    else
        snprintf(build->where, sizeof build->where, "%.1024s%s: %s", build->path, position,
                 key);
    return build->where;
}

const char *mpo_config_hint(const char *name, const char *const *known, size_t known_count,
                            char hint[MPO_CONFIG_HINT_BYTES])
{
    size_t nearest = SIZE_MAX;
    for (size_t i = 0; i < known_count; i++) {
        size_t distance = mpo_spelling_distance(name, known[i]);
        if (distance >= nearest)
            continue;
        nearest = distance;
        snprintf(hint, MPO_CONFIG_HINT_BYTES, "; did you mean '%s'?", known[i]);
    }
    if (mpo_spelling_is_near(name, nearest))
        return hint;
    size_t bytes = 0;
    hint[0] = '\0';
    for (size_t i = 0; i < known_count && bytes < MPO_CONFIG_HINT_BYTES; i++)
        bytes += (size_t)snprintf(hint + bytes, MPO_CONFIG_HINT_BYTES - bytes, "%s%s",
                                  i == 0 ? "; known: " : ", ", known[i]);
    return hint;
}

bool mpo_config_read_number(const char *text, double *value)
{
    char *end = NULL;
    if (*text == '\0' || text[strspn(text, "0123456789.+-eE")] != '\0')
        return false;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value);
}

static bool read_integer(const char *text, int64_t *value)
{
    char *end = NULL;
    if (*text == '\0' || text[strspn(text, "0123456789+-")] != '\0')
        return false;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0;
}

enum mpo_status mpo_config_parse_numbers(const char *text, double *value, int32_t capacity,
                                         int32_t *count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(text, value, count);
    const char *at = text;
    char quoted[MPO_QUOTE_BYTES];
    char number[64];
    *count = 0;
    for (bool more = true; more;) {
        at += strspn(at, " ");
        size_t bytes = strcspn(at, " ,");
        const char *after = at + bytes + strspn(at + bytes, " ");
        snprintf(number, sizeof number, "%.*s",
                 (int)(bytes < sizeof number ? bytes : sizeof number), at);
        MPO_CHECK(bytes < sizeof number && (*after == ',' || *after == '\0'), MPO_ERR_USAGE,
                  "expected numbers like 0.4,0.6, found '%s'", mpo_quote(text, quoted));
        MPO_CHECK(*count < capacity, MPO_ERR_USAGE,
                  "expected at most %d numbers, found more", capacity);
        MPO_CHECK(mpo_config_read_number(number, &value[*count]), MPO_ERR_USAGE,
                  "expected numbers like 0.4,0.6, found '%s'", mpo_quote(text, quoted));
        (*count)++;
        more = *after == ',';
        at = after + more;
    }
cleanup:
    return status;
}

/* Kept so that later checks of several options can say where each was written. */
void mpo_config_note_place(struct mpo_config_build *build,
                           const struct mpo_config_assignment *assignment)
{
    struct mpo_config_stored *stored = build->config->stored;
    ptrdiff_t option = assignment->option - mpo_config_options;
    bool is_written = assignment->place.line > 0;
    if (assignment->option->section == MPO_SECTION_policies) {
        if (stored != NULL && is_written)
            stored->policy_is_given[assignment->policy_index * MPO_OPTION_COUNT + option] =
                true;
        build->config->written[option] |= is_written || assignment->place.flag != NULL;
        return;
    }
    build->place[option] = assignment->place;
    build->config->written[option] = is_written || assignment->place.flag != NULL;
    if (stored != NULL)
        stored->is_given[option] = is_written;
}

/* Raise what was expected in place of the text. */
enum mpo_status mpo_config_refuse(struct mpo_config_build *build,
                                  const struct mpo_config_assignment *assignment,
                                  const char *expected)
{
    enum mpo_status status = MPO_OK;
    char quoted[MPO_QUOTE_BYTES];
    MPO_FAIL(assignment->place.flag != NULL ? MPO_ERR_USAGE : MPO_ERR_CONFIG,
             "%s: expected %s, found '%s'", mpo_config_where(build, assignment), expected,
             mpo_quote(assignment->text, quoted));
cleanup:
    return status;
}

/* Refuse what is not `noun` in the option's range. */
static enum mpo_status refuse_range(struct mpo_config_build *build,
                                    const struct mpo_config_assignment *assignment,
                                    const char *noun, bool may_be_auto)
{
    const struct mpo_config_option *option = assignment->option;
    char expected[96];
    snprintf(expected, sizeof expected, "%s from %.15g to %.15g%s", noun, option->low,
             option->high, may_be_auto ? ", or " MPO_AUTO : "");
    return mpo_config_refuse(build, assignment, expected);
}

static enum mpo_status assign_integer(struct mpo_config_build *build,
                                      const struct mpo_config_assignment *assignment,
                                      int64_t *member)
{
    const struct mpo_config_option *option = assignment->option;
    bool may_be_auto = option->type == MPO_TYPE_AUTO_INTEGER;
    int64_t value = 0;
    if (may_be_auto && mpo_is_auto(assignment->text)) {
        *member = MPO_AUTO_INTEGER;
        return MPO_OK;
    }
    if (!read_integer(assignment->text, &value) || (double)value < option->low ||
        (double)value > option->high)
        return refuse_range(build, assignment, "a whole number", may_be_auto);
    *member = value;
    return MPO_OK;
}

static enum mpo_status assign_number(struct mpo_config_build *build,
                                     const struct mpo_config_assignment *assignment,
                                     double *member)
{
    const struct mpo_config_option *option = assignment->option;
    bool may_be_auto = option->type == MPO_TYPE_AUTO_NUMBER;
    double value = 0;
    if (may_be_auto && mpo_is_auto(assignment->text)) {
        *member = NAN;
        return MPO_OK;
    }
    if (!mpo_config_read_number(assignment->text, &value) || value < option->low ||
        value > option->high)
        return refuse_range(build, assignment, "a number", may_be_auto);
    *member = value;
    return MPO_OK;
}

static enum mpo_status assign_flag(struct mpo_config_build *build,
                                   const struct mpo_config_assignment *assignment,
                                   bool *member)
{
    *member = strcmp(assignment->text, "true") == 0;
    if (!*member && strcmp(assignment->text, "false") != 0)
        return mpo_config_refuse(build, assignment, "true or false");
    return MPO_OK;
}

/* Keep a copy; everything that is kept as text must be UTF-8, for the record is. */
static enum mpo_status keep_text(struct mpo_config_build *build,
                                 const struct mpo_config_assignment *assignment,
                                 const char *folder, char **member)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = strlen(folder) + strlen(assignment->text) + 1;
    char *copy = NULL;
    MPO_NEW(bytes, &copy);
    snprintf(copy, bytes, "%s%s", folder, assignment->text);
    for (size_t at = 0; copy[at] != '\0';) {
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t step =
            utf8proc_iterate((const utf8proc_uint8_t *)copy + at, -1, &letter);
        if (step <= 0)
            MPO_TRY(mpo_config_refuse(build, assignment, "text in UTF-8"));
        at += (size_t)step;
    }
    free(*member);
    *member = copy;
    copy = NULL;
cleanup:
    free(copy);
    return status;
}

enum mpo_status mpo_config_assign_path(struct mpo_config_build *build,
                                       const struct mpo_config_assignment *assignment,
                                       char **member)
{
    const char *text = assignment->text;
    bool as_given = assignment->place.flag != NULL || *text == '\0' || *text == '/' ||
                    strcmp(text, "-") == 0;
    return keep_text(build, assignment, as_given ? "" : build->folder, member);
}

static enum mpo_status assign_date(struct mpo_config_build *build,
                                   const struct mpo_config_assignment *assignment,
                                   char **member)
{
    int64_t seconds = 0;
    if (!mpo_config_read_date(assignment->text, &seconds))
        return mpo_config_refuse(build, assignment, "a date like 2024-07-26, or today");
    return keep_text(build, assignment, "", member);
}

int mpo_config_find_choice(const char *choices, const char *text)
{
    size_t bytes = strlen(text);
    int index = 0;
    for (const char *at = choices; at != NULL; index++) {
        size_t width = strcspn(at, "|");
        if (width == bytes && strncmp(at, text, bytes) == 0)
            return index;
        at = at[width] == '|' ? at + width + 1 : NULL;
    }
    return -1;
}

static enum mpo_status find_choice(struct mpo_config_build *build,
                                   const struct mpo_config_assignment *assignment,
                                   int *index)
{
    const char *choices = assignment->option->choices;
    char expected[256];
    *index = mpo_config_find_choice(choices, assignment->text);
    snprintf(expected, sizeof expected, "%s%s", strchr(choices, '|') ? "one of " : "",
             choices);
    return *index >= 0 ? MPO_OK : mpo_config_refuse(build, assignment, expected);
}

/* The enums of mpo/choices.h are in the order of their lists. */
static enum mpo_status assign_choice(struct mpo_config_build *build,
                                     const struct mpo_config_assignment *assignment,
                                     int *member)
{
    enum mpo_status status = MPO_OK;
    int index = 0;
    MPO_TRY(find_choice(build, assignment, &index));
    *member = index;
cleanup:
    return status;
}

static enum mpo_status assign_variant(struct mpo_config_build *build,
                                      const struct mpo_config_assignment *assignment,
                                      char **member)
{
    enum mpo_status status = MPO_OK;
    int index = 0;
    MPO_TRY(find_choice(build, assignment, &index));
    MPO_TRY(keep_text(build, assignment, "", member));
cleanup:
    return status;
}

enum mpo_status mpo_config_assign_numbers(struct mpo_config_build *build,
                                          const struct mpo_config_assignment *assignment,
                                          const double *value, int32_t count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_option *option = assignment->option;
    struct mpo_numbers *member =
        mpo_config_member(build->config, option, assignment->policy_index);
    double *copy = NULL;
    mpo_config_note_place(build, assignment);
    for (int32_t i = 0; i < count; i++)
        MPO_CHECK(value[i] >= option->low && value[i] <= option->high,
                  assignment->place.flag != NULL ? MPO_ERR_USAGE : MPO_ERR_CONFIG,
                  "%s: expected numbers from %.15g to %.15g, found %.15g",
                  mpo_config_where(build, assignment), option->low, option->high, value[i]);
    MPO_NEW(count, &copy);
    if (count > 0)
        memcpy(copy, value, (size_t)count * sizeof *copy);
    free(member->value);
    *member = (struct mpo_numbers){copy, count};
cleanup:
    return status;
}

static enum mpo_status assign_numbers(struct mpo_config_build *build,
                                      const struct mpo_config_assignment *assignment)
{
    double value[MPO_CONFIG_NUMBERS_MAX];
    int32_t count = 0;
    if (*assignment->text != '\0' &&
        mpo_config_parse_numbers(assignment->text, value, MPO_CONFIG_NUMBERS_MAX, &count) !=
            MPO_OK)
        return mpo_config_refuse(build, assignment, "at most 1024 numbers like 0.4,0.6");
    return mpo_config_assign_numbers(build, assignment, value, count);
}

enum mpo_status mpo_config_assign(struct mpo_config_build *build,
                                  const struct mpo_config_assignment *assignment)
{
    const struct mpo_config_option *option = assignment->option;
    void *member = mpo_config_member(build->config, option, assignment->policy_index);
    mpo_config_note_place(build, assignment);
    switch (option->type) {
    case MPO_TYPE_INTEGER:
    case MPO_TYPE_AUTO_INTEGER:
        return assign_integer(build, assignment, member);
    case MPO_TYPE_NUMBER:
    case MPO_TYPE_AUTO_NUMBER:
        return assign_number(build, assignment, member);
    case MPO_TYPE_FLAG:
        return assign_flag(build, assignment, member);
    case MPO_TYPE_TEXT:
        return keep_text(build, assignment, "", member);
    case MPO_TYPE_PATH:
        return mpo_config_assign_path(build, assignment, member);
    case MPO_TYPE_DATE:
        return assign_date(build, assignment, member);
    case MPO_TYPE_NAME_OR_PATH:
        return strpbrk(assignment->text, "/.") != NULL
                   ? mpo_config_assign_path(build, assignment, member)
                   : keep_text(build, assignment, "", member);
    case MPO_TYPE_CHOICE:
        return assign_choice(build, assignment, member);
    case MPO_TYPE_VARIANT:
        return assign_variant(build, assignment, member);
    case MPO_TYPE_NUMBERS:
        return assign_numbers(build, assignment);
    case MPO_TYPE_PATHS:
        return mpo_config_assign_path_list(build, assignment);
    case MPO_TYPE_FACTORS:
        return mpo_config_assign_factors(build, assignment);
    }
    return MPO_OK;
}
