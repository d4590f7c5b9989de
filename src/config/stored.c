/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations that a record keeps: two of them compared by the values of their options.
 *
 * A record may be older or newer than this program. What it does not say was at its default,
 * which is how options are added: the default is what happened before there was the option,
 * or `before` has that.
 * What it says and this version does not know is shown as it stands, never dropped.
 */
#include "config_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

#define KEY_BYTES 192
#define NONE      "-"

/* One option in two configurations; the index of a policy is -1 where there is no such. */
struct comparison {
    const struct mpo_config *side[2];
    int32_t policy_index[2];
    void (*visit)(void *context, const char *key, const char *first, const char *second);
    void *context;
};

/* Options that came with another default. */
static const struct {
    const char *key;
    const char *initial;
} before[] = {{"estimator.target", "whole"},
              {"descent.average", "uniform"},
              {"run.batch_invariant", "false"}};

const char *mpo_config_initial_before(const struct mpo_config_option *option)
{
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        if (strcmp(option->full_name, before[i].key) == 0)
            return before[i].initial;
    return option->initial;
}

enum mpo_status mpo_config_keep_unread(struct mpo_config *config, const char *key,
                                       const char *text)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_stored *stored = config->stored;
    MPO_TRY(mpo_memory_grow((void **)&stored->unread, &stored->unread_capacity,
                            stored->unread_count + 1, sizeof *stored->unread,
                            "unknown keys"));
    struct mpo_config_unread *unread = &stored->unread[stored->unread_count++];
    MPO_TRY(mpo_memory_copy_text(key, &unread->key));
    MPO_TRY(mpo_memory_copy_text(text, &unread->text));
cleanup:
    return status;
}

void mpo_config_close_stored(struct mpo_config *config)
{
    struct mpo_config_stored *stored = config->stored;
    if (stored == NULL)
        return;
    for (size_t i = 0; i < stored->unread_count; i++) {
        free(stored->unread[i].key);
        free(stored->unread[i].text);
    }
    free(stored->unread);
    free(stored->policy_is_given);
    free(stored);
    config->stored = NULL;
}

static bool is_given(const struct mpo_config *config,
                     const struct mpo_config_option *option, int32_t policy_index)
{
    ptrdiff_t index = option - mpo_config_options;
    if (config->stored == NULL)
        return true;
    if (option->section == MPO_SECTION_policies)
        return config->stored->policy_is_given[policy_index * MPO_OPTION_COUNT + index];
    return config->stored->is_given[index];
}

/* Of a section other than policies; NULL: none. */
static const struct mpo_config_option *find_option(const char *key)
{
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if (mpo_config_options[i].section != MPO_SECTION_policies &&
            strcmp(mpo_config_options[i].full_name, key) == 0)
            return &mpo_config_options[i];
    return NULL;
}

/* Of a table with a place for each option. */
static bool is_marked(const bool *table, const char *key)
{
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if (strcmp(mpo_config_options[i].full_name, key) == 0)
            return table[i];
    return false;
}

bool mpo_config_is_written(const struct mpo_config *config, const char *key)
{
    return is_marked(config->written, key);
}

bool mpo_config_is_flagged(const struct mpo_config *config, const char *key)
{
    return is_marked(config->flagged, key);
}

bool mpo_config_is_given(const struct mpo_config *config, const char *key)
{
    const struct mpo_config_option *option = find_option(key);
    return option != NULL && is_given(config, option, 0);
}

/* ---- values ---- */

static bool are_same_numbers(const struct mpo_numbers *a, const struct mpo_numbers *b)
{
    bool same = a->count == b->count;
    for (int32_t i = 0; same && i < a->count; i++)
        same = a->value[i] == b->value[i];
    return same;
}

