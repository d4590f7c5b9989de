/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values that are one or a list of them: paths and factors. One is written as if there were no
 * lists; a file has a list as YAML has it, a flag as [a, b].
 */
#include "config_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void mpo_config_free_texts(struct mpo_texts *texts)
{
    for (int32_t i = 0; i < texts->count; i++)
        free(texts->text[i]);
    free(texts->text);
    *texts = (struct mpo_texts){0};
}

static char *trim_spaces(char *text)
{
    size_t bytes = strlen(text);
    while (bytes > 0 && text[bytes - 1] == ' ')
        text[--bytes] = '\0';
    return text + strspn(text, " ");
}

/* What a flag has for a list: [a, b] becomes its parts, in place; any other text is one part,
 * and an empty one none.
 * @param part  [MPO_CONFIG_PARTS_MAX]
 * @return how many, -1 when there are more */
static int32_t split_list(char *text, const char **part)
{
    size_t bytes = strlen(text);
    int32_t count = 0;
    bool is_list = bytes >= 2 && text[0] == '[' && text[bytes - 1] == ']';
    if (!is_list) {
        part[0] = text;
        return bytes > 0;
    }
    text[bytes - 1] = '\0';
    for (char *at = text + 1; at != NULL;) {
        char *comma = strchr(at, ',');
        if (count == MPO_CONFIG_PARTS_MAX)
            return -1;
        if (comma != NULL)
            *comma = '\0';
        part[count++] = trim_spaces(at);
        at = comma != NULL ? comma + 1 : NULL;
    }
    return count;
}

enum mpo_status mpo_config_assign_paths(struct mpo_config_build *build,
                                        const struct mpo_config_assignment *assignment,
                                        const char *const *text, int32_t count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_texts *member =
        mpo_config_member(build->config, assignment->option, assignment->policy_index);
    struct mpo_config_assignment one = *assignment;
    mpo_config_note_place(build, assignment);
    mpo_config_free_texts(member);
    MPO_NEW(count, &member->text);
    for (int32_t i = 0; i < count; i++) {
        one.text = text[i];
        if (*text[i] == '\0')
            MPO_TRY(mpo_config_refuse(build, assignment, "a path, or a list of paths"));
        MPO_TRY(mpo_config_assign_path(build, &one, &member->text[member->count]));
        member->count++;
    }
cleanup:
    return status;
}

/* Only a flag has lists as a text: a file has lists of its own. */
enum mpo_status mpo_config_assign_path_list(struct mpo_config_build *build,
                                            const struct mpo_config_assignment *assignment)
{
    enum mpo_status status = MPO_OK;
    const char *part[MPO_CONFIG_PARTS_MAX] = {assignment->text};
    char *copy = NULL;
    int32_t count = *assignment->text != '\0';
    if (assignment->place.flag != NULL) {
        MPO_TRY(mpo_memory_copy_text(assignment->text, &copy));
        count = split_list(copy, part);
    }
    if (count < 0)
        MPO_TRY(mpo_config_refuse(build, assignment, "at most 64 paths"));
    MPO_TRY(mpo_config_assign_paths(build, assignment, part, count));
cleanup:
    free(copy);
    return status;
}

enum mpo_status mpo_config_assign_factors(struct mpo_config_build *build,
                                          const struct mpo_config_assignment *assignment)
{
    enum mpo_status status = MPO_OK;
    const char *part[MPO_CONFIG_PARTS_MAX];
    double value[MPO_CONFIG_PARTS_MAX];
    char expected[96];
    char *copy = NULL;
    MPO_TRY(mpo_memory_copy_text(assignment->text, &copy));
    int32_t count = split_list(copy, part);
    snprintf(expected, sizeof expected,
             "a number from %.15g to %.15g, or a list like [1, 0.5]",
             assignment->option->low, assignment->option->high);
    if (count <= 0)
        MPO_TRY(mpo_config_refuse(build, assignment, expected));
    for (int32_t i = 0; i < count; i++)
        if (!mpo_config_read_number(part[i], &value[i]) ||
            value[i] < assignment->option->low || value[i] > assignment->option->high)
            MPO_TRY(mpo_config_refuse(build, assignment, expected));
    MPO_TRY(mpo_config_assign_numbers(build, assignment, value, count));
cleanup:
    free(copy);
    return status;
}
