/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing the answers of a reward program: what it writes is foreign, and comes in pieces of
 * any length.
 *
 * The file of an input is what the program writes; its arguments are the number of responses
 * of each of two batches, and the names of the rewards. The process is played: it takes all
 * requests at once, and each read gets a piece of the file. Whatever the pieces are, the
 * answers are the same, or the same refusal; what is accepted is a finite number for each
 * response and name.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_case.h"
#include "rewards/rewards_impl.h"

#define BATCHES   2
#define COUNT_MAX 8
#define NAMES_MAX 4
#define ERROR_MAX 2048
#define FIRST_ID  7
#define RESPONSE  "b"
#define WHOLE     ((size_t)1 << 20) /* a piece longer than any file */
#define FOREIGN   1                 /* a number that no process of this test has */

/* ---- a process of the same interface ---- */

static struct {
    const char *bytes; /* yet to be read */
    size_t count;
    size_t piece;
} written;

enum mpo_status mpo_rewards_process_open(const char *command,
                                         struct mpo_rewards_process *process)
{
    (void)command;
    *process = (struct mpo_rewards_process){.pid = FOREIGN, .input = -1, .output = -1};
    return MPO_OK;
}

void mpo_rewards_process_close(struct mpo_rewards_process *process, char *how,
                               size_t how_bytes)
{
    static const char ended[] = "exit code 0";
    process->pid = 0;
    if (how != NULL && how_bytes >= sizeof ended)
        memcpy(how, ended, sizeof ended);
}

enum mpo_status mpo_rewards_process_move(struct mpo_rewards_process *process,
                                         struct mpo_rewards_traffic *traffic, size_t *got)
{
    fuzz_check(process->pid == FOREIGN, "a process that was not started");
    fuzz_check(traffic->room_bytes > 0, "a read without room");
    fuzz_touch(traffic->unsent, traffic->unsent_bytes);
    traffic->unsent += traffic->unsent_bytes;
    traffic->unsent_bytes = 0;
    *got = written.count < written.piece ? written.count : written.piece;
    *got = *got < traffic->room_bytes ? *got : traffic->room_bytes;
    memcpy(traffic->room, written.bytes, *got);
    written.bytes += *got;
    written.count -= *got;
    return MPO_OK;
}

/* ---- the batches ---- */

struct question {
    const struct fuzz_input *input;
    const char *name[NAMES_MAX];
    int32_t name_count;
    int32_t count; /* of a batch */
};

struct answer {
    enum mpo_status status;
    char error[ERROR_MAX];
    double reward[BATCHES][COUNT_MAX * NAMES_MAX];
};

static enum mpo_status measure(const struct question *question, struct answer *answer)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rewards *rewards = NULL;
    const char *empty[COUNT_MAX];
    int64_t bytes[COUNT_MAX];
    int32_t tokens[COUNT_MAX];
    char text[COUNT_MAX * sizeof RESPONSE] = "";
    const struct mpo_rewards_spec spec = {
        .command = "played", .name = question->name, .name_count = question->name_count};
    for (int32_t i = 0; i < question->count; i++) {
        empty[i] = "";
        bytes[i] = (int64_t)strlen(RESPONSE);
        tokens[i] = 1;
        memcpy(text + i * bytes[i], RESPONSE, (size_t)bytes[i]);
    }
    struct mpo_rewards_batch batch = {FIRST_ID, question->count, empty, empty,
                                      text,     bytes,           tokens};
    MPO_TRY(mpo_rewards_open(&spec, &rewards));
    for (int b = 0; b < BATCHES; b++) {
        MPO_TRY(mpo_rewards_measure(rewards, &batch, answer->reward[b]));
        batch.first_id += batch.count;
    }
cleanup:
    mpo_rewards_close(&rewards);
    return status;
}

/* What comes of the file in pieces of a length. */
static void ask(const struct question *question, size_t piece, struct answer *answer)
{
    *answer = (struct answer){0};
    for (int b = 0; b < BATCHES; b++)
        for (int i = 0; i < COUNT_MAX * NAMES_MAX; i++)
            answer->reward[b][i] = NAN;
    written.bytes = question->input->body;
    written.count = question->input->body_bytes;
    written.piece = piece;
    answer->status = measure(question, answer);
    strncat(answer->error, mpo_error_text(), sizeof answer->error - 1);
}

static void check_rewards(const struct question *question, const struct answer *answer)
{
    for (int b = 0; b < BATCHES; b++)
        for (int32_t i = 0; i < question->count * question->name_count; i++)
            fuzz_check(isfinite(answer->reward[b][i]), "a reward that nobody gave");
}

static void check_pieces(const struct question *question, const struct answer *whole)
{
    static const size_t piece[] = {1, 7};
    struct answer other;
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        ask(question, piece[i], &other);
        fuzz_check(other.status == whole->status, "another status in pieces");
        fuzz_check(whole->status == MPO_OK || strcmp(other.error, whole->error) == 0,
                   "another refusal in pieces");
        fuzz_check(memcmp(other.reward, whole->reward, sizeof other.reward) == 0,
                   "other rewards in pieces");
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input;
    struct answer answer;
    fuzz_input_open(data, bytes, &input);
    struct question question = {.input = &input};
    question.count = 1 + (fuzz_argument(&input, 0, "0")[0] & (COUNT_MAX - 1));
    for (int i = 1; i < input.argument_count && question.name_count < NAMES_MAX; i++)
        question.name[question.name_count++] = input.argument[i];
    if (question.name_count == 0)
        question.name[question.name_count++] = "r";
    ask(&question, WHOLE, &answer);
    if (answer.status == MPO_OK)
        check_rewards(&question, &answer);
    check_pieces(&question, &answer);
    fuzz_verdict(answer.status);
    fuzz_input_close(&input);
    return 0;
}
