/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manual page mpo(1) in the man macros of roff: each command with its prose and its own
 * options, the options of a configuration once, then topics, exit codes, environment, files
 * and examples. Prose is in manual.def, everything else comes from the program's lists.
 */
#include "help.h"

#include <string.h>

#include "build_info.h"
#include "commands/commands.h"

/* Escape text for roff: no escapes, no request at the beginning of a line, hyphens that can
 * be copied, ASCII quotes. */
static void put_text(FILE *stream, const char *text)
{
    static const char special[] = "\\-'\"`^~";
    static const char *const escape[] = {"\\e",   "\\-",   "\\(aq", "\\(dq",
                                         "\\(ga", "\\(ha", "\\(ti"};
    if (*text == '.')
        fputs("\\&", stream);
    for (; *text != '\0'; text++) {
        const char *found = strchr(special, *text);
        if (found != NULL)
            fputs(escape[found - special], stream);
        else
            fputc(*text, stream);
    }
}

static void put_title(FILE *stream, const char *request, const char *text)
{
    fprintf(stream, ".%s ", request);
    put_text(stream, text);
    fputc('\n', stream);
}

/* The prose of a command or a topic, in the order of the list. */
static const struct manual_text {
    const char *command; /* or NULL */
    const char *topic;   /* or NULL */
    const char *text;
} manual_texts[] = {
#define MPO_MANUAL_COMMAND(command, text) {#command, NULL, text},
#define MPO_MANUAL_TOPIC(topic, text)     {NULL, topic, text},
#include "manual.def"
#undef MPO_MANUAL_COMMAND
#undef MPO_MANUAL_TOPIC
};
#define MANUAL_TEXT_COUNT (sizeof manual_texts / sizeof *manual_texts)

static void put_paragraph(FILE *stream, const char *text)
{
    fputs(".PP\n", stream);
    put_text(stream, text);
    fputc('\n', stream);
}

static void put_prose(FILE *stream, const struct mpo_command *command)
{
    for (size_t i = 0; i < MANUAL_TEXT_COUNT; i++)
        if (manual_texts[i].command != NULL &&
            strcmp(manual_texts[i].command, command->name) == 0)
            put_paragraph(stream, manual_texts[i].text);
}

static void put_topics(FILE *stream)
{
    const char *title = "";
    for (size_t i = 0; i < MANUAL_TEXT_COUNT; i++) {
        const struct manual_text *one = &manual_texts[i];
        if (one->topic == NULL)
            continue;
        if (strcmp(one->topic, title) != 0)
            put_title(stream, "SH", one->topic);
        title = one->topic;
        put_paragraph(stream, one->text);
    }
}

/* A term and what it means. */
static void put_item(FILE *stream, const char *term, const char *value, const char *text)
{
    fputs(".TP\n\\fB", stream);
    put_text(stream, term);
    fputs("\\fR", stream);
    put_text(stream, value);
    fputc('\n', stream);
    put_text(stream, text);
    fputc('\n', stream);
}

static void put_option(FILE *stream, const struct mpo_config_flag *flag)
{
    char value[256];
    char text[HELP_TEXT_BYTES];
    snprintf(value, sizeof value, "%s%s", flag->value,
             flag->choices != NULL ? flag->choices : "");
    help_describe(flag, text);
    put_item(stream, flag->name, value, text);
}

static void put_usage(FILE *stream, const struct mpo_command *command)
{
    for (const char *form = command->usage; form != NULL;) {
        char line[256];
        size_t bytes = strcspn(form, "\n");
        snprintf(line, sizeof line, " %.*s", (int)bytes, form);
        fprintf(stream, ".B mpo %s\n", command->name);
        put_text(stream, line + (bytes > 0 ? 1 : 0));
        fputs(form[bytes] == '\n' ? "\n.br\n" : "\n", stream);
        form = form[bytes] == '\n' ? form + bytes + 1 : NULL;
    }
}

