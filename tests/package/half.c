/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program with MPI of its own that gives each half of its ranks a session.
 *
 *     mpirun -n 4 half my.yaml     the halves draw the same response
 *     mpirun -n 4 half bad.yaml    the failure is the session's status: nothing is printed
 *                                  here, nobody ends the program
 *
 * The last rank prints what came of it, after all sessions are closed.
 */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include <mpo/mpo.h>

#define TOKENS 12

static void take_failure(void *argument, enum mpo_status status, const char *text)
{
    (void)text;
    *(enum mpo_status *)argument = status;
}

/* The response's tokens, at the root of the session; -1 after its end. */
static enum mpo_status draw_response(struct mpo_session *session, int32_t token[TOKENS])
{
    const double mu[] = {0.5, 0.2, 0.3};
    struct mpo_decode *decode = mpo_session_decode(session);
    const struct mpo_decode_event *event = NULL;
    int32_t row = 0;
    int32_t count = 1;
    memset(token, -1, TOKENS * sizeof *token);
    if (mpo_comm_group_rank(mpo_session_comm(session)) != 0)
        return mpo_decode_follow(decode);
    enum mpo_status status = mpo_decode_admit(
        decode, &(struct mpo_decode_row){.share = -1, .free_count = TOKENS, .mu = mu},
        &row);
    while (status == MPO_OK && count > 0) {
        status = mpo_decode_step(decode, &event, &count);
        for (int32_t i = 0; status == MPO_OK && i < count; i++)
            token[event[i].position] = event[i].token;
    }
    return status == MPO_OK ? mpo_decode_release(decode) : status;
}

int main(int argc, char **argv)
{
    int rank = 0;
    int size = 0;
    int32_t token[2][TOKENS]; /* of the two halves, at their roots */
    MPI_Comm half = MPI_COMM_NULL;
    struct mpo_session *session = NULL;
    enum mpo_status failure = MPO_OK;
    int threads = MPI_THREAD_SINGLE;
    /* Policies compute with threads of their own, which never call MPI. */
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &threads);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_split(MPI_COMM_WORLD, rank < size / 2 ? 0 : 1, rank, &half);
    const struct mpo_session_spec spec = {.config = argv[1],
                                          .communicator = &half,
                                          .on_failure = take_failure,
                                          .argument = &failure};
    enum mpo_status status = mpo_session_open(&spec, &session);
    memset(token, 0, sizeof token);
    if (status == MPO_OK) /* a failure of one rank ends the loops of all */
        status = mpo_session_end_loop(draw_response(session, token[0]));
    mpo_session_close(&session);
    /* MPI is still up, and the world whole. */
    MPI_Bcast(token[0], TOKENS, MPI_INT32_T, 0, half);
    memcpy(token[1], token[0], sizeof token[0]);
    MPI_Bcast(token[0], TOKENS, MPI_INT32_T, 0, MPI_COMM_WORLD);
    if (rank == size - 1)
        printf("status %d, failure %d, %s\n", (int)status, (int)failure,
               memcmp(token[0], token[1], sizeof token[0]) == 0 ? "same response"
                                                                : "other responses");
    MPI_Comm_free(&half);
    MPI_Finalize();
    return 0;
}
