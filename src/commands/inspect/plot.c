/*
 * inspect --plot: the trajectory drawn by gnuplot.
 *
 * The script and its data go through a pipe, so no file but the plot is made. Five panels
 * share the steps: the weights (thin: where each gradient was taken; thick: their average,
 * the output), F with its standard error, the averaged gap, the effective sample size, and
 * the time of each stage, on a logarithmic scale because they differ by orders of
 * magnitude. Lines are named at their ends and differ by dashes as well as by colour (Okabe
 * and Ito's palette, made for colour-blind readers).
 */
#include "inspect_impl.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/memory.h"
#include "base/timing.h"

#define NOT_FOUND    127   /* what a shell says of a missing program */
#define LABEL_GAP    0.075 /* of the largest panel */
#define STAGE_GAP    0.17  /* of the panel of the stages */
#define STYLE_COUNT  8
#define LEFT_MARGIN  0.11
#define LETTER_WIDTH 0.0098 /* of the page */
#define LETTERS_MIN  20     /* of the longest label beside the lower panels */
#define LETTERS_MAX  46

static const char *const colors[STYLE_COUNT] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                "#56B4E9", "#E69F00", "#000000", "#8C6D31"};
static const char *const dashes[STYLE_COUNT] = {"solid",     "(9,4)",     "(2,3)",
                                                "(9,3,2,3)", "(14,5)",    "(9,3,2,3,2,3)",
                                                "(5,3)",     "(14,3,5,3)"};

/* The part of the page that a panel takes, from the bottom. */
struct panel {
    double top;
    double bottom;
    const char *label;
    bool is_last;
};

struct range {
    double low;
    double high;
};

/* ---- ranges and labels ---- */

static void widen(struct range *range, double value)
{
    if (!isfinite(value))
        return;
    range->low = fmin(range->low, value);
    range->high = fmax(range->high, value);
}

/* Room around what was seen; gnuplot refuses an empty range. */
static struct range with_room(struct range range)
{
    if (range.low > range.high)
        return (struct range){0.0, 1.0};
    const double room =
        fmax(0.06 * (range.high - range.low), 0.03 * fabs(range.high) + 1e-6);
    return (struct range){range.low - room, range.high + room};
}

static struct range range_of(const struct inspect *inspect, enum inspect_field field)
{
    struct range range = {INFINITY, -INFINITY};
    for (int64_t i = 0; i < inspect->step_count * inspect->columns[field]; i++)
        widen(&range, inspect->series[field][i]);
    return range;
}

struct label {
    int32_t objective;
    double at;
};

static int compare_labels(const void *a, const void *b)
{
    const struct label *first = a;
    const struct label *second = b;
    return (first->at < second->at) - (first->at > second->at);
}

/* Move labels apart, from the top down, then back up from the bottom. */
static void spread_labels(struct label *label, int32_t count, struct range range,
                          double spacing)
{
    const double height = range.high - range.low;
    const double gap = height * fmin(spacing, 0.96 / count);
    qsort(label, (size_t)count, sizeof *label, compare_labels);
    for (int32_t i = 1; i < count; i++)
        label[i].at = fmin(label[i].at, label[i - 1].at - gap);
    double floor = range.low + 0.02 * height;
    for (int32_t i = count - 1; i >= 0; i--) {
        label[i].at = fmax(label[i].at, floor);
        floor = label[i].at + gap;
    }
}

/* ---- the script ---- */

/* gnuplot's single quotes: only the quote itself is special, and doubled. A line end would
 * end the command, so control characters become spaces. */
static void put_quoted(FILE *script, const char *text)
{
    fputc('\'', script);
    for (const char *byte = text; *byte != '\0'; byte++) {
        if (*byte == '\'')
            fputc('\'', script);
        fputc((unsigned char)*byte < 0x20 ? ' ' : *byte, script);
    }
    fputc('\'', script);
}

static void put_number(FILE *script, double value)
{
    if (isfinite(value))
        fprintf(script, "\t%.10g", value);
    else
        fputs("\tNaN", script);
}

/* The time of record.def's timing fields, which are named after the timed stages. */
static const enum inspect_field stages[MPO_TIMED_STAGE_COUNT] = {
#define STAGE_FIELD(name, sentence) [MPO_TIMED_##name] = INSPECT_timing_##name,
    MPO_TIMED_STAGE_LIST(STAGE_FIELD)
#undef STAGE_FIELD
};

/* A logarithmic scale has no zero. */
static double positive(double seconds)
{
    return seconds > 0.0 ? seconds : NAN;
}

