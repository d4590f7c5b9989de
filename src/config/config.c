/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration as a whole: defaults, file, flags, in this order, and then the checks
 * across options (check.c).
 *
 * Everything is driven by two tables made from mpo/options.def, so a new option needs one
 * line there and none here. Paths are resolved when they are assigned; the folder of the
 * file is known before defaults are set, so a written-out default means the same as an
 * omitted one.
 */
#include "config_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"
#include "mpo/limits.h"

const struct mpo_config_section mpo_config_sections[MPO_SECTION_COUNT] = {
#define MPO_SECTION_BEGIN(section, scope, sentence)                                        \
    {#section, MPO_SCOPE_##scope, sentence, offsetof(struct mpo_config, section)},
#include "mpo/options.def"
};

#define CHOICES_OF_INTEGER(list)      NULL
#define CHOICES_OF_NUMBER(list)       NULL
#define CHOICES_OF_AUTO_INTEGER(list) NULL
#define CHOICES_OF_AUTO_NUMBER(list)  NULL
#define CHOICES_OF_FLAG(list)         NULL
#define CHOICES_OF_TEXT(list)         NULL
#define CHOICES_OF_PATH(list)         NULL
#define CHOICES_OF_NAME_OR_PATH(list) NULL
#define CHOICES_OF_DATE(list)         NULL
#define CHOICES_OF_CHOICE(list)       (mpo_##list##_list + 1)
#define CHOICES_OF_VARIANT(list)      (mpo_##list##_list + 1)
#define CHOICES_OF_NUMBERS(list)      NULL
#define CHOICES_OF_PATHS(list)        NULL
#define CHOICES_OF_FACTORS(list)      NULL

const struct mpo_config_option mpo_config_options[MPO_OPTION_COUNT] = {
#define MPO_OPTION_AS(section, member, name, type, initial, low, high, list, sentence)     \
    {MPO_SECTION_##section,                                                                \
     name,                                                                                 \
     #section "." name,                                                                    \
     MPO_TYPE_##type,                                                                      \
     offsetof(struct mpo_config_##section, member),                                        \
     initial,                                                                              \
     low,                                                                                  \
     high,                                                                                 \
     CHOICES_OF_##type(list),                                                              \
     sentence},
#include "mpo/options.def"
};

void *mpo_config_member(const struct mpo_config *config,
                        const struct mpo_config_option *option, int32_t policy_index)
{
    char *base = (char *)config + mpo_config_sections[option->section].offset;
    if (option->section == MPO_SECTION_policies)
        base = (char *)(config->policies + policy_index);
    return base + option->offset;
}

/* The defaults of one policy, or of all the other sections. */
static enum mpo_status assign_defaults(struct mpo_config_build *build, bool policies,
                                       int32_t policy_index)
{
    enum mpo_status status = MPO_OK;
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        const char *initial = build->config->stored != NULL
                                  ? mpo_config_initial_before(option)
                                  : mpo_config_initial(option, build->command);
        if ((option->section == MPO_SECTION_policies) != policies || initial == NULL)
            continue;
        MPO_TRY(mpo_config_assign(build, &(struct mpo_config_assignment){
                                             .option = option,
                                             .policy_index = policy_index,
                                             .text = initial,
                                         }));
    }
cleanup:
    return status;
}

enum mpo_status mpo_config_take_policies(struct mpo_config_build *build, int32_t count)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(count, &build->config->policies);
    MPO_NEW(count, &build->policy_place);
    if (build->config->stored != NULL)
        MPO_NEW(count * MPO_OPTION_COUNT, &build->config->stored->policy_is_given);
    build->config->policy_count = count;
    for (int32_t i = 0; i < count; i++)
        MPO_TRY(assign_defaults(build, true, i));
cleanup:
    return status;
}

