/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dates: a day of the calendar in UTC, or the day it is.
 */
#include "config_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define DAY_SECONDS 86400

bool mpo_config_read_date(const char *text, int64_t *seconds)
{
    struct tm day = {0};
    struct tm same = {0};
    char again[16] = "";
    time_t now = time(NULL);
    if (strcmp(text, "today") == 0) {
        *seconds = now - now % DAY_SECONDS;
        return true;
    }
    if (sscanf(text, "%4d-%2d-%2d", &day.tm_year, &day.tm_mon, &day.tm_mday) != 3)
        return false;
    day.tm_year -= 1900;
    day.tm_mon -= 1;
    time_t begin = timegm(&day);
    *seconds = begin;
    /* 30 February is another day */
    return gmtime_r(&begin, &same) != NULL &&
           strftime(again, sizeof again, "%Y-%m-%d", &same) > 0 && strcmp(again, text) == 0;
}