/* An option without a default may be NULL in a text that was read back. */
static bool are_same_texts(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool are_same_lists(const struct mpo_texts *a, const struct mpo_texts *b)
{
    bool same = a->count == b->count;
    for (int32_t i = 0; same && i < a->count; i++)
        same = strcmp(a->text[i], b->text[i]) == 0;
    return same;
}

static bool are_same(const struct mpo_config_option *option, const void *a, const void *b)
{
    double first = 0;
    double second = 0;
    switch (option->type) {
    case MPO_TYPE_INTEGER:
    case MPO_TYPE_AUTO_INTEGER:
        return *(const int64_t *)a == *(const int64_t *)b;
    case MPO_TYPE_NUMBER:
    case MPO_TYPE_AUTO_NUMBER:
        first = *(const double *)a;
        second = *(const double *)b;
        return first == second || (first != first && second != second); /* NaN: auto */
    case MPO_TYPE_CHOICE:
        return *(const int *)a == *(const int *)b;
    case MPO_TYPE_FLAG:
        return *(const bool *)a == *(const bool *)b;
    case MPO_TYPE_TEXT:
    case MPO_TYPE_PATH:
    case MPO_TYPE_NAME_OR_PATH:
    case MPO_TYPE_DATE:
    case MPO_TYPE_VARIANT:
        return are_same_texts(*(char *const *)a, *(char *const *)b);
    case MPO_TYPE_PATHS:
        return are_same_lists(a, b);
    case MPO_TYPE_NUMBERS:
    case MPO_TYPE_FACTORS:
        return are_same_numbers(a, b);
    }
    return false;
}

static const char *find_unread(const struct mpo_config *config, const char *key)
{
    const struct mpo_config_stored *stored = config->stored;
    for (size_t i = 0; stored != NULL && i < stored->unread_count; i++)
        if (strcmp(stored->unread[i].key, key) == 0)
            return stored->unread[i].text;
    return NULL;
}

/* An option that came later has a known value before: what its program did. */
static bool has_value_before(const struct mpo_config_option *option)
{
    const char *earlier = mpo_config_initial_before(option);
    return earlier != NULL && option->initial != NULL &&
           strcmp(earlier, option->initial) != 0;
}

/* The printed value; a refused value as written; "-" for a missing one. */
static enum mpo_status print_side(const struct comparison *pair, int i,
                                  const struct mpo_config_option *option, const char *key,
                                  char **text)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = pair->side[i];
    int32_t policy_index = pair->policy_index[i];
    const char *unread = find_unread(config, key);
    size_t bytes = 0;
    FILE *stream = open_memstream(text, &bytes);
    MPO_CHECK(stream != NULL, MPO_ERR_MEMORY, "no memory to compare configurations");
    if (unread != NULL)
        fputs(unread, stream);
    else if (policy_index < 0 ||
             (!is_given(config, option, policy_index) && !has_value_before(option)))
        fputs(NONE, stream);
    else
        mpo_config_print_value(stream, option,
                               mpo_config_member(config, option, policy_index), false);
    MPO_CHECK(fclose(stream) == 0, MPO_ERR_MEMORY, "no memory to compare configurations");
cleanup:
    return status;
}

/* ---- options ---- */

static bool option_differs(const struct comparison *pair,
                           const struct mpo_config_option *option, const char *key)
{
    const int32_t *index = pair->policy_index;
    if (index[0] < 0 || index[1] < 0)
        return option->initial == NULL;
    if (find_unread(pair->side[0], key) != NULL || find_unread(pair->side[1], key) != NULL)
        return true;
    return !are_same(option, mpo_config_member(pair->side[0], option, index[0]),
                     mpo_config_member(pair->side[1], option, index[1]));
}

static enum mpo_status compare_option(const struct comparison *pair,
                                      const struct mpo_config_option *option,
                                      const char *key)
{
    enum mpo_status status = MPO_OK;
    char *text[2] = {NULL, NULL};
    if (!option_differs(pair, option, key))
        return MPO_OK;
    for (int i = 0; i < 2; i++)
        MPO_TRY(print_side(pair, i, option, key, &text[i]));
    if (strcmp(text[0], text[1]) != 0) /* both may have been refused alike */
        pair->visit(pair->context, key, text[0], text[1]);
cleanup:
    free(text[0]);
    free(text[1]);
    return status;
}

