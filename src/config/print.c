/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration written out: as YAML that reads back to the same values, and as the
 * commented reference file.
 *
 * Texts are double-quoted, the one YAML style that can hold every text on one line. What
 * libyaml would refuse or fold in its plain form (control characters, line separators, the
 * byte order mark) is escaped. Numbers have the fewest digits that give the same double.
 *
 * libyaml's emitter is not used: it writes no comments, of which the reference file is half,
 * has no indent for the entries of a list in a mapping, and writes letters beyond the basic
 * plane as numbers.
 */
#include "config_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "base/argument.h"

static bool must_escape(int32_t letter)
{
    return letter < 0x20 || (letter >= 0x7F && letter <= 0xA0) || letter == 0x2028 ||
           letter == 0x2029 || letter == 0xFEFF || letter == 0xFFFE || letter == 0xFFFF;
}

static void print_text(FILE *stream, const char *text)
{
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    fputc('"', stream);
    while (*at != '\0') {
        utf8proc_int32_t letter = 0;
        utf8proc_ssize_t bytes = utf8proc_iterate(at, -1, &letter);
        if (bytes <= 0)
            break; /* never: the configuration holds only UTF-8 */
        if (letter == '\n')
            fputs("\\n", stream);
        else if (must_escape(letter))
            fprintf(stream, "\\u%04X", (unsigned)letter);
        else
            fprintf(stream, "%s%.*s", letter == '"' || letter == '\\' ? "\\" : "",
                    (int)bytes, (const char *)at);
        at += bytes;
    }
    fputc('"', stream);
}

static void print_number(FILE *stream, double value)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, stream);
}

static void print_numbers(FILE *stream, const struct mpo_numbers *numbers,
                          const char *separator)
{
    for (int32_t i = 0; i < numbers->count; i++) {
        fputs(i > 0 ? separator : "", stream);
        print_number(stream, numbers->value[i]);
    }
}

/* One as it would be without lists, which is how older records have it. */
static void print_factors(FILE *stream, const struct mpo_numbers *numbers, bool as_flag)
{
    fputs(numbers->count == 1 ? "" : "[", stream);
    print_numbers(stream, numbers, as_flag ? "," : ", ");
    fputs(numbers->count == 1 ? "" : "]", stream);
}

static void print_paths(FILE *stream, const struct mpo_texts *paths, bool as_flag)
{
    if (paths->count == 0 && !as_flag)
        print_text(stream, "");
    fputs(paths->count > 1 ? "[" : "", stream);
    for (int32_t i = 0; i < paths->count; i++) {
        fputs(i == 0 ? "" : as_flag ? "," : ", ", stream);
        if (as_flag)
            fputs(paths->text[i], stream);
        else
            print_text(stream, paths->text[i]);
    }
    fputs(paths->count > 1 ? "]" : "", stream);
}

/* Part `index` of "a|b|c". */
static void print_choice(FILE *stream, const char *choices, int index)
{
    for (; index > 0; index--)
        choices = strchr(choices, '|') + 1;
    fprintf(stream, "%.*s", (int)strcspn(choices, "|"), choices);
}

void mpo_config_print_value(FILE *stream, const struct mpo_config_option *option,
                            const void *member, bool as_flag)
{
    int64_t integer = 0;
    switch (option->type) {
    case MPO_TYPE_INTEGER:
    case MPO_TYPE_AUTO_INTEGER:
        integer = *(const int64_t *)member;
        if (option->type == MPO_TYPE_AUTO_INTEGER && integer == MPO_AUTO_INTEGER)
            fputs(MPO_AUTO, stream);
        else
            fprintf(stream, "%" PRId64, integer);
        break;
    case MPO_TYPE_NUMBER:
    case MPO_TYPE_AUTO_NUMBER:
        if (isnan(*(const double *)member))
            fputs(MPO_AUTO, stream);
        else
            print_number(stream, *(const double *)member);
        break;
    case MPO_TYPE_FLAG:
        fputs(*(const bool *)member ? "true" : "false", stream);
        break;
    case MPO_TYPE_CHOICE:
        print_choice(stream, option->choices, *(const int *)member);
        break;
    case MPO_TYPE_VARIANT:
        fputs(*(char *const *)member, stream);
        break;
    case MPO_TYPE_TEXT:
    case MPO_TYPE_PATH:
    case MPO_TYPE_NAME_OR_PATH:
    case MPO_TYPE_DATE:
        if (as_flag)
            fputs(*(char *const *)member, stream);
        else
            print_text(stream, *(char *const *)member);
        break;
    case MPO_TYPE_PATHS:
        print_paths(stream, member, as_flag);
        break;
    case MPO_TYPE_FACTORS:
        print_factors(stream, member, as_flag);
        break;
    case MPO_TYPE_NUMBERS:
        fputs(as_flag ? "" : "[", stream);
        print_numbers(stream, member, as_flag ? "," : ", ");
        fputs(as_flag ? "" : "]", stream);
        break;
    }
}