/* "configs/" of "configs/x.yaml", "" of "x.yaml". */
static enum mpo_status copy_folder(const char *path, char **folder)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_memory_copy_text(path, folder));
    char *slash = strrchr(*folder, '/');
    *(slash != NULL ? slash + 1 : *folder) = '\0';
cleanup:
    return status;
}

static enum mpo_status begin_build(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(1, &build->config);
    MPO_NEW(MPO_OPTION_COUNT, &build->config->written);
    MPO_NEW(MPO_OPTION_COUNT, &build->config->flagged);
cleanup:
    return status;
}

/* The one argument: the configuration file. */
static enum mpo_status choose_path(struct mpo_config_build *build,
                                   const struct mpo_config_arguments *arguments)
{
    enum mpo_status status = MPO_OK;
    char found[2 * MPO_QUOTE_BYTES + 8] = "none";
    char quoted[2][MPO_QUOTE_BYTES];
    if (arguments->count > 1)
        snprintf(found, sizeof found, "%s and %s", mpo_quote(arguments->text[0], quoted[0]),
                 mpo_quote(arguments->text[1], quoted[1]));
    MPO_CHECK(arguments->count == 1, MPO_ERR_USAGE,
              "expected one configuration file, found %s; usage: mpo %s CONFIG "
              "[--section.key=value ...]",
              found, build->command);
    build->path = arguments->text[0];
cleanup:
    return status;
}

/* Hand the configuration over, or drop it after a failure. */
static void finish_build(struct mpo_config_build *build, enum mpo_status status,
                         struct mpo_config **out)
{
    if (status != MPO_OK)
        mpo_config_close(&build->config);
    *out = build->config;
    free(build->policy_place);
    free(build->folder);
}

/* A folder with its slash: "configs/" of "configs". */
static enum mpo_status name_folder(const char *name, char **folder)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = name != NULL ? strlen(name) : 0;
    MPO_NEW(bytes + 2, folder);
    if (bytes > 0)
        snprintf(*folder, bytes + 2, "%s%s", name, name[bytes - 1] == '/' ? "" : "/");
cleanup:
    return status;
}

enum mpo_status mpo_config_open(const char *command, int argc, char *const *argv,
                                struct mpo_config **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, command);
    struct mpo_config_flags *flags = NULL;
    struct mpo_config_build build = {.command = command};
    struct mpo_config_arguments arguments = {0};
    MPO_TRY(mpo_config_check_command(command));
    MPO_TRY(begin_build(&build));
    MPO_TRY(mpo_config_flags_open(command, argc, argv, &arguments, &flags));
    MPO_TRY(choose_path(&build, &arguments));
    MPO_TRY(copy_folder(build.path, &build.folder));
    MPO_TRY(assign_defaults(&build, false, 0));
    MPO_TRY(mpo_config_read_file(&build));
    MPO_TRY(mpo_config_flags_apply(flags, &build));
    MPO_TRY(mpo_config_check(&build));
    MPO_TRY(mpo_config_refuse_idle(&build));
cleanup:
    finish_build(&build, status, out);
    mpo_config_flags_close(&flags);
    return status;
}

enum mpo_status mpo_config_open_text(const char *command,
                                     const struct mpo_config_text *source, int argc,
                                     char *const *argv, struct mpo_config **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, command, source);
    MPO_ARGUMENTS(source->text);
    struct mpo_config_flags *flags = NULL;
    struct mpo_config_build build = {.command = command, .path = "configuration text"};
    struct mpo_config_arguments arguments = {0};
    size_t bytes = strnlen(source->text, MPO_CONFIG_BYTES_MAX + 1);
    char quoted[MPO_QUOTE_BYTES];
    MPO_TRY(mpo_config_check_command(command));
    MPO_TRY(begin_build(&build));
    MPO_TRY(mpo_config_flags_open(command, argc, argv, &arguments, &flags));
    MPO_CHECK(arguments.count == 0, MPO_ERR_USAGE,
              "expected only flags with a configuration text, found '%s'",
              mpo_quote(arguments.text[0], quoted));
    MPO_CHECK(bytes <= MPO_CONFIG_BYTES_MAX, MPO_ERR_CONFIG,
              "%s: expected at most %zu bytes, found more", build.path,
              MPO_CONFIG_BYTES_MAX);
    MPO_TRY(name_folder(source->folder, &build.folder));
    MPO_TRY(assign_defaults(&build, false, 0));
    MPO_TRY(mpo_config_read_yaml(&build, source->text, bytes));
    MPO_TRY(mpo_config_flags_apply(flags, &build));
    MPO_TRY(mpo_config_check(&build));
    MPO_TRY(mpo_config_refuse_idle(&build));
