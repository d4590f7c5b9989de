/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What follows from the options of serve before anything is opened.
 */
#include "size.h"

#include <string.h>

#include "models.h"
#include "serve_impl.h"

#define ROWS_ON_CPU        16
#define ROWS_ON_DEVICES    64
#define TOKENS_A_ROW       2048
#define PREFILL_ON_CPU     16
#define PREFILL_ON_DEVICES 256
#define BATCH_TOKENS       512

/* Tokens of a step on the CPU, where more make it longer and no cheaper: a prompt's last one
 * may come on top, and from 64 on a row pays for the cells of all others. */
#define STEP_ON_CPU 62

/* Rows that are kept when they have ended. */
#define PREFIXES_A_ROW 2

/* Prompts that are encoded before there are rows for them. */
#define SLOTS_AHEAD 8

/* Tokens that one row can have penalties on, at most. */
#define PENALISED_MAX 16384

static int32_t number_or(int64_t option, int32_t automatic)
{
    return option != MPO_AUTO_INTEGER ? (int32_t)option : automatic;
}

static bool runs_on_devices(const struct mpo_config *config)
{
    return strcmp(config->run.device, "cuda") == 0;
}

/* No more than positions of a step beside rows, for each of which there is room anyway. */
static int32_t choose_parked_rows(const struct mpo_config_serve *options, int32_t rows)
{
    int32_t most = (int32_t)options->score_positions;
    int32_t wanted = number_or(options->prefixes, PREFIXES_A_ROW * rows);
    if (most > MPO_ROW_COUNT_MAX - 1 - rows)
        most = MPO_ROW_COUNT_MAX - 1 - rows;
    return wanted < most ? wanted : most;
}

struct mpo_session_size mpo_serve_size(const struct mpo_config *config)
{
    const struct mpo_config_serve *options = &config->serve;
    bool devices = runs_on_devices(config);
    int32_t rows = number_or(options->rows, devices ? ROWS_ON_DEVICES : ROWS_ON_CPU);
    int32_t context = number_or(options->context, rows * TOKENS_A_ROW);
    bool adapts = options->prefill == MPO_AUTO_INTEGER;
    /* isolated: the calls of generate, in passes as long as its; alone: no other's cells */
    bool mixes = !devices && rows > 1 && !options->isolated;
    int32_t step = mixes ? STEP_ON_CPU : BATCH_TOKENS;
    return (struct mpo_session_size){
        .machine =
            {
                .row_capacity = rows,
                .parked_rows = choose_parked_rows(options, rows),
                .prompt_slots = rows + SLOTS_AHEAD,
                .given_positions = (int32_t)options->score_positions,
                .prefill_tokens = number_or(options->prefill,
                                            devices ? PREFILL_ON_DEVICES : PREFILL_ON_CPU),
                .prefill_step = adapts ? (devices ? BATCH_TOKENS : STEP_ON_CPU) : 0,
                .prefill_stretch = adapts ? options->prefill_stretch : 0.0,
                .prefill_idle = step,
                .mixes_prompts = mixes,
                .blends = mpo_serve_models_blends(config),
                .top_max = MPO_SERVE_TOP_MAX,
                .bias_max = MPO_SERVE_BIAS_COUNT_MAX +
                            (context < PENALISED_MAX ? context : PENALISED_MAX),
                .context_tokens = context,
                .shrinks = options->context == MPO_AUTO_INTEGER,
            },
        .advice = "lower serve.rows or serve.context",
    };
}
