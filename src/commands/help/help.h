/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What help can print beside a command's help; all from the tables of commands and options.
 */
#pragma once

#include <stdio.h>

#include "mpo/config.h"

#define HELP_TEXT_BYTES 512

/** The sentence of an option and, in brackets, its default. */
void help_describe(const struct mpo_config_flag *flag, char text[HELP_TEXT_BYTES]);

/** The manual page mpo(1), for man(1). */
void help_print_man(FILE *stream);

/** The completion script of bash. */
void help_print_completion(FILE *stream);
