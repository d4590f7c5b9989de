/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists of choices: how a choice is written, and all of a list for a message. Variants
 * come from the registry's list in the same form.
 */
#include "choices.h"

#include <stddef.h>
#include <string.h>

#include "mpo/choices.h"

#define MPO_CHOICES_BEGIN(list)      const char mpo_##list##_list[] =
#define MPO_CHOICE(enumerator, text) "|" text
#define MPO_CHOICES_END(list)        ;
#include "mpo/options.def"

#define MPO_CHOICES_BEGIN(list)                                                            \
    const char *mpo_##list##_choices(void)                                                 \
    {                                                                                      \
        return mpo_##list##_list + 1;                                                      \
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

const char mpo_prompt_format_list[] = "|" MPO_AUTO
#define MPO_PROMPT_FORMAT(name) "|" #name
#include "registry.def"
    ;

const char mpo_policy_kind_list[] = "|" MPO_AUTO
#define MPO_POLICY_KIND(name, built, suffix) "|" #name
#include "registry.def"
    ;

const char mpo_transport_list[] = "|" MPO_AUTO
#define MPO_TRANSPORT(name, built) "|" #name
#include "registry.def"
    ;

const char mpo_device_list[] = "|" MPO_AUTO
#define MPO_DEVICE(name, built) "|" #name
#include "registry.def"
    ;

const char mpo_mirror_map_list[] =
#define MPO_MIRROR_MAP(name) "|" #name
#include "registry.def"
    ;
