/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The choices of options as enums and how they are written, from mpo/options.def:
 *
 *     enum mpo_step_rule { MPO_STEP_RULE_ADAPTIVE, MPO_STEP_RULE_DECREASING, ... };
 *     mpo_step_rule_name(MPO_STEP_RULE_FIXED) is "fixed"
 *     mpo_step_rule_choices() is "adaptive|decreasing|fixed"
 */
#pragma once

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MPO_CHOICES_BEGIN(list)                                                            \
    enum mpo_##list                                                                        \
    {
#define MPO_CHOICE(enumerator, text) enumerator,
#define MPO_CHOICES_END(list)                                                              \
    }                                                                                      \
    ;
#include "mpo/options.def"

/* The text of a choice, NULL for a value that is none of the list; and all of them, as
 * messages show them: "adaptive|decreasing|fixed". Local. */
#define MPO_CHOICES_BEGIN(list)                                                            \
    const char *mpo_##list##_name(enum mpo_##list value);                                  \
    const char *mpo_##list##_choices(void);
#include "mpo/options.def"

/** The word that leaves a choice to the program, for options that take a number or a
 *  registered name, and for the names in the specs of stages. */
#define MPO_AUTO "auto"

/** Whether a text is that word. Local. */
bool mpo_is_auto(const char *text);

#ifdef __cplusplus
}
#endif
