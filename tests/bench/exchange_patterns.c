/*
 * Time and bytes a rank of one position of the decode loop, under both patterns of the
 * exchange: rows to those that reduce them, block sums, one draw a row, its token to
 * everybody. The normalisers, the same under both, are left out. One policy a rank.
 *
 *     mpirun -n K exchange_patterns V B ROUNDS TRANSPORT...
 *
 * Transports and patterns take turns, so that what else the machine does meets all alike; a
 * position takes as long as its slowest rank, and the figure is the median over ROUNDS.
 * Prints one line of exchange_patterns.sh's table a transport and pattern.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "mpo/mixture.h"
#include "mpo/timing.h"
#include "runner.h"

#define TRANSPORTS_MAX 4
#define PATTERN_COUNT  2
#define ROUNDS_MAX     1000

struct bench {
    char *const *transport;
    int32_t transport_count;
    int32_t policy_count;
    int32_t vocab_size;
    int32_t row_count;
    int32_t round_count;
    struct mpo_comm *comm;
    const float **row; /* [B] of this rank's policy */
    double *log_norm;  /* [B] */
    double *ones;      /* [K] temperatures */
    double *mu;        /* [K] */
};

/* One transport and pattern with its own buffers. */
struct side {
    const char *transport;
    const char *pattern;
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
                          const char *pattern, struct mpo_exchange **exchange)
{
    const struct mpo_exchange_spec spec = {.transport = transport,
                                           .pattern = pattern,
                                           .policy_count = bench->policy_count,
                                           .row_capacity = bench->row_count,
                                           .vocab_size = bench->vocab_size};
    need(mpo_exchange_open(&spec, bench->comm, exchange));
}

static void open_side(const struct bench *bench, struct side *side)
{
    static const int32_t end_token = 2;
    open_exchange(bench, side->transport, side->pattern, &side->exchange);
    const struct mpo_mixture_spec spec = {.device = "cpu",
                                          .temperature = bench->ones,
                                          .end_token = &end_token,
                                          .end_count = 1,
                                          .policy_count = bench->policy_count,
                                          .vocab_size = bench->vocab_size,
                                          .row_capacity = bench->row_count,
                                          .exchange = side->exchange};
    need(mpo_mixture_open(&spec, &side->mixture));
    mpo_mixture_set(side->mixture, bench->mu, 0.0);
}

/* Random rows, each in memory of its own. */
static void make_rows(struct bench *bench)
{
    size_t rows = (size_t)bench->row_count;
    size_t vocab = (size_t)bench->vocab_size;
    float *logits = runner_allocate(rows * vocab, sizeof *logits);
    uint64_t seed = (uint64_t)mpo_comm_rank(bench->comm);
    bench->row = runner_allocate(rows, sizeof *bench->row);
    bench->log_norm = runner_allocate(rows, sizeof *bench->log_norm);
    bench->ones = runner_allocate((size_t)bench->policy_count, sizeof(double));
    bench->mu = runner_allocate((size_t)bench->policy_count, sizeof(double));
    for (size_t i = 0; i < rows * vocab; i++)
        logits[i] = (float)(12.0 * runner_uniform(seed, i) - 6.0);
    for (size_t b = 0; b < rows; b++)
        bench->row[b] = logits + b * vocab;
    for (int32_t h = 0; h < bench->policy_count; h++) {
        bench->ones[h] = 1.0;
        bench->mu[h] = 1.0 / bench->policy_count;
    }
}