/* The options of one section, or of one policy. */
static enum mpo_status compare_section(const struct comparison *pair, int section,
                                       const char *policy)
{
    enum mpo_status status = MPO_OK;
    char key[KEY_BYTES];
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        if ((int)option->section != section)
            continue;
        snprintf(key, sizeof key, "%s%s%s.%s", mpo_config_sections[section].name,
                 *policy != '\0' ? "." : "", policy, option->name);
        MPO_TRY(compare_option(pair, option, key));
    }
cleanup:
    return status;
}

/* A text that was read back may have an entry without a name: no other is the same. */
static int32_t find_policy(const struct mpo_config *config, const char *name)
{
    for (int32_t i = 0; name != NULL && i < config->policy_count; i++)
        if (config->policies[i].name != NULL && strcmp(config->policies[i].name, name) == 0)
            return i;
    return -1;
}

/* Those of the first side, or of the second those that the first has not. */
static enum mpo_status compare_policies(struct comparison *pair, int side)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < pair->side[side]->policy_count; i++) {
        const char *name = pair->side[side]->policies[i].name;
        int32_t other = find_policy(pair->side[1 - side], name);
        if (side == 1 && other >= 0)
            continue;
        pair->policy_index[side] = i;
        pair->policy_index[1 - side] = other;
        MPO_TRY(compare_section(pair, MPO_SECTION_policies, name != NULL ? name : "?"));
    }
cleanup:
    return status;
}

static bool is_key_of_an_option(const char *key)
{
    const char *last = strrchr(key, '.');
    const char *section = mpo_config_sections[MPO_SECTION_policies].name;
    bool in_policy = strncmp(key, section, strlen(section)) == 0;
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        if (in_policy ? option->section == MPO_SECTION_policies && last != NULL &&
                            strcmp(last + 1, option->name) == 0
                      : strcmp(key, option->full_name) == 0)
            return true;
    }
    return false;
}

/* Keys that are no options: of the first side, or those that only the second has. */
static void compare_unread(const struct comparison *pair, int side)
{
    const struct mpo_config_stored *stored = pair->side[side]->stored;
    for (size_t i = 0; stored != NULL && i < stored->unread_count; i++) {
        const char *key = stored->unread[i].key;
        const char *text = stored->unread[i].text;
        const char *other = find_unread(pair->side[1 - side], key);
        if (is_key_of_an_option(key) || (other != NULL && side == 1) ||
            (other != NULL && strcmp(text, other) == 0))
            continue;
        other = other != NULL ? other : NONE;
        pair->visit(pair->context, key, side == 0 ? text : other, side == 0 ? other : text);
    }
}

enum mpo_status mpo_config_compare(const struct mpo_config *first,
                                   const struct mpo_config *second,
                                   void (*visit)(void *context, const char *key,
                                                 const char *first, const char *second),
                                   void *context)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(first, second);
    struct comparison pair = {.side = {first, second}, .visit = visit, .context = context};
    for (int section = 0; section < MPO_SECTION_COUNT; section++) {
        if (!mpo_config_is_in_files(section))
            continue;
        pair.policy_index[0] = pair.policy_index[1] = 0;
        if (section != MPO_SECTION_policies) {
            MPO_TRY(compare_section(&pair, section, ""));
            continue;
        }
        MPO_TRY(compare_policies(&pair, 0));
        MPO_TRY(compare_policies(&pair, 1));
    }
    compare_unread(&pair, 0);
    compare_unread(&pair, 1);
cleanup:
    return status;
}

bool mpo_config_is_of_a_command(const char *key)
{
    size_t length = strcspn(key, ".");
    for (int i = 0; i < MPO_SECTION_COUNT; i++)
        if (strncmp(mpo_config_sections[i].name, key, length) == 0 &&
            mpo_config_sections[i].name[length] == '\0')
            return mpo_config_sections[i].scope != MPO_SCOPE_SHARED &&
                   mpo_config_sections[i].scope != MPO_SCOPE_LIST;
    return false;
}
