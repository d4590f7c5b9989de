/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What is true of a prompt before any policy sees it, wherever it comes from.
 */
#pragma once

#include <stddef.h>

#include "mpo/prompts.h"

#define MPO_PROMPT_ROLE_SYSTEM    "system"
#define MPO_PROMPT_ROLE_USER      "user"
#define MPO_PROMPT_ROLE_ASSISTANT "assistant"

/** The role of that name, a literal; NULL: there is none. Local. */
const char *mpo_prompt_role(const char *name);

/** The offset of the first byte that is NUL or not UTF-8; `bytes` if there is none. Local. */
size_t mpo_prompt_first_bad_byte(const char *text, size_t bytes);

/** Check messages and prefill of a prompt that a program made. Local.
 *  @return MPO_ERR_USAGE when a pointer is missing; MPO_ERR_DATA for a number of messages, a
 *          role or a text that no prompt has */
enum mpo_status mpo_prompt_check(const struct mpo_prompt *prompt);
