/*
 * Settings of a printed configuration: sections at the margin, keys two columns in,
 * policies as a list whose first key is the name.
 */
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define PART_BYTES (SETTING_KEY_BYTES / 3)

/* One line; `section` and `policy` are those that it stands in. */
static enum mpo_status take_line(struct settings *settings, char *line, char *section,
                                 char *policy)
{
    enum mpo_status status = MPO_OK;
    const size_t indent = strspn(line, " -");
    char *key = line + indent;
    char *colon = strchr(key, ':');
    if (colon == NULL)
        goto cleanup;
    *colon = '\0';
    const char *value = colon + 1 + strspn(colon + 1, " ");
    if (indent == 0) {
        snprintf(section, PART_BYTES, "%s", key);
        policy[0] = '\0';
        goto cleanup;
    }
    if (strchr(line, '-') != NULL && strchr(line, '-') < key) {
        snprintf(policy, PART_BYTES, ".%.*s", (int)strcspn(value + (*value == '"'), "\""),
                 value + (*value == '"'));
        goto cleanup; /* its name is in every key */
    }
    MPO_TRY(mpo_memory_grow((void **)&settings->setting, &settings->capacity,
                            settings->count + 1, sizeof *settings->setting, "settings"));
    struct setting *setting = &settings->setting[settings->count++];
    snprintf(setting->key, sizeof setting->key, "%s%s.%.*s", section, policy,
             SETTING_KEY_BYTES / 4, key);
    setting->value = value;
cleanup:
    return status;
}

enum mpo_status settings_read(struct settings *settings)
{
    enum mpo_status status = MPO_OK;
    char section[PART_BYTES] = "";
    char policy[PART_BYTES] = "";
    char *rest = NULL;
    for (char *line = strtok_r(settings->text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        MPO_TRY(take_line(settings, line, section, policy));
cleanup:
    return status;
}

double settings_number(const struct settings *settings, const char *key)
{
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->setting[i].key, key) == 0)
            return strtod(settings->setting[i].value, NULL);
    return 0.0;
}

void settings_free(struct settings *settings)
{
    free(settings->setting);
    free(settings->text);
}

static struct setting *find_setting(const struct settings *settings, const char *key)
{
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->setting[i].key, key) == 0)
            return &settings->setting[i];
    return NULL;
}

void settings_compare(struct settings *first, struct settings *second,
                      void (*visit)(void *context, const char *key, const char *first,
                                    const char *second),
                      void *context)
{
    for (size_t i = 0; i < first->count; i++) {
        const struct setting *one = &first->setting[i];
        struct setting *other = find_setting(second, one->key);
        if (other != NULL)
            other->is_common = true;
        if (other == NULL || strcmp(one->value, other->value) != 0)
            visit(context, one->key, one->value, other != NULL ? other->value : "-");
    }
    for (size_t i = 0; i < second->count; i++)
        if (!second->setting[i].is_common)
            visit(context, second->setting[i].key, "-", second->setting[i].value);
}
