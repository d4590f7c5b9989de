/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and bytes a rank of one position of the decode loop, under both patterns of the
 * exchange and with rows of floats and of bf16: rounding if any, rows to those that reduce
 * them, block sums, one draw a row, its token to everybody. The normalisers, the same under
 * all, are left out. One policy a rank.
 *
 *     mpirun -n K exchange_patterns patterns|rows V B ROUNDS TRANSPORT...
 *
 * The first word says what is compared. All sides take turns, so that what else the
 * machine does meets all alike; a position takes as long as its slowest rank, and the
 * figure is the median over ROUNDS. Prints a line a side of the table of
 * exchange_patterns.sh or of exchange_rows.sh.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "base/timing.h"
#include "runner.h"

#define TRANSPORTS_MAX 4
#define SIDES_MAX      16
#define ROUNDS_MAX     1000

struct bench {
    bool compares_rows; /* else patterns */
    char *const *transport;
    int32_t transport_count;
    int32_t policy_count;
    int32_t vocab_size;
    int32_t row_count;
    int32_t round_count;
    struct mpo_comm *comm;
    const float **row;    /* [B] of this rank's policy */
    const float **placed; /* [B] the same, rounded where a side rounds */
    double *log_norm;     /* [B] */
    double *ones;         /* [K] temperatures */
    struct mpo_mixture_exponents exponents;
};

/* One way with its own buffers. */
struct side {
    const char *transport;
    enum mpo_pattern pattern;
    bool bf16_rows;
    struct mpo_exchange *exchange;
    struct mpo_mixture *mixture;
    double seconds[ROUNDS_MAX];
};

static void need(enum mpo_status status)
{
    if (status != MPO_OK)
        mpo_comm_abort(status);
}

static void open_exchange(const struct bench *bench, const char *transport,
                          enum mpo_pattern pattern, bool bf16_rows,
                          struct mpo_exchange **exchange)
{
    const struct mpo_exchange_spec spec = {
        .transport = transport,
        .pattern = pattern,
        .placement = mpo_placement_of(bench->policy_count, bench->comm),
        .row_capacity = bench->row_count,
        .vocab_size = bench->vocab_size,
        .bf16_rows = bf16_rows};
    need(mpo_exchange_open(&spec, bench->comm, exchange));
}

static void open_side(const struct bench *bench, struct side *side)
{
    static const int32_t end_token = 2;
    open_exchange(bench, side->transport, side->pattern, side->bf16_rows, &side->exchange);
    const struct mpo_mixture_spec spec = {.device = "cpu",
                                          .temperature = bench->ones,
                                          .end_token = &end_token,
                                          .end_count = 1,
                                          .policy_count = bench->policy_count,
                                          .vocab_size = bench->vocab_size,
                                          .row_capacity = bench->row_count,
                                          .bf16_rows = side->bf16_rows,
                                          .placed_first = mpo_comm_rank(bench->comm),
                                          .placed_count = 1,
                                          .exchange = side->exchange};
    need(mpo_mixture_open(&spec, &side->mixture));
}

/* Random rows, each in memory of its own. */
static void make_rows(struct bench *bench)
{
    size_t rows = (size_t)bench->row_count;
    size_t vocab = (size_t)bench->vocab_size;
    float *logits = runner_allocate(rows * vocab, sizeof *logits);
    uint64_t seed = (uint64_t)mpo_comm_rank(bench->comm);
    bench->row = runner_allocate(rows, sizeof *bench->row);
    bench->placed = runner_allocate(rows, sizeof *bench->placed);
    bench->log_norm = runner_allocate(rows, sizeof *bench->log_norm);
    bench->ones = runner_allocate((size_t)bench->policy_count, sizeof(double));
    double *mu = runner_allocate(rows * (size_t)bench->policy_count, sizeof *mu);
    double *end_bias = runner_allocate(rows, sizeof *end_bias);
    for (size_t i = 0; i < rows * vocab; i++)
        logits[i] = (float)(12.0 * runner_uniform(seed, i) - 6.0);
    for (size_t b = 0; b < rows; b++)
        bench->row[b] = logits + b * vocab;
    for (int32_t h = 0; h < bench->policy_count; h++)
        bench->ones[h] = 1.0;
    for (size_t i = 0; i < rows * (size_t)bench->policy_count; i++)
        mu[i] = 1.0 / bench->policy_count;
    bench->exponents = (struct mpo_mixture_exponents){.mu = mu, .end_bias = end_bias};
}

