/**
 * The configuration that a record holds, as the settings of the command line, to compare
 * two of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "mpo/status.h"

#define SETTING_KEY_BYTES 192

struct setting {
    char key[SETTING_KEY_BYTES]; /* section.key or policies.NAME.key */
    const char *value;           /* in the text */
    bool is_common;
};

struct settings {
    char *text; /* as mpo_config_print writes it, owned; its line ends become NULs */
    struct setting *setting; /* [count] */
    size_t count;
    size_t capacity;
};

/** Take settings->text apart. Local. */
enum mpo_status settings_read(struct settings *settings);
void settings_free(struct settings *settings);

/** The value of a setting as a number, 0 when there is none. Local. */
double settings_number(const struct settings *settings, const char *key);

/** Visit every setting whose value differs or that only one has; "-" stands for none. */
void settings_compare(struct settings *first, struct settings *second,
                      void (*visit)(void *context, const char *key, const char *first,
                                    const char *second),
                      void *context);
