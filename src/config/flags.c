/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: one file and flags, by getopt_long with a table made from the options.
 *
 * getopt accepts any unambiguous prefix of a name, so a new option could break a script:
 * every name is compared in full afterwards. Arguments are processed in order ("-" before
 * the short options), so argv is not permuted and the current argument is at optind. getopt
 * cannot know the flags of policies; it returns them as unknown and they are parsed here.
 */
#include "config_impl.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

#define POLICY_PREFIX "--policies."
#define JSON_NAME     "json" /* --json is --format=json, or jsonl */
#define FIRST_ANSWER  256    /* of a known option; getopt's own results are characters */

struct flag {
    struct mpo_config_assignment assignment;
    const char *policy; /* name in argv, not terminated; NULL for the other sections */
    int policy_bytes;
};

struct mpo_config_flags {
    const char *command;
    struct flag *flag; /* [flag_count] in the order of argv */
    int flag_count;
    struct mpo_config_arguments *arguments;
    struct option known[2 * MPO_OPTION_COUNT + 2]; /* val: FIRST_ANSWER + option */
    size_t known_count;
    char **respelt; /* [argc] copies of arguments that were written with hyphens, or NULL */
    int argument_count;
};

static void add_known(struct mpo_config_flags *flags, const char *name, int option_index)
{
    enum mpo_config_type type = mpo_config_options[option_index].type;
    bool alone = type == MPO_TYPE_FLAG || strcmp(name, JSON_NAME) == 0;
    flags->known[flags->known_count++] = (struct option){
        .name = name,
        .has_arg = alone ? optional_argument : required_argument,
        .val = FIRST_ANSWER + option_index,
    };
}

/* Those of the command's own section by their name; what a configuration holds, or the
 * command takes without one, by its full name. */
static void make_known(struct mpo_config_flags *flags)
{
    bool configured = mpo_config_is_configured(flags->command);
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        if (option->section == MPO_SECTION_policies)
            continue;
        if (mpo_config_takes(flags->command, (int)option->section) ||
            (configured && mpo_config_is_in_files((int)option->section)))
            add_known(flags, option->full_name, i);
        if (!mpo_config_is_own(option, flags->command))
            continue;
        add_known(flags, option->name, i);
        if (mpo_config_json_choice(option) != NULL)
            add_known(flags, JSON_NAME, i);
    }
}

void mpo_config_spell_flag(char *flag)
{
    if (strchr(flag, '.') != NULL)
        return;
    for (char *at = strchr(flag, '_'); at != NULL; at = strchr(at, '_'))
        *at = '-';
}

/* --policies.NAME.key=value; names have no dot, so the first dot ends the name. */
static enum mpo_status parse_policy_flag(struct mpo_config_flags *flags,
                                         const char *argument)
{
    enum mpo_status status = MPO_OK;
    const char *names[MPO_OPTION_COUNT];
    size_t name_count = 0;
    char quoted[MPO_QUOTE_BYTES];
    char hint[MPO_CONFIG_HINT_BYTES];
    char key[MPO_QUOTE_BYTES];
    const char *policy = argument + strlen(POLICY_PREFIX);
    const char *dot = strchr(policy, '.');
    const char *equals = dot != NULL ? strchr(dot, '=') : NULL;
    MPO_CHECK(equals != NULL && dot > policy, MPO_ERR_USAGE,
              "expected --policies.NAME.key=value, found '%s'",
              mpo_quote(argument, quoted));
    snprintf(key, sizeof key, "%.*s", (int)(equals - dot - 1), dot + 1);
    struct flag *flag = &flags->flag[flags->flag_count];
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        if (mpo_config_options[i].section != MPO_SECTION_policies)
            continue;
        names[name_count++] = mpo_config_options[i].name;
        if (mpo_config_is_spelt(mpo_config_options[i].name, key, strlen(key)))
            flag->assignment.option = &mpo_config_options[i];
    }
    MPO_CHECK(flag->assignment.option != NULL, MPO_ERR_USAGE, "unknown key in '%s'%s",
              mpo_quote(argument, quoted), mpo_config_hint(key, names, name_count, hint));
    flag->assignment.place.flag = argument;
    flag->assignment.place.flag_bytes = (int)(equals - argument);
    flag->assignment.text = equals + 1;
    flag->policy = policy;
    flag->policy_bytes = (int)(dot - policy);
    flags->flag_count++;
cleanup:
    return status;
}