struct room {
    struct mpo_mixture_moments *moments;
    double *expectation;
    int32_t *source;
    enum mpo_mixture_kind *kind;
    double *uniform;
    int32_t *token;
    double *log_proposal;
    double *log_policy;
};

static struct room make_room(const struct bench *bench)
{
    size_t rows = (size_t)bench->row_count;
    size_t policies = (size_t)bench->policy_count;
    struct room room = {.moments = runner_allocate(rows, sizeof *room.moments),
                        .expectation = runner_allocate(rows * policies, sizeof(double)),
                        .source = runner_allocate(rows, sizeof(int32_t)),
                        .kind = runner_allocate(rows, sizeof *room.kind),
                        .uniform = runner_allocate(rows, sizeof(double)),
                        .token = runner_allocate(rows, sizeof(int32_t)),
                        .log_proposal = runner_allocate(rows, sizeof(double)),
                        .log_policy = runner_allocate(rows * policies, sizeof(double))};
    for (size_t i = 0; i < rows; i++) {
        room.source[i] = (int32_t)i;
        room.kind[i] = MPO_MIXTURE_DRAWN;
        room.uniform[i] = runner_uniform(99, i);
    }
    return room;
}

/* One position; the seconds of the slowest rank. */
static double take_position(const struct bench *bench, const struct side *side,
                            const struct room *room)
{
    struct mpo_rows rows;
    struct mpo_mixture_draws draws = {.count = bench->row_count,
                                      .row = room->source,
                                      .kind = room->kind,
                                      .uniform = room->uniform,
                                      .token = room->token,
                                      .log_proposal = room->log_proposal,
                                      .log_policy = room->log_policy};
    double seconds = 0.0;
    need(mpo_comm_max(bench->comm, &seconds, 1)); /* all begin together */
    double start = mpo_timing_now();
    memcpy(bench->placed, bench->row, (size_t)bench->row_count * sizeof *bench->row);
    need(mpo_mixture_round(side->mixture, mpo_comm_rank(bench->comm), bench->row_count,
                           bench->placed));
    need(mpo_exchange_rows(side->exchange, bench->row_count, bench->placed, bench->log_norm,
                           &rows));
    need(mpo_mixture_combine(side->mixture, &rows, &bench->exponents, room->moments,
                             room->expectation));
    need(mpo_mixture_draw(side->mixture, &draws));
    need(mpo_exchange_broadcast(side->exchange, room->token,
                                (size_t)bench->row_count * sizeof *room->token));
    seconds = mpo_timing_now() - start;
    need(mpo_comm_max(bench->comm, &seconds, 1));
    return seconds;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const struct bench *bench, struct side *side)
{
    qsort(side->seconds, (size_t)bench->round_count, sizeof(double), by_size);
    return side->seconds[bench->round_count / 2];
}

/* The most that any rank sent and received at one position. */
static void most_traffic(const struct bench *bench, const struct side *side, double most[3])
{
    struct mpo_exchange_traffic traffic = mpo_exchange_traffic(side->exchange);
    double positions = bench->round_count + 1;
    most[0] = (double)traffic.sent_bytes / positions;
    most[1] = (double)traffic.received_bytes / positions;
    most[2] = (double)(traffic.sent_messages + traffic.received_messages) / positions;
    need(mpo_comm_max(bench->comm, most, 3));
}

/* Whether auto takes the side's pattern. */
static bool is_auto(const struct bench *bench, const struct side *side)
{
    struct mpo_exchange *chosen = NULL;
    open_exchange(bench, side->transport, MPO_PATTERN_AUTO, side->bf16_rows, &chosen);
    bool same = mpo_exchange_pattern(chosen) == side->pattern;
    mpo_exchange_close(&chosen);
    return same;
}

