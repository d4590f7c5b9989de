/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flags of a command as a list, from which come its help, the manual page and the
 * completion of shells.
 */
#include "config_impl.h"

#include <stdio.h>
#include <string.h>

#include "base/argument.h"
#include "base/spelling.h"

#define JSON_FLAG MPO_OPTION_COUNT /* beside the options, the synonym of --format=json */

bool mpo_config_is_own(const struct mpo_config_option *option, const char *command)
{
    return strcmp(mpo_config_sections[option->section].name, command) == 0;
}

static const struct mpo_config_taken taken[] = {
#define MPO_TAKES(command, section) {MPO_SECTION_##command, MPO_SECTION_##section},
#include "mpo/options.def"
};
#define TAKEN_COUNT (sizeof taken / sizeof *taken)

static const struct mpo_config_default defaults[] = {
#define MPO_DEFAULT(command, section, name, initial)                                       \
    {MPO_SECTION_##command, MPO_OPTION_##section##_##name, initial},
#include "mpo/options.def"
};
#define DEFAULT_COUNT (sizeof defaults / sizeof *defaults)

/* The scope of the section that a command has of its own; FLAGS for one without. */
static enum mpo_config_scope scope_of(const char *command)
{
    for (int i = 0; i < MPO_SECTION_COUNT; i++)
        if (strcmp(mpo_config_sections[i].name, command) == 0)
            return mpo_config_sections[i].scope;
    return MPO_SCOPE_FLAGS;
}

bool mpo_config_is_query(const char *command)
{
    return scope_of(command) == MPO_SCOPE_QUERY;
}

bool mpo_config_is_configured(const char *command)
{
    return scope_of(command) == MPO_SCOPE_COMMAND || mpo_config_is_query(command);
}

enum mpo_status mpo_config_check_command(const char *command)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(command);
    char quoted[MPO_QUOTE_BYTES];
    char names[MPO_SECTION_COUNT * MPO_QUOTE_BYTES] = "";
    size_t used = 0;
    for (int i = 0; i < MPO_SECTION_COUNT; i++)
        if (mpo_config_is_configured(mpo_config_sections[i].name))
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                     used > 0 ? ", " : "", mpo_config_sections[i].name);
    MPO_CHECK(mpo_config_is_configured(command), MPO_ERR_USAGE,
              "command: expected one that takes a configuration (%s), found '%s'", names,
              mpo_quote(command, quoted));
cleanup:
    return status;
}

static bool is_shared(int section)
{
    return mpo_config_sections[section].scope == MPO_SCOPE_SHARED ||
           mpo_config_sections[section].scope == MPO_SCOPE_LIST;
}

bool mpo_config_takes(const char *command, int section)
{
    for (size_t i = 0; i < TAKEN_COUNT; i++)
        if ((int)taken[i].section == section &&
            strcmp(mpo_config_sections[taken[i].command].name, command) == 0)
            return true;
    return is_shared(section) && mpo_config_is_configured(command);
}

const char *mpo_config_initial(const struct mpo_config_option *option, const char *command)
{
    for (size_t i = 0; i < DEFAULT_COUNT; i++)
        if (&mpo_config_options[defaults[i].option] == option &&
            strcmp(mpo_config_sections[defaults[i].command].name, command) == 0)
            return defaults[i].initial;
    return option->initial;
}

bool mpo_config_is_in_files(int section)
{
    return is_shared(section) || mpo_config_sections[section].scope == MPO_SCOPE_COMMAND;
}

const char *mpo_config_json_choice(const struct mpo_config_option *option)
{
    if (strcmp(option->name, "format") != 0)
        return NULL;
    if (mpo_config_find_choice(option->choices, "json") >= 0)
        return "json";
    return mpo_config_find_choice(option->choices, "jsonl") >= 0 ? "jsonl" : NULL;
}

/* Options of the command in the order in which it shows them. */
static int list_flags(const char *command, int order[MPO_OPTION_COUNT + 1])
{
    int count = 0;
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        if (!mpo_config_is_own(&mpo_config_options[i], command))
            continue;
        order[count++] = i;
        if (mpo_config_json_choice(&mpo_config_options[i]) != NULL)
            order[count++] = JSON_FLAG;
    }
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if (mpo_config_takes(command, (int)mpo_config_options[i].section))
            order[count++] = i;
    return count;
}

static const char *value_form(const struct mpo_config_option *option)
{
    switch (option->type) {
    case MPO_TYPE_INTEGER:
        return "=N";
    case MPO_TYPE_NUMBER:
    case MPO_TYPE_FACTORS:
        return "=X";
    case MPO_TYPE_AUTO_INTEGER:
        return "=N|auto";
    case MPO_TYPE_AUTO_NUMBER:
        return "=X|auto";
    case MPO_TYPE_FLAG:
        return "[=true|false]";
    case MPO_TYPE_TEXT:
        return "=TEXT";
    case MPO_TYPE_PATH:
    case MPO_TYPE_PATHS:
        return "=PATH";
    case MPO_TYPE_DATE:
        return "=YYYY-MM-DD|today";
    case MPO_TYPE_NAME_OR_PATH:
        return "=NAME|PATH";
    case MPO_TYPE_CHOICE:
    case MPO_TYPE_VARIANT:
        return "=";
    case MPO_TYPE_NUMBERS:
        return "=X,X,...";
    }
    return "";
}

void mpo_config_name_flag(const struct mpo_config_option *option, const char *command,
                          char name[MPO_CONFIG_FLAG_BYTES])
{
    const char *section = mpo_config_sections[option->section].name;
    const char *entry = option->section == MPO_SECTION_policies ? "NAME." : "";
    if (!mpo_config_is_own(option, command)) {
        snprintf(name, MPO_CONFIG_FLAG_BYTES, "--%s.%s%s", section, entry, option->name);
        return;
    }
    snprintf(name, MPO_CONFIG_FLAG_BYTES, "--%s", option->name);
    mpo_config_spell_flag(name);
}

bool mpo_config_flag(const char *command, int index, struct mpo_config_flag *flag)
{
    int order[MPO_OPTION_COUNT + 1];
    if (index >= list_flags(command, order))
        return false;
    bool is_json = order[index] == JSON_FLAG;
    const struct mpo_config_option *option =
        &mpo_config_options[order[is_json ? index - 1 : index]];
    *flag = (struct mpo_config_flag){
        .section = mpo_config_sections[option->section].name,
        .section_sentence = mpo_config_sections[option->section].sentence,
        .value = is_json ? "" : value_form(option),
        .choices = is_json ? NULL : option->choices,
        .initial = is_json ? "" : mpo_config_initial(option, command),
        .sentence = option->sentence,
        .is_path =
            !is_json && (option->type == MPO_TYPE_PATH || option->type == MPO_TYPE_PATHS ||
                         option->type == MPO_TYPE_NAME_OR_PATH),
    };
    if (is_json) {
        snprintf(flag->name, sizeof flag->name, "--json");
        flag->sentence = strcmp(mpo_config_json_choice(option), "json") == 0
                             ? "the same as --format=json"
                             : "the same as --format=jsonl";
        return true;
    }
    mpo_config_name_flag(option, command, flag->name);
    return true;
}
