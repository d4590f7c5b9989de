/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flag that its command does not have: what may have been meant.
 *
 * First what the command itself takes: its own options, and shared ones, which are often typed
 * without their section (--responses for --rollout.responses). A name that only other commands
 * have is theirs, and no misspelling. Anything farther away is no suggestion.
 */
#include "config_impl.h"

#include <stdio.h>
#include <string.h>

#define OWNERS_MAX 4 /* commands that are named */

bool mpo_config_is_spelt(const char *name, const char *typed, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (name[i] != (typed[i] == '-' ? '_' : typed[i])) /* or at the end of name */
            return false;
    return name[bytes] == '\0';
}

/* Letters to change in one of the names of an option; the beginning of a name as a command
 * shows it most likely means this one. */
static size_t distance_to(const struct mpo_config_option *option, const char *command,
                          const char *typed)
{
    const char *shown =
        mpo_config_is_own(option, command) ? option->name : option->full_name;
    size_t whole = mpo_spelling_distance(typed, option->full_name);
    size_t bare = mpo_spelling_distance(typed, option->name);
    if (strncmp(shown, typed, strlen(typed)) == 0)
        return 0;
    return whole < bare ? whole : bare;
}

static bool has_json(const char *command)
{
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if (mpo_config_is_own(&mpo_config_options[i], command) &&
            mpo_config_json_choice(&mpo_config_options[i]) != NULL)
            return true;
    return false;
}

/* The nearest flag that the command takes, if it is near; else "". */
static void name_nearest(const char *command, const char *typed,
                         char nearest[MPO_CONFIG_FLAG_BYTES])
{
    size_t least = has_json(command) ? mpo_spelling_distance(typed, "json") : SIZE_MAX;
    snprintf(nearest, MPO_CONFIG_FLAG_BYTES, "--json");
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        bool is_taken = mpo_config_takes(command, (int)option->section) &&
                        option->section != MPO_SECTION_policies;
        size_t distance = distance_to(option, command, typed);
        if ((!is_taken && !mpo_config_is_own(option, command)) || distance >= least)
            continue;
        least = distance;
        mpo_config_name_flag(option, command, nearest);
    }
    if (typed[0] == '\0' || !mpo_spelling_is_near(typed, least))
        nearest[0] = '\0';
}

static bool is_named(const struct mpo_config_option *option, const char *typed)
{
    bool is_shared = mpo_config_sections[option->section].scope == MPO_SCOPE_SHARED;
    return mpo_config_is_spelt(option->full_name, typed, strlen(typed)) ||
           (!is_shared && mpo_config_is_spelt(option->name, typed, strlen(typed)));
}

/* "a flag of `mpo generate`, `mpo score`"; "" where nothing has the name. False for a setting,
 * which nothing of a command without a configuration stands for. */
static bool name_owners(const char *typed, char *list, size_t bytes)
{
    size_t used = 0;
    int count = 0;
    list[0] = '\0';
    for (int i = 0; i < MPO_OPTION_COUNT && used < bytes; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        const struct mpo_config_section *section = &mpo_config_sections[option->section];
        if (option->section == MPO_SECTION_policies || !is_named(option, typed))
            continue;
        if (section->scope == MPO_SCOPE_SHARED) {
            snprintf(list, bytes, "a setting of a configuration");
            return false;
        }
        if (++count > OWNERS_MAX)
            break;
        used += (size_t)snprintf(list + used, bytes - used, "%s`mpo %s`",
                                 count > 1 ? ", " : "a flag of ", section->name);
    }
    if (count > OWNERS_MAX && used < bytes)
        snprintf(list + used, bytes - used, " and others");
    return true;
}

enum mpo_status mpo_config_refuse_unknown(const char *command, const char *argument)
{
    enum mpo_status status = MPO_OK;
    char name[MPO_QUOTE_BYTES];
    char quoted[MPO_QUOTE_BYTES];
    char nearest[MPO_CONFIG_FLAG_BYTES] = "";
    char hint[MPO_CONFIG_FLAG_BYTES + 48] = "";
    char owners[256] = "";
    const char *bare = argument + strspn(argument, "-");
    const int dashes = (int)(bare - argument);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(bare, "="), bare);
    mpo_quote(name, quoted);
    bool may_be_near = name_owners(name, owners, sizeof owners);
    for (char *at = strchr(name, '-'); at != NULL; at = strchr(at, '-'))
        *at = '_';
    name_nearest(command, name, nearest);
    if (may_be_near && nearest[0] != '\0')
        snprintf(hint, sizeof hint, "; the nearest known one is '%s'", nearest);
    if (owners[0] != '\0')
        MPO_FAIL(MPO_ERR_USAGE, "%.*s%s is %s, not of `mpo %s`%s (mpo help %s lists all)",
                 dashes, argument, quoted, owners, command, hint, command);
    MPO_FAIL(MPO_ERR_USAGE, "unknown option '%.*s%s'%s (mpo help %s lists all)", dashes,
             argument, quoted, hint, command);
cleanup:
    return status;
}