/* Columns: step, F, error, gap, ESS, then K weights, K averages and the stages' times. */
static void put_data(FILE *script, const struct inspect *inspect)
{
    const int32_t count = inspect->objective_count;
    fputs("$data << END_OF_DATA\n", script);
    for (int64_t n = 0; n < inspect->step_count; n++) {
        fprintf(script, "%.0f", inspect->step[n]);
        put_number(script, inspect->series[INSPECT_value][n]);
        put_number(script, inspect->series[INSPECT_value_error][n]);
        put_number(script, inspect->series[INSPECT_averaged_gap][n]);
        put_number(script, inspect->series[INSPECT_ess][n]);
        for (int32_t k = 0; k < count; k++)
            put_number(script, inspect->series[INSPECT_weights][n * count + k]);
        for (int32_t k = 0; k < count; k++)
            put_number(script, inspect->series[INSPECT_average][n * count + k]);
        for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++)
            put_number(script, positive(inspect->series[stages[i]][n]));
        fputc('\n', script);
    }
    fputs("END_OF_DATA\n", script);
}

/* A line through a single step would be invisible. */
static const char *line_style(const struct inspect *inspect)
{
    return inspect->step_count > 1 ? "lines" : "points pt 7";
}

/* Where the panels end, so that the longest label fits beside them. */
static double right_margin(const struct inspect *inspect)
{
    size_t letters = LETTERS_MIN;
    for (int32_t k = 0; k < inspect->objective_count; k++) {
        const size_t name =
            strlen(mpo_record_objective(inspect->record, k)) + strlen(" 0.000");
        letters = name > letters ? name : letters;
    }
    return 1.0 - LETTER_WIDTH * (double)(letters < LETTERS_MAX ? letters : LETTERS_MAX);
}

static void put_head(FILE *script, const struct inspect *inspect, const char *output,
                     bool is_png)
{
    const double first = inspect->step[0];
    const double final = inspect->step[inspect->step_count - 1];
    const double room = final > first ? 0.0 : 0.5;
    fputs("set encoding utf8\n", script);
    if (is_png)
        fputs("set terminal pngcairo size 1000,1320 font 'Sans,12' background 'white' "
              "noenhanced\n",
              script);
    else
        fputs("set terminal svg size 800,1060 dynamic font 'Helvetica,Arial,sans-serif,13' "
              "background 'white' noenhanced\n",
              script);
    fputs("set output ", script);
    put_quoted(script, output);
    fputs("\nset datafile separator tab\nset datafile missing 'NaN'\nset multiplot\n"
          "set border 3 lc rgb '#606060'\nset tics out nomirror scale 0.6\n"
          "set grid ytics back lt 1 dt solid lw 0.6 lc rgb '#D8D8D8'\nset key off\n",
          script);
    fprintf(script, "set xrange [%.17g:%.17g]\nset lmargin at screen %g\n", first - room,
            final + room, LEFT_MARGIN);
    fprintf(script, "set rmargin at screen %g\n", right_margin(inspect));
}

static void put_panel(FILE *script, const struct panel *panel, struct range range)
{
    fprintf(script, "set tmargin at screen %g\nset bmargin at screen %g\n", panel->top,
            panel->bottom);
    fprintf(script, "set ylabel '%s' offset 0.5,0\nset yrange [%.17g:%.17g]\n",
            panel->label, range.low, range.high);
    fputs(panel->is_last ? "set xlabel 'step' tc rgb 'black'\nset format x '%g'\n"
                         : "unset xlabel\nset format x ''\n",
          script);
}

static void put_title(FILE *script, const struct inspect *inspect)
{
    char title[512] = "";
    const char *run = mpo_record_attribute(inspect->record, "run_id");
    snprintf(title, sizeof title, "%s%s%.200s, %lld step%s, %s", inspect->path,
             run[0] != '\0' ? ", run " : "", run, (long long)inspect->step_count,
             inspect->step_count == 1 ? "" : "s", inspect_state(inspect));
    fputs("set title ", script);
    put_quoted(script, title);
    fputs(" offset 0,-0.3\n", script);
}

static void put_labels(FILE *script, const struct inspect *inspect, struct label *label,
                       struct range range)
{
    const int32_t count = inspect->objective_count;
    const double *average =
        inspect->series[INSPECT_average] + (inspect->step_count - 1) * count;
    char text[MPO_RECORD_NAME_BYTES + 16] = "";
    for (int32_t k = 0; k < count; k++)
        label[k] = (struct label){k, isfinite(average[k]) ? average[k] : range.low};
    spread_labels(label, count, range, LABEL_GAP);
    for (int32_t i = 0; i < count; i++) {
        const int32_t k = label[i].objective;
        snprintf(text, sizeof text, "%s %.3f", mpo_record_objective(inspect->record, k),
                 average[k]);
        fprintf(script, "set label %d ", i + 1);
        put_quoted(script, text);
        fprintf(script, " at graph 1.015, first %.17g left tc rgb '%s'\n", label[i].at,
                colors[k % STYLE_COUNT]);
    }
}

