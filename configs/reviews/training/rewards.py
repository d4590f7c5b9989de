# SPDX-License-Identifier: Apache-2.0
"""Rewards of a response: functions of its text and its number of tokens without the end token."""

import re
from functools import lru_cache

MIN_WORDS = 3  # below this a mean over words says nothing


@lru_cache(maxsize=1)
def _vader():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def sentiment(text, token_count):
    """VADER compound score, in [-1, 1] (Hutto & Gilbert, ICWSM 2014)."""
    del token_count
    return _vader().polarity_scores(text)["compound"]


def concise(text, token_count):
    """Minus the number of tokens."""
    del text
    return -float(token_count)


def plain(text, token_count):
    """Minus the mean number of letters in a word: short words are plain words."""
    del token_count
    words = re.findall(r"[A-Za-z]+", text)
    return -sum(map(len, words)) / len(words) if len(words) >= MIN_WORDS else -7.0


def _syllable_count(word):
    """Groups of vowels, less a silent final e."""
    word = word.lower()
    count = len(re.findall(r"[aeiouy]+", word))
    if word.endswith("e") and not word.endswith(("le", "ee")) and count > 1:
        count -= 1
    return max(count, 1)


def flesch(text, token_count):
    """Flesch reading ease, with groups of vowels as syllables. Reported, never trained."""
    del token_count
    words = re.findall(r"[A-Za-z']+", text)
    if len(words) < MIN_WORDS:
        return 0.0
    sentence_count = max(1, len(re.findall(r"[.!?]+", text)))
    syllables_per_word = sum(map(_syllable_count, words)) / len(words)
    return 206.835 - 1.015 * len(words) / sentence_count - 84.6 * syllables_per_word


OBJECTIVES = {"sentiment": sentiment, "concise": concise, "plain": plain}
REWARDS = {**OBJECTIVES, "flesch": flesch}


def rewards(text, token_count):
    """All rewards of one response, by name."""
    return {name: reward(text, token_count) for name, reward in REWARDS.items()}