static enum mpo_status parse_flag(struct mpo_config_flags *flags, const char *argument,
                                  const struct option *known, const char *value)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_option *option = &mpo_config_options[known->val - FIRST_ANSWER];
    char quoted[MPO_QUOTE_BYTES];
    size_t bytes = strcspn(argument, "=");
    if (strlen(known->name) + strlen("--") != bytes)
        return mpo_config_refuse_unknown(flags->command,
                                         argument); /* only the beginning of the name */
    if (strcmp(known->name, JSON_NAME) == 0) {
        MPO_CHECK(value == NULL, MPO_ERR_USAGE, "--json: expected no value, found '%s'",
                  mpo_quote(value, quoted));
        value = mpo_config_json_choice(option);
    }
    flags->flag[flags->flag_count++].assignment = (struct mpo_config_assignment){
        .option = option,
        .place = {.flag = argument, .flag_bytes = (int)bytes},
        .text = value != NULL ? value : "true", /* only a FLAG needs no value */
    };
cleanup:
    return status;
}

static void keep_argument(struct mpo_config_flags *flags, const char *text)
{
    if (flags->arguments->count < 2)
        flags->arguments->text[flags->arguments->count] = text;
    flags->arguments->count++;
}

/* One result of getopt for the current argument; known is NULL if the option is unknown. */
static enum mpo_status handle_argument(struct mpo_config_flags *flags, const char *argument,
                                       int answer, const struct option *known)
{
    enum mpo_status status = MPO_OK;
    char quoted[MPO_QUOTE_BYTES];
    if (answer == 1)
        keep_argument(flags, argument);
    else if (known != NULL)
        MPO_TRY(parse_flag(flags, argument, known, optarg));
    else if (strncmp(argument, POLICY_PREFIX, strlen(POLICY_PREFIX)) == 0)
        MPO_TRY(parse_policy_flag(flags, argument));
    else if (answer == ':')
        MPO_FAIL(MPO_ERR_USAGE, "%s: expected a value, found none; write %s=VALUE",
                 mpo_quote(argument, quoted), quoted);
    else
        MPO_TRY(mpo_config_refuse_unknown(flags->command, argument));
cleanup:
    return status;
}

/* typed: argv before names were respelt, as messages show them. */
static enum mpo_status parse_arguments(struct mpo_config_flags *flags, int argc,
                                       char **argv, char *const *typed)
{
    enum mpo_status status = MPO_OK;
    opterr = 0;
    optind = 0; /* restart: getopt keeps state */
    for (;;) {
        int at = optind > 0 ? optind : 1;
        int index = 0;
        int answer = getopt_long(argc, argv, "-:", flags->known, &index);
        if (answer == -1)
            break;
        const struct option *known = answer >= FIRST_ANSWER ? &flags->known[index] : NULL;
        MPO_TRY(handle_argument(flags, typed[at - 1], answer, known));
    }
    for (int i = optind; i < argc; i++)
        keep_argument(flags, argv[i]); /* what follows "--" */
cleanup:
    return status;
}

/* --best-of means the option best_of, where none has the name as it is written. */
static enum mpo_status respell_flag(struct mpo_config_flags *flags, int index,
                                    char **argument)
{
    enum mpo_status status = MPO_OK;
    char *copy = NULL;
    size_t bytes = strcspn(*argument, "=");
    if (strncmp(*argument, "--", 2) != 0 || strcspn(*argument + 2, "-") + 2 >= bytes)
        return MPO_OK;
    MPO_TRY(mpo_memory_copy_text(*argument, &copy));
    for (size_t i = 2; i < bytes; i++)
        if (copy[i] == '-')
            copy[i] = '_';
    for (size_t i = 0; i < flags->known_count; i++)
        if (mpo_config_is_spelt(flags->known[i].name, *argument + 2, bytes - 2)) {
            flags->respelt[index] = copy;
            *argument = copy;
            return MPO_OK;
        }
cleanup:
    free(copy);
    return status;
}

static enum mpo_status check_arguments(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(argc >= 0 && (argc == 0 || argv != NULL), MPO_ERR_USAGE,
              "expected argv [argc], found argc %d and %s", argc,
              argv != NULL ? "argv" : "argv NULL");
    for (int i = 0; i < argc; i++)
        MPO_CHECK(argv[i] != NULL, MPO_ERR_USAGE,
                  "expected %d texts in argv, found NULL as number %d", argc, i + 1);
cleanup:
    return status;
}