static void put_weights(FILE *script, const struct inspect *inspect, struct label *label)
{
    const int32_t count = inspect->objective_count;
    struct range range = range_of(inspect, INSPECT_weights);
    widen(&range, range_of(inspect, INSPECT_average).high);
    widen(&range, 0.0);
    range.high = fmin(1.0, fmax(range.high * 1.06, 0.1));
    range.low = -0.015 * range.high; /* a line at zero stays visible */
    put_panel(script, &(struct panel){0.9575, 0.635, "weight", false}, range);
    put_title(script, inspect);
    put_labels(script, inspect, label, range);
    fputs("set xlabel 'thick: the average, which is the output; thin: the weights of each "
          "step' offset 0,0.6 tc rgb '#606060'\n",
          script);
    fputs("plot ", script);
    for (int32_t average = 0; average < 2; average++)
        for (int32_t k = 0; k < count; k++)
            fprintf(script, "%s$data using 1:%d with %s lw %s dt %s lc rgb '%s%s'",
                    average + k > 0 ? ", " : "", 6 + average * count + k,
                    line_style(inspect), average ? "2.6" : "0.9", dashes[k % STYLE_COUNT],
                    average ? "#" : "#70", colors[k % STYLE_COUNT] + 1);
    fputs("\nunset label\nunset title\n", script);
}

static void put_value(FILE *script, const struct inspect *inspect)
{
    struct range range = {INFINITY, -INFINITY};
    for (int64_t n = 0; n < inspect->step_count; n++) {
        const double error = inspect->series[INSPECT_value_error][n];
        const double value = inspect->series[INSPECT_value][n];
        widen(&range, value - (isfinite(error) ? error : 0.0));
        widen(&range, value + (isfinite(error) ? error : 0.0));
    }
    put_panel(script, &(struct panel){0.584, 0.461, "nat", false}, with_room(range));
    fprintf(script,
            "set label 1 'F at the weights,' at graph 1.015, 0.62 left\n"
            "set label 2 'one standard error' at graph 1.015, 0.42 left tc rgb '#606060'\n"
            "plot $data using 1:($2-$3):($2+$3) with filledcurves lc rgb '#BBD3E8', "
            "$data using 1:2 with %s lw 1.6 lc rgb '#0072B2'\nunset label\n",
            line_style(inspect));
}

static void put_gap(FILE *script, const struct inspect *inspect)
{
    struct range range = range_of(inspect, INSPECT_averaged_gap);
    const bool is_positive = range.low > 0.0 && range.low <= range.high;
    if (is_positive)
        range = (struct range){range.low / 1.2, range.high * 1.2};
    else
        range = with_room(range);
    put_panel(script, &(struct panel){0.427, 0.325, "nat", false}, range);
    fprintf(script, "%sset label 1 'averaged gap %.4f' at graph 1.015, 0.5 left\n",
            is_positive ? "set logscale y\n" : "",
            inspect->series[INSPECT_averaged_gap][inspect->step_count - 1]);
    fprintf(script,
            "plot $data using 1:4 with %s lw 1.6 lc rgb '#D55E00'\nunset label\n"
            "unset logscale y\n",
            line_style(inspect));
}

static void put_ess(FILE *script, const struct inspect *inspect)
{
    put_panel(script, &(struct panel){0.291, 0.198, "fraction", false},
              (struct range){0.0, 1.05});
    fprintf(script,
            "set ytics 0,0.5,1\n"
            "set label 1 'effective' at graph 1.015, 0.62 left\n"
            "set label 2 'sample size' at graph 1.015, 0.38 left\n"
            "plot $data using 1:5 with %s lw 1.3 lc rgb '#009E73'\n"
            "unset label\nset ytics auto\n",
            line_style(inspect));
}

/* Labels of the stages at the ends of their lines, in powers of ten. */
static void put_stage_labels(FILE *script, const struct inspect *inspect,
                             struct range range)
{
    struct label label[MPO_TIMED_STAGE_COUNT];
    const struct range powers = {log10(range.low), log10(range.high)};
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++) {
        const double seconds = positive(inspect_last(inspect, stages[i]));
        label[i] = (struct label){i, isfinite(seconds) ? log10(seconds) : powers.low};
    }
    spread_labels(label, MPO_TIMED_STAGE_COUNT, powers, STAGE_GAP);
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++) {
        const int32_t stage = label[i].objective;
        fprintf(script,
                "set label %d '%s %.3g s' at graph 1.015, first %.6g left tc rgb '%s'\n",
                i + 1, mpo_timing_name((enum mpo_timed_stage)stage),
                inspect_sum(inspect, stages[stage]), pow(10.0, label[i].at),
                colors[stage % STYLE_COUNT]);
    }
}

