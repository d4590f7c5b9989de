/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists of choices: how a choice is written, and all of a list for a message.
 *
 * A list is kept as "|a|b|c", the form in which X macros can join texts; what is shown
 * begins after the first bar. Variants come from the registry's list in the same form.
 */
#include "config_impl.h"

#include <string.h>

#define MPO_CHOICES_BEGIN(list)      const char mpo_config_##list##_choices[] =
#define MPO_CHOICE(enumerator, text) "|" text
#define MPO_CHOICES_END(list)        ;
#include "mpo/options.def"

#define MPO_CHOICES_BEGIN(list)                                                            \
    const char *mpo_##list##_choices(void)                                                 \
    {                                                                                      \
        return mpo_config_##list##_choices + 1;                                            \
    }                                                                                      \
    const char *mpo_##list##_name(enum mpo_##list value)                                   \
    {                                                                                      \
        static const char *const names[] = {
#define MPO_CHOICE(enumerator, text) text,
#define MPO_CHOICES_END(list)                                                              \
    }                                                                                      \
    ;                                                                                      \
    return (size_t)value < sizeof names / sizeof *names ? names[value] : NULL;             \
    }
#include "mpo/options.def"

bool mpo_is_auto(const char *text)
{
    return strcmp(text, MPO_AUTO) == 0;
}

const char mpo_config_prompt_format_choices[] = "|" MPO_AUTO
#define MPO_PROMPT_FORMAT(name) "|" #name
#include "registry.def"
    ;

const char mpo_config_policy_kind_choices[] = "|" MPO_AUTO
#define MPO_POLICY_KIND(name, built, suffix) "|" #name
#include "registry.def"
    ;

const char mpo_config_transport_choices[] = "|" MPO_AUTO
#define MPO_TRANSPORT(name, built) "|" #name
#include "registry.def"
    ;

const char mpo_config_device_choices[] = "|" MPO_AUTO
#define MPO_DEVICE(name, built) "|" #name
#include "registry.def"
    ;

const char mpo_config_mirror_map_choices[] =
#define MPO_MIRROR_MAP(name) "|" #name
#include "registry.def"
    ;
