/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One key of a configuration by the name that its flag has, for scripts.
 *
 * The text is what the flag takes, not YAML: a shell has no use for quotes and brackets.
 */
#include "config_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"

#define POLICIES  "policies"
#define KNOWN_MAX 16 /* policies that a hint names */

static bool is_of_policies(const struct mpo_config_option *option)
{
    return option->section == MPO_SECTION_policies;
}

static bool starts_in_policies(const char *key)
{
    return strncmp(key, POLICIES ".", strlen(POLICIES ".")) == 0;
}

/* Refuse with the nearest key; for a known policy only the last part can be wrong. */
static enum mpo_status refuse_key(const char *key)
{
    enum mpo_status status = MPO_OK;
    const char *last = strrchr(key, '.');
    int prefix = starts_in_policies(key) ? (int)(last + 1 - key) : 0;
    const char *nearest = "";
    char hint[MPO_CONFIG_HINT_BYTES] = "";
    size_t least = SIZE_MAX;
    char quoted[2][MPO_QUOTE_BYTES];
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        const char *name = prefix > 0 ? option->name : option->full_name;
        size_t distance = mpo_spelling_distance(key + prefix, name);
        if (!mpo_config_is_in_files((int)option->section) || distance >= least ||
            is_of_policies(option) != (prefix > 0))
            continue;
        least = distance;
        nearest = name;
    }
    snprintf(quoted[1], sizeof quoted[1], "%.*s", prefix, key);
    if (mpo_spelling_is_near(key + prefix, least))
        snprintf(hint, sizeof hint, "; the nearest key is '%s%s'", quoted[1], nearest);
    MPO_FAIL(
        MPO_ERR_USAGE,
        "--get: expected section.key, policies.NAME.key or policies, found '%s'%s (mpo "
        "config CONFIG lists all)",
        mpo_quote(key, quoted[0]), hint);
cleanup:
    return status;
}

/* The policy of policies.NAME.key, by its name; names have no dot. */
static enum mpo_status find_policy(const struct mpo_config *config, const char *name,
                                   int32_t *index)
{
    enum mpo_status status = MPO_OK;
    const char *known[KNOWN_MAX];
    size_t known_count = 0;
    size_t bytes = strcspn(name, ".");
    char wanted[MPO_QUOTE_BYTES];
    char hint[MPO_CONFIG_HINT_BYTES];
    for (*index = 0; *index < config->policy_count; (*index)++) {
        const char *other = config->policies[*index].name;
        if (strlen(other) == bytes && strncmp(other, name, bytes) == 0)
            return MPO_OK;
        if (known_count < KNOWN_MAX)
            known[known_count++] = other;
    }
    snprintf(wanted, sizeof wanted, "%.*s", (int)bytes, name);
    MPO_FAIL(MPO_ERR_USAGE, "--get: unknown policy '%s'%s", wanted,
             mpo_config_hint(wanted, known, known_count, hint));
cleanup:
    return status;
}

static const struct mpo_config_option *find_option(const char *key)
{
    const char *dot = strchr(key, '.');
    for (int i = 0; i < MPO_OPTION_COUNT && dot != NULL; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        const char *rest = is_of_policies(option) ? strchr(dot + 1, '.') : dot;
        const char *section = mpo_config_sections[option->section].name;
        if (rest != NULL && mpo_config_is_in_files((int)option->section) &&
            mpo_config_is_spelt(section, key, (size_t)(dot - key)) &&
            mpo_config_is_spelt(option->name, rest + 1, strlen(rest + 1)))
            return option;
    }
    return NULL;
}

static enum mpo_status print_key(const struct mpo_config *config, const char *key,
                                 FILE *stream)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_option *option = find_option(key);
    int32_t policy_index = 0;
    if (strcmp(key, POLICIES) == 0) {
        for (int32_t i = 0; i < config->policy_count; i++)
            fprintf(stream, "%s\n", config->policies[i].name);
        return MPO_OK;
    }
    if (starts_in_policies(key))
        MPO_TRY(find_policy(config, key + strlen(POLICIES "."), &policy_index));
    if (option == NULL)
        MPO_TRY(refuse_key(key));
    mpo_config_print_value(stream, option, mpo_config_member(config, option, policy_index),
                           true);
    fputc('\n', stream);
cleanup:
    return status;
}

enum mpo_status mpo_config_get(const struct mpo_config *config, const char *key,
                               char **text)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(config, key, text);
    size_t bytes = 0;
    *text = NULL;
    FILE *stream = open_memstream(text, &bytes);
    MPO_CHECK(stream != NULL, MPO_ERR_MEMORY, "no memory to print a key");
    MPO_TRY(print_key(config, key, stream));
cleanup:
    if (stream != NULL && fclose(stream) != 0 && status == MPO_OK)
        status =
            mpo_error_raise(MPO_ERR_MEMORY, __FILE__, __LINE__, "no memory to print a key");
    if (status != MPO_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
