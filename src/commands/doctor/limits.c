/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of the process (ulimit) against what fit takes of them: memory that it writes to,
 * and what it takes beside it and hardly uses, which counts all the same.
 *
 *     ulimit -v    memory, what models' files are mapped to, and for each thread of the
 *                  engine a stack (an arena of malloc, too, but malloc does without)
 *     ulimit -d    the same without mapped files
 *     ulimit -f    the record (src/record/extent.c)
 *
 * A stack that is too small (ulimit -s) ends every command before it begins
 * (src/main.c).
 */
#include "doctor_impl.h"

/* What fit takes that no policy needs: arrays of a step, the record's chunks and HDF5's
 * caches of them. Seen are 3 MB. */
#define FIT_BYTES ((uint64_t)6 << 20)

/* The same of serve: events between its threads, and requests that wait. Seen are 9 MB. */
#define SERVE_BYTES ((uint64_t)16 << 20)

/* Bytes of text that a token stands for at most, in a model's usual texts. */
#define TOKEN_TEXT_BYTES 8

/* Arrays of a step that grow with its responses. */
static uint64_t step_bytes(const struct mpo_config *config)
{
    uint64_t responses =
        (uint64_t)(config->rollout.prompts_per_step * config->rollout.responses);
    return responses * (uint64_t)config->rollout.max_tokens * sizeof(int32_t);
}

/* Of this rank's policies beside what they need. */
struct beside {
    uint64_t unused_bytes;
    uint64_t mapped_bytes; /* of weights, which libllama maps unless it repacks them */
    uint64_t thread_count; /* that the process has not started yet */
};

static struct beside sum_policies(const struct doctor *doctor)
{
    struct beside sum = {0};
    for (int32_t i = 0; i < doctor->survey.local_count; i++) {
        const struct mpo_policy_need *need = &doctor->survey.local[i].need;
        sum.unused_bytes += need->unused_bytes;
        if (need->has_threads)
            sum.thread_count = (uint64_t)doctor->own.thread_count - 1;
        if (need->model_file[1] != 0)
            sum.mapped_bytes = doctor->own.needs.weights_bytes;
    }
    return sum;
}

static void examine_address_space(struct doctor *doctor, const struct beside *beside,
                                  uint64_t needed)
{
    const struct mpo_host *host = &doctor->own.host;
    needed += beside->thread_count * host->stack_bytes;
    if (needed > host->address_free_bytes)
        doctor_note(doctor, DOCTOR_memory, DOCTOR_PROBLEM, MPO_ERR_MEMORY,
                    "a rank needs %llu MB more address space, but ulimit -v leaves %llu "
                    "MB; raise the limit",
                    mpo_text_megabytes_up(needed),
                    mpo_text_megabytes(host->address_free_bytes));
}

static void examine_data(struct doctor *doctor, const struct beside *beside,
                         uint64_t needed)
{
    const struct mpo_host *host = &doctor->own.host;
    needed += beside->thread_count * host->stack_bytes;
    uint64_t least = needed - beside->mapped_bytes;
    if (least > host->data_free_bytes)
        doctor_note(doctor, DOCTOR_memory, DOCTOR_PROBLEM, MPO_ERR_MEMORY,
                    "a rank needs %llu MB more, but ulimit -d leaves %llu MB; raise the "
                    "limit",
                    mpo_text_megabytes_up(least),
                    mpo_text_megabytes(host->data_free_bytes));
    else if (needed > host->data_free_bytes)
        doctor_note(doctor, DOCTOR_memory, DOCTOR_WARNING, MPO_OK,
                    "a rank needs %llu MB more if libllama maps the weights, but %llu MB "
                    "if it repacks them, and ulimit -d leaves %llu MB",
                    mpo_text_megabytes_up(least), mpo_text_megabytes_up(needed),
                    mpo_text_megabytes(host->data_free_bytes));
}

/* Only rank zero writes. */
static void examine_file_size(struct doctor *doctor)
{
    const struct mpo_config *config = doctor->config;
    const uint64_t limit = doctor->own.host.file_bytes;
    bool keeps = config->record.responses;
    struct mpo_record_extent extent = {
        .steps = config->descent.steps,
        .step_responses =
            keeps ? config->rollout.prompts_per_step * config->rollout.responses : 0,
        .response_tokens = 1,
        .objective_count = config->objective_count,
        .policy_count = config->policy_count,
        .has_rewards = config->rewards.command[0] != '\0',
    };
    uint64_t least = mpo_record_bytes(&extent);
    extent.response_tokens = config->rollout.max_tokens;
    extent.response_bytes = TOKEN_TEXT_BYTES * config->rollout.max_tokens;
    uint64_t most = mpo_record_bytes(&extent);
    if (least > limit)
        doctor_note(doctor, DOCTOR_record, DOCTOR_PROBLEM, MPO_ERR_MEMORY,
                    "%lld steps take %llu kB of %s or more, but a file may have %llu kB; "
                    "raise the limit of file sizes (ulimit -f)",
                    (long long)extent.steps, (unsigned long long)least >> 10,
                    config->record.file, (unsigned long long)limit >> 10);
    else if (most > limit)
        doctor_note(doctor, DOCTOR_record, DOCTOR_WARNING, MPO_OK,
                    "%lld steps take up to %llu kB of %s, and a file may have %llu kB; "
                    "raise the limit of file sizes (ulimit -f), or leave responses out "
                    "(record.responses: false)",
                    (long long)extent.steps, (unsigned long long)most >> 10,
                    config->record.file, (unsigned long long)limit >> 10);
}

void doctor_examine_limits(struct doctor *doctor)
{
    struct beside beside = sum_policies(doctor);
    uint64_t needed =
        mpo_needs_to_take(&doctor->own.needs) + beside.unused_bytes +
        (doctor->serves ? SERVE_BYTES : FIT_BYTES + step_bytes(doctor->config));
    examine_address_space(doctor, &beside, needed);
    examine_data(doctor, &beside, needed);
    if (mpo_comm_job_rank() == 0 && !doctor->serves)
        examine_file_size(doctor);
}