enum mpo_status mpo_config_flags_open(const char *command, int argc, char *const *argv,
                                      struct mpo_config_arguments *arguments,
                                      struct mpo_config_flags **out)
{
    enum mpo_status status = MPO_OK;
    char **whole = NULL; /* argv as getopt wants it, with the program's name before it */
    *arguments = (struct mpo_config_arguments){0};
    MPO_TRY(check_arguments(argc, argv));
    MPO_NEW(1, out);
    MPO_NEW(argc + 2, &whole);
    MPO_NEW(argc, &(*out)->flag);
    (*out)->command = command;
    (*out)->arguments = arguments;
    make_known(*out);
    whole[0] = (char *)"mpo";
    MPO_NEW(argc, &(*out)->respelt);
    (*out)->argument_count = argc;
    for (int i = 0; i < argc; i++) {
        whole[i + 1] = argv[i];
        MPO_TRY(respell_flag(*out, i, &whole[i + 1]));
    }
    MPO_TRY(parse_arguments(*out, argc + 1, whole, argv));
cleanup:
    free(whole);
    return status;
}

/* The index of the policy that a flag names. */
static enum mpo_status find_policy(const struct flag *flag, const struct mpo_config *config,
                                   int32_t *index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_place *place = &flag->assignment.place;
    char known[512] = "";
    size_t bytes = 0;
    for (*index = 0; *index < config->policy_count; (*index)++) {
        const char *name = config->policies[*index].name;
        if (name == NULL)
            continue; /* an entry that the checks refuse later */
        if (strlen(name) == (size_t)flag->policy_bytes &&
            strncmp(name, flag->policy, strlen(name)) == 0)
            return MPO_OK;
        if (bytes < sizeof known)
            bytes += (size_t)snprintf(known + bytes, sizeof known - bytes, "%s%s",
                                      bytes > 0 ? ", " : "", name);
    }
    MPO_FAIL(MPO_ERR_USAGE, "%.*s: unknown policy '%.*s'; known: %s", place->flag_bytes,
             place->flag, flag->policy_bytes, flag->policy, bytes > 0 ? known : "none");
cleanup:
    return status;
}

enum mpo_status mpo_config_flags_apply(const struct mpo_config_flags *flags,
                                       struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    for (int i = 0; i < flags->flag_count; i++) {
        struct mpo_config_assignment assignment = flags->flag[i].assignment;
        if (flags->flag[i].policy != NULL)
            MPO_TRY(find_policy(&flags->flag[i], build->config, &assignment.policy_index));
        MPO_TRY(mpo_config_assign(build, &assignment));
        build->config->flagged[assignment.option - mpo_config_options] = true;
    }
cleanup:
    return status;
}

/* A policy's flag is one argument; the others may be two. */
static enum mpo_status spell_out(const struct flag *flag, char **out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_assignment *assignment = &flag->assignment;
    const char *name = assignment->option->full_name;
    size_t bytes = strlen("--=") + strlen(name) + strlen(assignment->text) + 1;
    if (flag->policy != NULL)
        return mpo_memory_copy_text(assignment->place.flag, out);
    MPO_NEW(bytes, out);
    snprintf(*out, bytes, "--%s=%s", name, assignment->text);
cleanup:
    return status;
}

enum mpo_status mpo_config_pass_on(const char *command, int argc, char *const *argv,
                                   struct mpo_config_arguments *arguments,
                                   struct mpo_texts *flags)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(command, arguments, flags);
    struct mpo_config_flags *parsed = NULL;
    flags->count = 0;
    MPO_NEW(argc, &flags->text);
    MPO_TRY(mpo_config_flags_open(command, argc, argv, arguments, &parsed));
    for (int i = 0; i < parsed->flag_count; i++) {
        const struct flag *flag = &parsed->flag[i];
        if (flag->assignment.option->section == MPO_SECTION_launch)
            continue;
        MPO_TRY(spell_out(flag, &flags->text[flags->count]));
        flags->count++;
    }
cleanup:
    mpo_config_flags_close(&parsed);
    return status;
}

void mpo_config_flags_close(struct mpo_config_flags **flags)
{
    if (*flags == NULL)
        return;
    for (int i = 0; (*flags)->respelt != NULL && i < (*flags)->argument_count; i++)
        free((*flags)->respelt[i]);
    free((*flags)->respelt);
    free((*flags)->flag);
    free(*flags);
    *flags = NULL;
}