static void put_stages(FILE *script, const struct inspect *inspect)
{
    const int32_t first = 6 + 2 * inspect->objective_count;
    struct range range = {INFINITY, -INFINITY};
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++)
        for (int64_t n = 0; n < inspect->step_count; n++)
            widen(&range, positive(inspect->series[stages[i]][n]));
    if (range.low > range.high)
        range = (struct range){1e-3, 1.0};
    range = (struct range){range.low / 2.0, range.high * 2.0};
    put_panel(script, &(struct panel){0.164, 0.06, "s a step", true}, range);
    put_stage_labels(script, inspect, range);
    fputs("set logscale y\nset format y '%.0e'\nplot ", script);
    for (int i = 0; i < MPO_TIMED_STAGE_COUNT; i++)
        fprintf(script, "%s$data using 1:%d with %s lw 1.4 dt %s lc rgb '%s'",
                i > 0 ? ", " : "", first + i, line_style(inspect), dashes[i % STYLE_COUNT],
                colors[i % STYLE_COUNT]);
    fputs("\nunset multiplot\nunset output\n", script);
}

/* ---- gnuplot ---- */

static bool ends_with(const char *text, const char *suffix)
{
    const size_t length = strlen(text);
    return length > strlen(suffix) && strcmp(text + length - strlen(suffix), suffix) == 0;
}

static void remove_if_empty(const char *path)
{
    struct stat found;
    if (stat(path, &found) == 0 && found.st_size == 0)
        remove(path);
}

/* Refuse before gnuplot starts what it would only complain about. */
static enum mpo_status check_output(const char *output)
{
    enum mpo_status status = MPO_OK;
    FILE *stream = NULL;
    MPO_CHECK(ends_with(output, ".svg") || ends_with(output, ".png"), MPO_ERR_USAGE,
              "--plot=%s: expected a name that ends with .svg or .png", output);
    stream = fopen(output, "ab"); /* an earlier plot stays until gnuplot replaces it */
    MPO_CHECK(stream != NULL, errno == EACCES ? MPO_ERR_PERMISSION : MPO_ERR_OUTPUT,
              "%s: cannot be made: %s", output, strerror(errno));
cleanup:
    if (stream != NULL)
        fclose(stream);
    return status;
}

static enum mpo_status run_gnuplot(const struct inspect *inspect, const char *output,
                                   struct label *label)
{
    enum mpo_status status = MPO_OK;
    /* A gnuplot that ends early is reported by its exit code, not by a signal to us. */
    void (*handler)(int) = signal(SIGPIPE, SIG_IGN);
    FILE *script =
        popen("command -v gnuplot >/dev/null || exit 127; exec gnuplot >/dev/null", "w");
    MPO_CHECK(script != NULL, MPO_ERR_IO, "cannot start gnuplot: %s", strerror(errno));
    put_head(script, inspect, output, ends_with(output, ".png"));
    put_data(script, inspect);
    put_weights(script, inspect, label);
    put_value(script, inspect);
    put_gap(script, inspect);
    put_ess(script, inspect);
    put_stages(script, inspect);
    const int ended = pclose(script);
    MPO_CHECK(!(WIFEXITED(ended) && WEXITSTATUS(ended) == NOT_FOUND), MPO_ERR_DEVICE,
              "plots are drawn by gnuplot, which is not installed; on Debian and Ubuntu: "
              "apt-get install gnuplot-nox");
    MPO_CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 0, MPO_ERR_IO,
              "%s: gnuplot did not draw it (status %d); its message is above", output,
              ended);
cleanup:
    signal(SIGPIPE, handler);
    return status;
}

enum mpo_status inspect_plot(const struct inspect *inspect, const char *output)
{
    enum mpo_status status = MPO_OK;
    struct label *label = NULL;
    MPO_CHECK(inspect->step_count > 0, MPO_ERR_DATA,
              "%s: expected a step to plot, found none yet", inspect->path);
    MPO_NEW(inspect->objective_count, &label);
    MPO_TRY(check_output(output));
    status = run_gnuplot(inspect, output, label);
    if (status != MPO_OK)
        remove_if_empty(output);
cleanup:
    free(label);
    return status;
}