static void print_side(const struct bench *bench, const struct side *side,
                       const char *remark, double seconds, double reference)
{
    double most[3];
    most_traffic(bench, side, most);
    if (mpo_comm_rank(bench->comm) == 0)
        printf("%s\t%d\t%d\t%d\t%s\t%.3f\t%.0f\t%.0f\t%.0f\t%s\t%.2f\n", side->transport,
               bench->policy_count, bench->vocab_size, bench->row_count,
               mpo_pattern_name(side->pattern), 1e3 * seconds, most[0], most[1], most[2],
               remark, seconds / reference);
}

/* Two neighbours, which are compared: of patterns with the faster one, and whether auto
 * takes them; of rows with those of floats. */
static void print_pair(const struct bench *bench, struct side pair[2])
{
    double seconds[2] = {median(bench, &pair[0]), median(bench, &pair[1])};
    double best = seconds[0] < seconds[1] ? seconds[0] : seconds[1];
    for (int32_t i = 0; i < 2; i++) {
        if (bench->compares_rows)
            print_side(bench, &pair[i], pair[i].bf16_rows ? "bf16" : "float", seconds[i],
                       seconds[0]);
        else
            print_side(bench, &pair[i], is_auto(bench, &pair[i]) ? "yes" : "no", seconds[i],
                       best);
    }
}

/* All sides, neighbours in pairs. @return how many there are */
static int32_t list_sides(const struct bench *bench, struct side *side)
{
    static const enum mpo_pattern patterns[2] = {MPO_PATTERN_GATHER, MPO_PATTERN_ALLTOALL};
    int32_t kinds = bench->compares_rows ? 2 : 1;
    int32_t count = 0;
    for (int32_t i = 0; i < bench->transport_count; i++)
        for (int32_t p = 0; p < 2; p++)
            for (int32_t k = 0; k < kinds; k++, count++) {
                side[count].transport = bench->transport[i];
                side[count].pattern = patterns[p];
                side[count].bf16_rows = k > 0;
            }
    return count;
}

static void run(const struct bench *bench)
{
    static struct side side[SIDES_MAX];
    struct room room = make_room(bench);
    int32_t side_count = list_sides(bench, side);
    for (int32_t i = 0; i < side_count; i++) {
        open_side(bench, &side[i]);
        take_position(bench, &side[i], &room); /* the first one touches all pages */
    }
    for (int32_t round = 0; round < bench->round_count; round++)
        for (int32_t i = 0; i < side_count; i++)
            side[i].seconds[round] = take_position(bench, &side[i], &room);
    for (int32_t i = 0; i < side_count; i += 2)
        print_pair(bench, &side[i]);
    for (int32_t i = 0; i < side_count; i++) {
        mpo_mixture_close(&side[i].mixture);
        mpo_exchange_close(&side[i].exchange);
    }
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    need(mpo_comm_start(&argc, &argv));
    if (argc < 6 || argc > 5 + TRANSPORTS_MAX || atol(argv[4]) < 1 ||
        atol(argv[4]) > ROUNDS_MAX) {
        fprintf(stderr, "usage: mpirun -n K exchange_patterns patterns|rows V B ROUNDS "
                        "TRANSPORT...\n");
        mpo_comm_stop();
        return 64;
    }
    bench.compares_rows = strcmp(argv[1], "rows") == 0;
    bench.vocab_size = (int32_t)atol(argv[2]);
    bench.row_count = (int32_t)atol(argv[3]);
    bench.round_count = (int32_t)atol(argv[4]);
    bench.transport = argv + 5;
    bench.transport_count = argc - 5;
    bench.policy_count = mpo_comm_job_size();
    need(mpo_placement_open_comm(bench.policy_count, 0, &bench.comm));
    make_rows(&bench);
    run(&bench);
    mpo_comm_close(&bench.comm);
    mpo_comm_stop();
    return 0;
}
