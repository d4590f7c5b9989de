/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Texts made of tokens, which may end inside a character.
 */
#pragma once

#include <stdint.h>

/** Bytes that one byte becomes at most. */
#define MPO_UTF8_REPAIR_FACTOR 3

/**
 * Replace each byte that is no part of a character of UTF-8 by U+FFFD. Local.
 *
 * @param text  with room for MPO_UTF8_REPAIR_FACTOR * bytes + 1; NUL-terminated after it
 * @return bytes of the result
 */
int32_t mpo_utf8_repair(char *text, int32_t bytes);