/* The options of a section, or of one policy as an entry of the list. */
static void print_section(FILE *stream, const struct mpo_config *config, int section,
                          int32_t policy_index)
{
    const char *indent = section == MPO_SECTION_policies ? "  - " : "  ";
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        if ((int)option->section != section)
            continue;
        fprintf(stream, "%s%s: ", indent, option->name);
        mpo_config_print_value(stream, option,
                               mpo_config_member(config, option, policy_index), false);
        fputc('\n', stream);
        indent = section == MPO_SECTION_policies ? "    " : "  ";
    }
}

enum mpo_status mpo_config_print(const struct mpo_config *config, char **text)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(config, text);
    size_t bytes = 0;
    *text = NULL;
    FILE *stream = open_memstream(text, &bytes);
    MPO_CHECK(stream != NULL, MPO_ERR_MEMORY, "no memory to print the configuration");
    for (int section = 0; section < MPO_SECTION_COUNT; section++) {
        if (!mpo_config_is_in_files(section))
            continue;
        int32_t count = section == MPO_SECTION_policies ? config->policy_count : 1;
        fprintf(stream, "%s:\n", mpo_config_sections[section].name);
        for (int32_t i = 0; i < count; i++)
            print_section(stream, config, section, i);
    }
    bool whole = !ferror(stream);
    whole = fclose(stream) == 0 && whole;
    MPO_CHECK(whole, MPO_ERR_MEMORY, "no memory to print the configuration");
cleanup:
    if (status != MPO_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

/* Permitted values: "auto|cpu|cuda", "1 to 256, or auto"; nothing for a text. */
static void print_domain(FILE *stream, const struct mpo_config_option *option)
{
    bool may_be_auto =
        option->type == MPO_TYPE_AUTO_INTEGER || option->type == MPO_TYPE_AUTO_NUMBER;
    if (option->initial == NULL)
        fputs(" [required]", stream);
    else if (option->choices != NULL)
        fprintf(stream, " [%s]", option->choices);
    else if (option->low < option->high)
        fprintf(stream, " [%.15g to %.15g%s]", option->low, option->high,
                may_be_auto ? ", or " MPO_AUTO : "");
}

/* One option of the reference. An option without a default is a comment
 * with a placeholder. */
static void print_reference_option(FILE *stream, const struct mpo_config_option *option,
                                   const char *indent)
{
    fprintf(stream, "%s%s: ", indent, option->name);
    if (option->initial == NULL)
        for (const char *letter = option->name; *letter != '\0'; letter++)
            fputc(toupper((unsigned char)*letter), stream);
    else if (option->type == MPO_TYPE_NUMBERS)
        fprintf(stream, "[%s]", option->initial);
    else if (option->type == MPO_TYPE_TEXT || option->type == MPO_TYPE_PATH ||
             option->type == MPO_TYPE_PATHS || option->type == MPO_TYPE_NAME_OR_PATH ||
             option->type == MPO_TYPE_DATE)
        print_text(stream, option->initial);
    else
        fputs(option->initial, stream);
    fputc('\n', stream);
}

static void print_reference_section(FILE *stream, int section)
{
    bool list = section == MPO_SECTION_policies;
    bool first = true;
    fprintf(stream, "\n# %s\n%s%s:\n", mpo_config_sections[section].sentence,
            list ? "# " : "", mpo_config_sections[section].name);
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        const char *indent = option->initial == NULL ? "  # " : "  ";
        if ((int)option->section != section)
            continue;
        if (list)
            indent = first ? "#   - " : "#     ";
        fprintf(stream, "%s# %s", list ? "#     " : "  ", option->sentence);
        print_domain(stream, option);
        fputc('\n', stream);
        print_reference_option(stream, option, indent);
        first = false;
    }
}

enum mpo_status mpo_config_print_reference(FILE *stream)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(stream);
    fputs("# Every option of mpo with its default, printed by `mpo help --reference`.\n"
          "# These values hold for options that are left out; flags override them for one "
          "run:\n"
          "# --rollout.responses=8, --policies.NAME.temperature=0.7.\n"
          "# Paths are relative to the folder of the configuration file.\n",
          stream);
    for (int section = 0; section < MPO_SECTION_COUNT; section++)
        if (mpo_config_is_in_files(section))
            print_reference_section(stream, section);
    MPO_CHECK(fflush(stream) == 0 && !ferror(stream), MPO_ERR_IO,
              "the reference could not be written completely; is the disk full?");
cleanup:
    return status;
}
