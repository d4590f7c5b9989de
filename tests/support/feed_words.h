/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The table kind for feed_case.h: what follows a token is its row, to the bit.
 */
#pragma once

#include "feed_case.h"

#define FEED_WORDS_VOCAB 6

extern const struct feed_kind feed_words;

void feed_words_open(struct feed_case *test);