static void put_command(FILE *stream, const struct mpo_command *command)
{
    struct mpo_config_flag flag = {0};
    put_title(stream, "SS", command->name);
    put_usage(stream, command);
    fputs(".PP\n", stream);
    put_text(stream, command->sentence);
    fputs(".\n", stream);
    put_prose(stream, command);
    for (int i = 0; mpo_config_flag(command->name, i, &flag); i++)
        if (strcmp(flag.section, command->name) == 0)
            put_option(stream, &flag);
}

/* Any command that takes a configuration shows the shared options. */
static void put_shared(FILE *stream)
{
    const char *section = "fit";
    struct mpo_config_flag flag = {0};
    fputs(".SH CONFIGURATION\nKeys of the YAML file, and flags of every command that takes "
          "one.\nFlags override the file; in their names - and _ are the same.\n",
          stream);
    for (int i = 0; mpo_config_flag("fit", i, &flag); i++) {
        if (strcmp(flag.section, "fit") == 0)
            continue;
        if (strcmp(section, flag.section) != 0) {
            put_title(stream, "SS", flag.section);
            put_text(stream, flag.section_sentence);
            fputs(".\n", stream);
        }
        section = flag.section;
        put_option(stream, &flag);
    }
}

static void put_exit_codes(FILE *stream)
{
    fputs(".SH EXIT STATUS\n", stream);
    for (int status = 0; status < MPO_STATUS_COUNT; status++) {
        char code[16];
        snprintf(code, sizeof code, "%d", mpo_status_exit_code((enum mpo_status)status));
        put_item(stream, code, "", mpo_status_sentence((enum mpo_status)status));
    }
}

static void put_surroundings(FILE *stream)
{
    fputs(".SH ENVIRONMENT\n", stream);
    put_item(stream, "NO_COLOR", "", "set and not empty: no colour on a terminal");
    put_item(stream, "TERM", "", "dumb: treat the terminal as a file");
    put_item(stream, "COLUMNS", "", "width of a terminal that does not report one");
    fputs(".SH FILES\n", stream);
    put_item(stream, "CONFIG", "",
             "a configuration in YAML; mpo help --reference prints every key");
    put_item(stream, "RECORD", "",
             "the HDF5 file that fit writes: weights, figures and responses of every step");
    put_item(stream, "RECORD.lock", "", "lock file of a record that a run is writing");
    fputs(".SH EXAMPLES\n", stream);
    put_item(stream, "mpo fit my.yaml", " --record.file=run.h5", "find the weights");
    put_item(stream, "mpirun -n 3 mpo fit my.yaml", "", "the same, one policy per rank");
    put_item(stream, "mpo generate my.yaml", " --weights=run.h5 --prompt=\"...\"",
             "generate from the mixture");
    put_item(stream, "mpo inspect run.h5", " --plot=run.svg", "plot the trajectory");
}

void help_print_man(FILE *stream)
{
    fputs(
        ".TH MPO 1 \"" MPO_GIT_DATE "\" \"mpo " MPO_VERSION "\" \"User Commands\"\n"
        ".SH NAME\nmpo \\- mix aligned language models into one policy\n"
        ".SH SYNOPSIS\n.B mpo\n.I COMMAND\n.RI [ ARGUMENTS ]\n"
        ".SH DESCRIPTION\n"
        "Language models that were each aligned to one objective are mixed into one\n"
        "balanced policy, by mirror descent on the weights of their log\\-linear "
        "mixture.\n"
        "Results go to standard output, everything else to standard error. A result that\n"
        "cannot be written ends with exit code 74; a reader that closes its pipe (| head) "
        "ends\n"
        "the command by SIGPIPE, without a message. Messages to a closed standard error\n"
        "are lost, and the command continues.\n"
        ".SH COMMANDS\n"
        "Defaults are in brackets.\n",
        stream);
    for (const struct mpo_command *command = mpo_commands; command->name != NULL; command++)
        put_command(stream, command);
    put_shared(stream);
    put_topics(stream);
    put_exit_codes(stream);
    put_surroundings(stream);
}
