/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Figures drawn by gnuplot: a script of plots/, which the program carries, its settings, and
 * its data as a tab-separated table. Nothing but the figure is written.
 *
 *     plot_open      which figure, and where to
 *     plot_put_...   what the script wants set, see its head
 *     plot->input    after plot_begin_table: the table, below a line of names
 *     plot_draw
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mpo/status.h"

enum plot_script { PLOT_TRAJECTORY, PLOT_FRONTIER };

struct plot {
    enum plot_script script;
    bool is_png;
    const char *output; /* borrowed */
    char *part;         /* the output until it is whole: OUTPUT.part */
    FILE *input;        /* what gnuplot will read */
    char *text;
    size_t bytes;
};

/** Local. @return MPO_ERR_USAGE when the name of the
 *  output ends neither with .svg nor with .png */
enum mpo_status plot_open(enum plot_script script, const char *output, struct plot *plot);
void plot_close(struct plot *plot);

/** Set a variable of the script to a text / to an array of count texts. */
void plot_put_text(struct plot *plot, const char *variable, const char *text);
void plot_put_list(struct plot *plot, const char *variable, const char *const *text,
                   int32_t count);

void plot_begin_table(struct plot *plot);

/** End the table and draw; an earlier figure stays until the new one is whole. Local.
 *  @return MPO_ERR_DEVICE when gnuplot is not installed; MPO_ERR_PERMISSION or
 *          MPO_ERR_OUTPUT when the output cannot be made; MPO_ERR_IO when gnuplot did not
 *          draw all of it; MPO_ERR_MEMORY */
enum mpo_status plot_draw(struct plot *plot);