cleanup:
    finish_build(&build, status, out);
    mpo_config_flags_close(&flags);
    return status;
}

enum mpo_status mpo_config_open_flags(const char *command, int argc, char *const *argv,
                                      struct mpo_config_arguments *arguments,
                                      struct mpo_config **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, command, arguments);
    struct mpo_config_flags *flags = NULL;
    struct mpo_config_build build = {.command = command, .path = ""};
    MPO_TRY(begin_build(&build));
    MPO_TRY(mpo_config_flags_open(command, argc, argv, arguments, &flags));
    MPO_TRY(copy_folder(build.path, &build.folder));
    MPO_TRY(assign_defaults(&build, false, 0));
    MPO_TRY(mpo_config_flags_apply(flags, &build));
    MPO_TRY(mpo_config_refuse_idle(&build));
cleanup:
    finish_build(&build, status, out);
    mpo_config_flags_close(&flags);
    return status;
}

enum mpo_status mpo_config_read_text(const char *name, const char *text,
                                     struct mpo_config **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, name, text);
    struct mpo_config_build build = {.command = "", .path = name};
    MPO_TRY(begin_build(&build));
    MPO_NEW(1, &build.config->stored);
    MPO_TRY(mpo_memory_copy_text("", &build.folder));
    MPO_TRY(assign_defaults(&build, false, 0));
    status = mpo_config_read_yaml(&build, text, strlen(text));
    if (status == MPO_ERR_CONFIG)
        MPO_FAIL(MPO_ERR_DATA, "%s: the configuration stored in it cannot be read: %s",
                 name, mpo_error_text());
    MPO_TRY(status);
cleanup:
    finish_build(&build, status, out);
    return status;
}

bool mpo_config_is_quiet(const struct mpo_config *config, const char *command)
{
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        if (mpo_config_is_own(option, command) && strcmp(option->name, "quiet") == 0)
            return *(const bool *)mpo_config_member(config, option, 0);
    }
    return false;
}

static void free_member(const struct mpo_config_option *option, void *member)
{
    switch (option->type) {
    case MPO_TYPE_TEXT:
    case MPO_TYPE_PATH:
    case MPO_TYPE_NAME_OR_PATH:
    case MPO_TYPE_DATE:
    case MPO_TYPE_VARIANT:
        free(*(char **)member);
        break;
    case MPO_TYPE_NUMBERS:
    case MPO_TYPE_FACTORS:
        free(((struct mpo_numbers *)member)->value);
        break;
    case MPO_TYPE_PATHS:
        mpo_config_free_texts(member);
        break;
    default:
        break;
    }
}

void mpo_config_close(struct mpo_config **config)
{
    if (config == NULL || *config == NULL)
        return;
    for (int i = 0; i < MPO_OPTION_COUNT; i++) {
        const struct mpo_config_option *option = &mpo_config_options[i];
        bool listed = option->section == MPO_SECTION_policies;
        for (int32_t k = 0; k < (listed ? (*config)->policy_count : 1); k++)
            free_member(option, mpo_config_member(*config, option, k));
    }
    mpo_config_close_stored(*config);
    free((*config)->flagged);
    free((*config)->written);
    free((*config)->policies);
    free(*config);
    *config = NULL;
}