struct room {
    struct mpo_mixture_moments *moments;
    double *expectation;
    int32_t *source;
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
                        .uniform = runner_allocate(rows, sizeof(double)),
                        .token = runner_allocate(rows, sizeof(int32_t)),
                        .log_proposal = runner_allocate(rows, sizeof(double)),
                        .log_policy = runner_allocate(rows * policies, sizeof(double))};
    for (size_t i = 0; i < rows; i++) {
        room.source[i] = (int32_t)i;
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
                                      .uniform = room->uniform,
                                      .token = room->token,
                                      .log_proposal = room->log_proposal,
                                      .log_policy = room->log_policy};
    double seconds = 0.0;
    need(mpo_comm_max(bench->comm, &seconds, 1)); /* all begin together */
    double start = mpo_timing_now();
    need(mpo_exchange_rows(side->exchange, bench->row_count, bench->row, bench->log_norm,
                           &rows));
    need(mpo_mixture_combine(side->mixture, &rows, room->moments, room->expectation));
    need(mpo_mixture_draw(side->mixture, &draws));
    need(mpo_exchange_tokens(side->exchange, room->token, bench->row_count));
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

/* One line of the table; the other pattern of the transport is its neighbour. */
static void report(const struct bench *bench, const struct side *side, double seconds,
                   double best_seconds)
{
    struct mpo_exchange *chosen = NULL;
    double most[3];
    open_exchange(bench, side->transport, "auto", &chosen);
    bool is_auto = strcmp(mpo_exchange_pattern(chosen), side->pattern) == 0;
    most_traffic(bench, side, most);
    if (mpo_comm_rank(bench->comm) == 0)
        printf("%s\t%d\t%d\t%d\t%s\t%.3f\t%.0f\t%.0f\t%.0f\t%s\t%.2f\n", side->transport,
               bench->policy_count, bench->vocab_size, bench->row_count, side->pattern,
               1e3 * seconds, most[0], most[1], most[2], is_auto ? "yes" : "no",
               seconds / best_seconds);
    mpo_exchange_close(&chosen);
}

static void run(const struct bench *bench)
{
    static const char *const patterns[PATTERN_COUNT] = {"gather", "alltoall"};
    static struct side side[TRANSPORTS_MAX * PATTERN_COUNT];
    struct room room = make_room(bench);
    double seconds[TRANSPORTS_MAX * PATTERN_COUNT];
    int32_t side_count = bench->transport_count * PATTERN_COUNT;
    for (int32_t i = 0; i < side_count; i++) {
        side[i].transport = bench->transport[i / PATTERN_COUNT];
        side[i].pattern = patterns[i % PATTERN_COUNT];
        open_side(bench, &side[i]);
        take_position(bench, &side[i], &room); /* the first one touches all pages */
    }
    for (int32_t round = 0; round < bench->round_count; round++)
        for (int32_t i = 0; i < side_count; i++)
            side[i].seconds[round] = take_position(bench, &side[i], &room);
    for (int32_t i = 0; i < side_count; i++)
        seconds[i] = median(bench, &side[i]);
    for (int32_t i = 0; i < side_count; i++) {
        double other = seconds[i ^ 1];
        report(bench, &side[i], seconds[i], other < seconds[i] ? other : seconds[i]);
    }
    for (int32_t i = 0; i < side_count; i++) {
        mpo_mixture_close(&side[i].mixture);
        mpo_exchange_close(&side[i].exchange);
    }
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    need(mpo_comm_start(&argc, &argv));
    if (argc < 5 || argc > 4 + TRANSPORTS_MAX || atol(argv[3]) < 1 ||
        atol(argv[3]) > ROUNDS_MAX) {
        fprintf(stderr, "usage: mpirun -n K exchange_patterns V B ROUNDS TRANSPORT...\n");
        mpo_comm_stop();
        return 64;
    }
    bench.vocab_size = (int32_t)atol(argv[1]);
    bench.row_count = (int32_t)atol(argv[2]);
    bench.round_count = (int32_t)atol(argv[3]);
    bench.transport = argv + 4;
    bench.transport_count = argc - 4;
    bench.policy_count = mpo_comm_job_size();
    need(mpo_comm_open(bench.policy_count, 0, &bench.comm));
    make_rows(&bench);
    run(&bench);
    mpo_comm_close(&bench.comm);
    mpo_comm_stop();
    return 0;
}
