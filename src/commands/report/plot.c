/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way to gnuplot: settings, data and script through a pipe.
 *
 * gnuplot ends with 0 even where it could write nothing. So it draws beside the output, and
 * only a figure that has its end takes the place of an older one.
 */
#include "plot.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "commands/report/log.h"
#include "base/reason.h"
#include "base/text.h"
#include "plots.h"

#define PART      ".part"
#define NOT_FOUND 127 /* exit code of a shell for a missing program */

enum mpo_status plot_open(enum plot_script script, const char *output, struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    bool is_png = mpo_text_ends_with(output, ".png");
    *plot = (struct plot){.script = script, .output = output, .is_png = is_png};
    MPO_CHECK(is_png || mpo_text_ends_with(output, ".svg"), MPO_ERR_USAGE,
              "--plot=%s: expected a name that ends with .svg or .png", output);
    plot->input = open_memstream(&plot->text, &plot->bytes);
    MPO_CHECK(plot->input != NULL, MPO_ERR_MEMORY, "no memory for a plot");
    MPO_NEW(strlen(output) + sizeof PART, &plot->part);
    stpcpy(stpcpy(plot->part, output), PART);
    plot_put_text(plot, "output", plot->part);
    fprintf(plot->input, "is_png = %d\n", is_png);
cleanup:
    return status;
}

void plot_close(struct plot *plot)
{
    if (plot->input != NULL)
        fclose(plot->input);
    free(plot->part);
    free(plot->text);
    *plot = (struct plot){0};
}

/* gnuplot's single quotes: only the quote itself is special, and doubled. A line end would
 * end the command, so control characters become spaces. */
static void put_quoted(FILE *input, const char *text)
{
    fputc('\'', input);
    for (const char *byte = text; *byte != '\0'; byte++) {
        if (*byte == '\'')
            fputc('\'', input);
        fputc((unsigned char)*byte < 0x20 ? ' ' : *byte, input);
    }
    fputc('\'', input);
}

void plot_put_text(struct plot *plot, const char *variable, const char *text)
{
    fprintf(plot->input, "%s = ", variable);
    put_quoted(plot->input, text);
    fputc('\n', plot->input);
}

void plot_put_list(struct plot *plot, const char *variable, const char *const *text,
                   int32_t count)
{
    fprintf(plot->input, "array %s[%d]\n", variable, count);
    for (int32_t i = 0; i < count; i++) {
        fprintf(plot->input, "%s[%d] = ", variable, i + 1);
        put_quoted(plot->input, text[i]);
        fputc('\n', plot->input);
    }
}

void plot_begin_table(struct plot *plot)
{
    fputs("$data << END_OF_DATA\n", plot->input);
}

/* ---- drawing ---- */

/* Refuse before gnuplot starts what it cannot draw. */
static enum mpo_status check_output(const struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    bool is_free = access(plot->output, W_OK) == 0 || errno == ENOENT;
    FILE *stream = is_free ? fopen(plot->part, "wb") : NULL;
    MPO_CHECK(stream != NULL, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "%s: cannot be created: %s%s", plot->output, strerror(errno),
              mpo_reason_advice(errno));
    fclose(stream);
cleanup:
    return status;
}

/* Whether a figure has its end, lines without text aside. */
static bool is_complete(const struct plot *plot)
{
    static const char svg[] = "</svg>";
    static const char png[] = "IEND\xae\x42\x60\x82";
    const char *expected = plot->is_png ? png : svg;
    size_t bytes = strlen(expected);
    char found[32] = "";
    FILE *stream = fopen(plot->part, "rb");
    if (stream == NULL)
        return false;
    fseek(stream, -(long)sizeof found, SEEK_END);
    size_t count = fread(found, 1, sizeof found, stream);
    fclose(stream);
    while (count > 0 && found[count - 1] == '\n')
        count--;
    return count >= bytes && memcmp(found + count - bytes, expected, bytes) == 0;
}

static enum mpo_status run_gnuplot(const struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    /* If gnuplot ends early, report its exit code instead of dying from SIGPIPE. */
    void (*handler)(int) = signal(SIGPIPE, SIG_IGN);
    FILE *pipe =
        popen("command -v gnuplot >/dev/null || exit 127; exec gnuplot >/dev/null", "w");
    MPO_CHECK(pipe != NULL, MPO_ERR_IO, "cannot start gnuplot: %s", strerror(errno));
    fwrite(plot->text, 1, plot->bytes, pipe);
    fputs(plot->script == PLOT_FRONTIER ? plot_frontier : plot_trajectory, pipe);
    const int ended = pclose(pipe);
    MPO_CHECK(!(WIFEXITED(ended) && WEXITSTATUS(ended) == NOT_FOUND), MPO_ERR_DEVICE,
              "plots are drawn by gnuplot, which is not installed; on Debian and Ubuntu: "
              "apt-get install gnuplot-nox");
    MPO_CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0, MPO_ERR_IO,
              "%s: gnuplot did not draw it (status %d); its message is above", plot->output,
              ended);
cleanup:
    signal(SIGPIPE, handler);
    return status;
}

/* The figure takes its place, the older one's where there is one. */
static enum mpo_status finish_figure(const struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(is_complete(plot), MPO_ERR_IO,
              "%s: gnuplot could not write the whole figure; is the disk full?",
              plot->output);
    MPO_CHECK(rename(plot->part, plot->output) == 0,
              mpo_reason_status(errno, MPO_ERR_OUTPUT), "%s: cannot be created: %s",
              plot->output, strerror(errno));
cleanup:
    return status;
}

enum mpo_status plot_draw(struct plot *plot)
{
    enum mpo_status status = MPO_OK;
    bool has_begun = false;
    fputs("END_OF_DATA\n", plot->input);
    MPO_CHECK(fflush(plot->input) == 0 && !ferror(plot->input), MPO_ERR_MEMORY,
              "no memory for a plot");
    MPO_TRY(check_output(plot));
    has_begun = true;
    MPO_TRY(run_gnuplot(plot));
    MPO_TRY(finish_figure(plot));
    mpo_log_note("drew %s", plot->output);
cleanup:
    if (status != MPO_OK && has_begun)
        remove(plot->part);
    return status;
}
