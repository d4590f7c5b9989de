/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of JSON, and a line of them on standard output.
 */
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

json_t *output_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *output_text(const char *text)
{
    json_t *value = json_string(text);
    return value != NULL ? value : json_null();
}

enum mpo_status output_json(json_t *value)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(value != NULL, MPO_ERR_MEMORY, "no memory for a line of output");
    MPO_CHECK(json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0 &&
                  putchar('\n') != EOF,
              MPO_ERR_IO, "standard output: %s", strerror(errno));
cleanup:
    json_decref(value);
    return status;
}
