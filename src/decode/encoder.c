/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job for each slot, and one worker. What a job holds is the main thread's until it is
 * submitted and from when it is done.
 */
#include "encoder.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/workers.h"

struct job {
    struct mpo_worker_job worker; /* first */
    const struct mpo_encoder *encoder;
    int32_t slot;
    struct mpo_encoder_prompt prompt;
    int32_t *length; /* [policy_count] */
    struct mpo_failure failure;
    int64_t number;
    bool is_under_way; /* the main thread's, like the next */
    bool is_done;
};

struct mpo_encoder {
    struct mpo_encoder_spec spec;
    struct mpo_policy **policy; /* [policy_count] */
    struct mpo_workers *workers;
    struct job *job; /* [slot_count] */
    int32_t *length; /* [slot_count, policy_count] of the jobs */
    int64_t count;   /* of prompts that were submitted */
};

void mpo_encoder_prompt_free(struct mpo_encoder_prompt *prompt)
{
    free(prompt->messages);
    free(prompt->text);
    *prompt = (struct mpo_encoder_prompt){0};
}

static enum mpo_status encode_prompt(const struct job *job)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_encoder *encoder = job->encoder;
    for (int32_t k = 0; k < encoder->spec.policy_count; k++)
        MPO_TRY(mpo_policy_encode(encoder->policy[k], job->slot, &job->prompt.prompt,
                                  &job->length[k]));
cleanup:
    return status;
}

static void run_job(struct mpo_worker_job *worker)
{
    struct job *job = (void *)worker;
    mpo_failure_keep(&job->failure, encode_prompt(job));
}

static enum mpo_status allocate_jobs(struct mpo_encoder *encoder)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_encoder_spec *spec = &encoder->spec;
    MPO_NEW(spec->policy_count, &encoder->policy);
    memcpy(encoder->policy, spec->policy,
           (size_t)spec->policy_count * sizeof *encoder->policy);
    MPO_NEW(spec->slot_count, &encoder->job);
    MPO_NEW(spec->slot_count * spec->policy_count, &encoder->length);
    for (int32_t slot = 0; slot < spec->slot_count; slot++)
        encoder->job[slot] =
            (struct job){.worker.run = run_job,
                         .encoder = encoder,
                         .slot = slot,
                         .length = encoder->length + (ptrdiff_t)slot * spec->policy_count};
cleanup:
    return status;
}

enum mpo_status mpo_encoder_open(const struct mpo_encoder_spec *spec,
                                 struct mpo_encoder **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_encoder *encoder = NULL;
    const struct mpo_workers_spec workers = {.name = "mpo-encoder",
                                             .thread_count = 1,
                                             .notify = spec->encoded,
                                             .argument = spec->argument};
    MPO_NEW(1, &encoder);
    encoder->spec = *spec;
    MPO_TRY(allocate_jobs(encoder));
    MPO_TRY(mpo_workers_open(&workers, &encoder->workers));
cleanup:
    if (status != MPO_OK)
        mpo_encoder_close(&encoder);
    *out = encoder;
    return status;
}

void mpo_encoder_close(struct mpo_encoder **encoder)
{
    struct mpo_encoder *self = *encoder;
    if (self == NULL)
        return;
    mpo_workers_close(&self->workers);
    for (int32_t slot = 0; self->job != NULL && slot < self->spec.slot_count; slot++)
        mpo_encoder_prompt_free(&self->job[slot].prompt);
    free(self->length);
    free(self->job);
    free(self->policy);
    free(self);
    *encoder = NULL;
}

bool mpo_encoder_has(const struct mpo_encoder *encoder, int32_t slot)
{
    return encoder->job[slot].is_under_way;
}

void mpo_encoder_submit(struct mpo_encoder *encoder, int32_t slot,
                        struct mpo_encoder_prompt *prompt)
{
    struct job *job = &encoder->job[slot];
    job->prompt = *prompt;
    *prompt = (struct mpo_encoder_prompt){0};
    job->number = ++encoder->count;
    job->is_under_way = true;
    job->is_done = false;
    mpo_workers_submit(encoder->workers, &job->worker);
}

/* @return false: none is done */
static bool take_job(struct mpo_encoder *encoder, bool waits)
{
    struct job *job = (void *)mpo_workers_take(encoder->workers, waits);
    if (job != NULL)
        job->is_done = true;
    return job != NULL;
}

bool mpo_encoder_is_done(struct mpo_encoder *encoder, int32_t slot)
{
    const struct job *job = &encoder->job[slot];
    while (!job->is_done && take_job(encoder, false))
        ;
    return job->is_under_way && job->is_done;
}

int64_t mpo_encoder_number(const struct mpo_encoder *encoder, int32_t slot)
{
    return encoder->job[slot].number;
}

enum mpo_status mpo_encoder_take(struct mpo_encoder *encoder, int32_t slot, int32_t *length)
{
    enum mpo_status status = MPO_OK;
    struct job *job = &encoder->job[slot];
    MPO_CHECK(job->is_under_way, MPO_ERR_INTERNAL,
              "prompt slot %d, of which nothing is encoded", slot);
    while (!job->is_done && take_job(encoder, true))
        ;
    job->is_under_way = false;
    mpo_encoder_prompt_free(&job->prompt);
    memcpy(length, job->length, (size_t)encoder->spec.policy_count * sizeof *length);
    MPO_TRY(mpo_failure_raise(&job->failure));
cleanup:
    return status;
}
