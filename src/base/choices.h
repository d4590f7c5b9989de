/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Each list of choices as "|a|b|c", the form in which X macros can join texts, for the parser
 * of options. What mpo/choices.h shows begins after the first bar.
 */
#pragma once

#define MPO_CHOICES_BEGIN(list) extern const char mpo_##list##_list[];
#include "mpo/options.def"
extern const char mpo_prompt_format_list[];
extern const char mpo_policy_kind_list[];
extern const char mpo_transport_list[];
extern const char mpo_device_list[];
extern const char mpo_mirror_map_list[];
