/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion for bash: tables of commands, options and choices, then a function that
 * contains nothing specific to mpo.
 *
 * bash treats = as the end of a word and requests completion only of what follows
 * --format=; the typed line tells which option it belongs to.
 */
#include "help.h"

#include <stdbool.h>
#include <string.h>

#include "commands/commands.h"

static const char function[] =
    "# The values of option $2 of command $1 are words in choices, or paths.\n"
    "_mpo_complete_value()\n"
    "{\n"
    "    local choices prefix=\n"
    "    [[ $COMP_WORDBREAKS == *=* || $cur != *=* ]] || prefix=$2=\n"
    "    choices=$(_mpo_choices \"$1 $2\")\n"
    "    if [[ $choices == PATH ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -P \"$prefix\" -f -- \"$3\")\n"
    "        compopt -o filenames 2>/dev/null\n"
    "    elif [[ -n $choices ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -P \"$prefix\" -W \"$choices\" -- \"$3\")\n"
    "    fi\n"
    "}\n"
    "\n"
    "_mpo()\n"
    "{\n"
    "    local line=${COMP_LINE:0:COMP_POINT} cur words last\n"
    "    read -ra words <<<\"$line\"\n"
    "    cur=${line##*[[:space:]]}\n"
    "    [[ -z $cur ]] || unset 'words[-1]'\n"
    "    last=${words[-1]}\n"
    "    COMPREPLY=()\n"
    "    if ((${#words[@]} < 2)) || [[ ${words[1]} == help && $cur != -* && $last != -* "
    "]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$_mpo_commands\" -- \"$cur\")\n"
    "    elif [[ $cur == --*=* ]]; then\n"
    "        _mpo_complete_value \"${words[1]}\" \"${cur%%=*}\" \"${cur#*=}\"\n"
    "    elif [[ $cur == -* ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -W \"$(_mpo_options \"${words[1]}\")\" -- "
    "\"$cur\")\n"
    "        [[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null\n"
    "    elif [[ $last == --* && $last != *=* && -n $(_mpo_choices \"${words[1]} $last\") "
    "]]; then\n"
    "        _mpo_complete_value \"${words[1]}\" \"$last\" \"$cur\"\n"
    "    else\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
    "        compopt -o filenames 2>/dev/null\n"
    "    fi\n"
    "}\n"
    "\n"
    "complete -F _mpo mpo\n";

static bool is_own(const struct mpo_config_flag *flag, const struct mpo_command *command)
{
    return strcmp(flag->section, command->name) == 0;
}

/* --policies.NAME.kind goes for every name. */
static const char *name_of_policy(const struct mpo_config_flag *flag)
{
    return strstr(flag->name, ".NAME.");
}

static void put_options(FILE *stream, const struct mpo_command *command)
{
    struct mpo_config_flag flag = {0};
    fprintf(stream, "    %s) echo \"", command->name);
    for (int i = 0; mpo_config_flag(command->name, i, &flag); i++)
        if (name_of_policy(&flag) == NULL)
            fprintf(stream, "%s%s%s", i > 0 ? " " : "", flag.name,
                    flag.value[0] == '=' ? "=" : "");
    fprintf(stream, "\" ;;\n");
}

/* Choices of a command's own options, or of those that it shares with others. */
static void put_choices(FILE *stream, const struct mpo_command *command, bool shared)
{
    struct mpo_config_flag flag = {0};
    for (int i = 0; mpo_config_flag(command->name, i, &flag); i++) {
        const char *policy = name_of_policy(&flag);
        bool own = is_own(&flag, command);
        if ((flag.choices == NULL && !flag.is_path) || own == shared)
            continue;
        fprintf(stream, "    %s\" %.*s\"%s%s%s) echo \"", own ? command->name : "*",
                policy != NULL ? (int)(policy - flag.name) : (int)strlen(flag.name),
                flag.name, policy != NULL ? ".*\"" : "",
                policy != NULL ? policy + strlen(".NAME") : "", policy != NULL ? "\"" : "");
        for (const char *letter = flag.is_path ? "PATH" : flag.choices; *letter != '\0';
             letter++)
            fputc(*letter == '|' ? ' ' : *letter, stream);
        fprintf(stream, "\" ;;\n");
    }
}

void help_print_completion(FILE *stream)
{
    fputs("# Completion of mpo for bash; made by `mpo help --completion=bash`.\n"
          "_mpo_commands=\"",
          stream);
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        fprintf(stream, "%s%s", command != mpo_commands ? " " : "", command->name);
    fputs("\"\n\n_mpo_options()\n{\n    case $1 in\n", stream);
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        put_options(stream, command);
    fputs("    esac\n}\n\n_mpo_choices()\n{\n    case $1 in\n", stream);
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        put_choices(stream, command, false);
    put_choices(stream, mpo_command_find("fit"), true); /* the same for every command */
    fputs("    esac\n}\n\n", stream);
    fputs(function, stream);
}
