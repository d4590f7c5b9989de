/* SPDX-License-Identifier: Apache-2.0 */
/*
 * help. Everything about commands and options comes from their lists.
 */
#include "help.h"

#include <stdio.h>
#include <string.h>

#include "commands/commands.h"
#include "base/text.h"

#define WIDTH          80
#define COMMAND_COLUMN 13
#define OPTION_COLUMN  8

static void print_overview(void)
{
    printf("mpo mixes language models that were each aligned to one objective into one\n"
           "balanced policy, by mirror descent on the weights of their log-linear "
           "mixture.\n\n"
           "usage: mpo COMMAND [ARGUMENTS]\n\ncommands:\n");
    for (const struct mpo_command *command = mpo_commands; command->name != NULL;
         command++) {
        printf("  %-10s ", command->name);
        mpo_text_wrap(stdout, command->sentence, COMMAND_COLUMN, COMMAND_COLUMN, WIDTH);
        printf("\n");
    }
    printf("\n`mpo help COMMAND` prints a command's arguments and options;\n"
           "`mpo help --reference` prints a configuration with every option;\n"
           "`mpo help --man` and `--completion=bash` print the manual page and a\n"
           "completion script.\n\n"
           "exit codes:\n");
    for (int status = 0; status < MPO_STATUS_COUNT; status++)
        printf("  %3d  %s\n", mpo_status_exit_code((enum mpo_status)status),
               mpo_status_sentence((enum mpo_status)status));
}

static void print_usage(const struct mpo_command *command)
{
    const char *form = command->usage;
    int column = printf("mpo %s: ", command->name);
    mpo_text_wrap(stdout, command->sentence, column, column, WIDTH);
    printf("\n\nusage: ");
    while (true) {
        size_t bytes = strcspn(form, "\n");
        printf("mpo %s %.*s\n", command->name, (int)bytes, form);
        if (form[bytes] == '\0')
            break;
        form += bytes + 1;
        printf("       ");
    }
}

void help_describe(const struct mpo_config_flag *flag, char text[HELP_TEXT_BYTES])
{
    const char *initial = flag->initial != NULL ? flag->initial : "required";
    bool shown = *initial != '\0';
    snprintf(text, HELP_TEXT_BYTES, "%s%s%s%s", flag->sentence, shown ? " [" : "", initial,
             shown ? "]" : "");
}

static void print_option(const struct mpo_config_flag *flag)
{
    char text[HELP_TEXT_BYTES];
    help_describe(flag, text);
    printf("  %s%s%s\n%*s", flag->name, flag->value,
           flag->choices != NULL ? flag->choices : "", OPTION_COLUMN, "");
    mpo_text_wrap(stdout, text, OPTION_COLUMN, OPTION_COLUMN, WIDTH);
    printf("\n");
}

static enum mpo_status print_command(const char *name)
{
    enum mpo_status status = MPO_OK;
    const char *section = "";
    struct mpo_config_flag flag = {0};
    const struct mpo_command *command = mpo_command_find(name);
    MPO_CHECK(command != NULL, MPO_ERR_USAGE,
              "no command '%s'; `mpo help` lists the commands", name);
    print_usage(command);
    for (int i = 0; mpo_config_flag(name, i, &flag); i++) {
        if (strcmp(section, flag.section) != 0)
            printf("\n%s: %s\n", flag.section, flag.section_sentence);
        section = flag.section;
        print_option(&flag);
    }
cleanup:
    return status;
}

static void print_commands_with_ranks(void)
{
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        if (command->needs_ranks)
            printf("%s\n", command->name);
}

enum mpo_status mpo_command_help(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_arguments arguments = {0};
    struct mpo_config *config = NULL;
    MPO_TRY(mpo_command_read_flags("help", argc, argv, &arguments, &config));
    const struct mpo_config_help *options = &config->help;
    bool completes = options->completion != MPO_COMPLETION_NONE;
    MPO_CHECK(arguments.count + options->reference + options->man + options->ranks +
                      completes <=
                  1,
              MPO_ERR_USAGE,
              "expected one command or one of --reference, --man, --completion, --ranks; "
              "see mpo help help");
    if (options->reference)
        (void)mpo_config_print_reference(stdout); /* main looks at all output */
    else if (options->man)
        help_print_man(stdout);
    else if (options->ranks)
        print_commands_with_ranks();
    else if (completes)
        help_print_completion(stdout);
    else if (arguments.count == 1)
        MPO_TRY(print_command(arguments.text[0]));
    else
        print_overview();
cleanup:
    mpo_config_close(&config);
    return status;
}
