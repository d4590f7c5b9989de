/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that makes mistakes: each is answered with a status and a text, and what follows
 * it works.
 *
 *     edges retry my.yaml missing.yaml    errors, each followed by what it should have been
 *     edges order my.yaml                 MPI ends before the session is closed
 *     edges single my.yaml                MPI_Init, which gives no MPI_THREAD_FUNNELED
 *     mpirun -n 3 edges ranks my.yaml     calls at the wrong rank, and a failure of rank zero
 *
 * Prints one line for each of them: what it was, the status, the text. Lines of ranks but
 * zero begin with the rank.
 */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include <mpo/mpo.h>

static int rank;

/* The text belongs to this call: those of before are gone. */
static void say(const char *what, enum mpo_status status)
{
    printf("%d %s: %d %s\n", rank, what, (int)status, mpo_error_text());
    fflush(stdout);
    mpo_error_set("");
}

static void start_mpi(int *argc, char ***argv)
{
    int threads = MPI_THREAD_SINGLE;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &threads);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
}

static void count_failure(void *argument, enum mpo_status status, const char *text)
{
    (void)status;
    (void)text;
    ++*(int *)argument;
}

/* ---- one process ---- */

static void retry_machine(struct mpo_decode *decode)
{
    const double far[] = {1e300, 0.0, 0.0};
    const double mu[] = {0.5, 0.2, 0.3};
    struct mpo_decode_row request = {.share = -1, .mu = far, .free_count = 2};
    const struct mpo_decode_event *event = NULL;
    int32_t row = 0;
    int32_t count = 1;
    say("no text", mpo_decode_offer_text(decode, 0, NULL, NULL));
    say("no such slot", mpo_decode_offer_text(decode, 1 << 20, "the film", NULL));
    say("bad bytes", mpo_decode_offer_text(decode, 0, "the \xff", NULL));
    say("a text", mpo_decode_offer_text(decode, 0, "the film", NULL));
    say("far exponents", mpo_decode_admit(decode, &request, &row));
    request.mu = mu;
    say("exponents", mpo_decode_admit(decode, &request, &row));
    while (mpo_decode_live_rows(decode) > 0 && count > 0)
        if (mpo_decode_step(decode, &event, &count) != MPO_OK)
            break;
    say("a response", mpo_decode_release(decode));
}

static void retry(const char *config, const char *missing)
{
    struct mpo_session *session = NULL;
    struct mpo_session *second = NULL;
    struct mpo_session_spec spec = {.config = config, .size.responses = 4};
    struct mpo_fit *fit = NULL;
    say("nothing", mpo_session_open(NULL, &session));
    spec.command = "draw";
    say("no such command", mpo_session_open(&spec, &session));
    spec.command = "inspect"; /* which takes no configuration */
    say("no command of a job", mpo_session_open(&spec, &session));
    spec.command = NULL;
    say("no file",
        mpo_session_open(&(struct mpo_session_spec){.config = missing}, &session));
    say("half a size", mpo_session_open(&spec, &session));
    spec.size.unit_prompts = 1;
    say("a size", mpo_session_open(&spec, &session));
    say("a second one", mpo_session_open(&spec, &second));
    retry_machine(mpo_session_decode(session));
    say("no fit", mpo_fit_open(NULL, &fit));
    say("a fit of another size",
        mpo_fit_open(&(struct mpo_fit_spec){.session = session}, &fit));
    mpo_fit_close(&fit);
    mpo_session_close(&session);
    mpo_session_close(&session);
    mpo_session_close(NULL);
    say("the second one now", mpo_session_open(&spec, &second));
    mpo_session_close(&second);
}

static void close_late(const char *config)
{
    struct mpo_session *session = NULL;
    say("open", mpo_session_open(&(struct mpo_session_spec){.config = config}, &session));
    MPI_Finalize();
    mpo_session_close(&session);
    say("closed", session == NULL ? MPO_OK : MPO_ERR_INTERNAL);
}

/* ---- ranks ---- */

static void fail_together(const char *config)
{
    int failures = 0;
    enum mpo_status status = MPO_ERR_DATA;
    struct mpo_session *session = NULL;
    const struct mpo_session_spec spec = {
        .config = config, .on_failure = count_failure, .argument = &failures};
    say("open", mpo_session_open(&spec, &session));
    struct mpo_decode *decode = mpo_session_decode(session);
    if (rank == 0) {
        say("follow", mpo_decode_follow(decode)); /* at the root there is nothing to do */
    } else {
        say("offer", mpo_decode_offer_text(decode, 0, "the film", NULL));
        say("idle", mpo_decode_idle(decode));
        say("release", mpo_decode_release(decode));
        status = mpo_decode_follow(decode);
    }
    say("end", mpo_session_end_loop(status));
    say("end again", mpo_session_end_loop(MPO_OK));
    mpo_session_close(&session);
    printf("%d told: %d\n", rank, failures);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    if (strcmp(mode, "retry") == 0 && argc == 4) {
        retry(argv[2], argv[3]);
    } else if (strcmp(mode, "order") == 0) {
        start_mpi(&argc, &argv);
        close_late(argv[2]);
    } else if (strcmp(mode, "ranks") == 0) {
        start_mpi(&argc, &argv);
        fail_together(argv[2]);
        MPI_Finalize();
    } else if (strcmp(mode, "single") == 0) {
        struct mpo_session *session = NULL;
        MPI_Init(&argc, &argv);
        say("open",
            mpo_session_open(&(struct mpo_session_spec){.config = argv[2]}, &session));
        MPI_Finalize();
    } else {
        return 2;
    }
    return 0;
}
