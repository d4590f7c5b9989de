/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The provenance of a record: versions, the whole configuration, all ranks and models.
 */
#include "provenance.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "build_info.h"
#include "plan.h"

#define ATTRIBUTE_COUNT 19
#define VALUE_BYTES     4096

/* All memory that mpo_record_spec borrows until the record is created. */
struct provenance {
    const char **objective; /* [H] names, objectives first */
    const char **prompt;    /* [prompt count] */
    double *scale;          /* [K] */
    const struct mpo_record_rewards *rewards;
    char *config_text;
    struct mpo_record_rank *own; /* [rows_per_rank] */
    struct mpo_record_rank *all; /* [W * rows_per_rank], rank zero only */
    int32_t rows_per_rank;
    int32_t rank_count; /* rows in all that name a policy */
    struct mpo_record_attribute attribute[ATTRIBUTE_COUNT];
    char value[ATTRIBUTE_COUNT][VALUE_BYTES];
    int32_t attribute_count;
    char run_id[64];
    char created_utc[32];
};

static void add_attribute(struct provenance *provenance, const char *name,
                          const char *value)
{
    int32_t at = provenance->attribute_count++;
    snprintf(provenance->value[at], VALUE_BYTES, "%s", value);
    provenance->attribute[at] = (struct mpo_record_attribute){name, provenance->value[at]};
}

static void hash_text(const char *text, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    unsigned int bytes = 0;
    hex[0] = '\0';
    if (EVP_Digest(text, strlen(text), digest, &bytes, EVP_sha256(), NULL) != 1)
        return;
    mpo_text_hex(digest, bytes < 32 ? bytes : 32, hex);
}

static const char *environment_value(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

static void describe_run(struct provenance *provenance, const struct mpo_session *session,
                         const char *command_line)
{
    char text[VALUE_BYTES] = "";
    add_attribute(provenance, "version", MPO_VERSION);
    add_attribute(provenance, "git_commit", MPO_GIT_COMMIT);
    add_attribute(provenance, "cmdline", command_line);
    hash_text(provenance->config_text, text);
    add_attribute(provenance, "config_sha256", text);
    snprintf(text, sizeof text, "%lld", (long long)session->config->run.seed);
    add_attribute(provenance, "seed", text);
    mpo_session_prompts_hash(session, text);
    add_attribute(provenance, MPO_PROMPTS_HASH_ATTRIBUTE, text);
    add_attribute(provenance, "slurm_job_id", environment_value("SLURM_JOB_ID"));
    mpo_comm_library_version(text, sizeof text);
    add_attribute(provenance, "mpi", text);
    mpo_exchange_library_version(text, sizeof text);
    add_attribute(provenance, "nccl", text);
    mpo_device_library_version(text, sizeof text);
    add_attribute(provenance, "cuda", text);
    add_attribute(provenance, "hdf5", mpo_record_library_version());
    add_attribute(provenance, "llama", mpo_policy_engine_version());
    add_attribute(provenance, "compiler", MPO_COMPILER);
    add_attribute(provenance, "exchange", mpo_exchange_transport(session->exchange));
    add_attribute(provenance, "exchange_pattern",
                  mpo_pattern_name(mpo_exchange_pattern(session->exchange)));
    add_attribute(provenance, "exchange_rows",
                  mpo_row_type_name(session->config->exchange.rows));
    snprintf(text, sizeof text, "%d", mpo_comm_size(session->comm));
    add_attribute(provenance, "ranks", text);
    snprintf(text, sizeof text, "%d", mpo_comm_group_size(session->comm));
    add_attribute(provenance, "ranks_per_group", text);
}

void mpo_session_prompts_hash(const struct mpo_session *session,
                              char text[MPO_TEXT_HASH_BYTES])
{
    mpo_text_hash(mpo_prompts_hash(session->prompts), text);
}

const char *mpo_session_adapter_sha256(const struct mpo_policy_info *info)
{
    return info->lora[0] == '\0' && info->sha256[0] != '\0' ? "none" : info->lora_sha256;
}

static void format_utc(char *text, size_t bytes)
{
    time_t now = time(NULL);
    struct tm utc = {0};
    gmtime_r(&now, &utc);
    strftime(text, bytes, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* A random name for the run, different for every run of a configuration. */
static void name_run(struct provenance *provenance)
{
    FILE *file = fopen("/proc/sys/kernel/random/uuid", "r");
    if (file == NULL || fgets(provenance->run_id, 37, file) == NULL)
        snprintf(provenance->run_id, sizeof provenance->run_id, "%lld-%ld",
                 (long long)time(NULL), (long)getpid());
    if (file != NULL)
        fclose(file);
    format_utc(provenance->created_utc, sizeof provenance->created_utc);
}

static void describe_policy(const struct mpo_session *session, int32_t index,
                            struct mpo_record_rank *row)
{
    struct mpo_policy_info info = {0};
    mpo_policies_describe(session->policies, index, &info);
    row->rank = mpo_comm_rank(session->comm);
    row->local_rank = mpo_comm_local_rank(session->comm);
    row->threads = session->thread_count;
    gethostname(row->host, sizeof row->host - 1);
    snprintf(row->device, sizeof row->device, "%s", session->device.kind);
    snprintf(row->gpu_uuid, sizeof row->gpu_uuid, "%s", session->device.uuid);
    snprintf(row->policy, sizeof row->policy, "%s", info.name);
    snprintf(row->model, sizeof row->model, "%s%s%s", info.model,
             info.lora[0] != '\0' ? " + " : "", info.lora);
    snprintf(row->sha256, sizeof row->sha256, "%s", info.sha256);
    snprintf(row->lora_sha256, sizeof row->lora_sha256, "%s",
             mpo_session_adapter_sha256(&info));
    mpo_text_hash(info.vocab_hash, row->vocabulary);
}

/* All groups must host the same models: one hash per policy. Each group has a row for each
 * policy, in order. */
static enum mpo_status compare_groups(const struct provenance *provenance,
                                      int32_t policy_count)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = policy_count; i < provenance->rank_count; i++) {
        const struct mpo_record_rank *a = &provenance->all[i % policy_count];
        const struct mpo_record_rank *b = &provenance->all[i];
        MPO_CHECK(strcmp(a->sha256, b->sha256) == 0 &&
                      strcmp(a->lora_sha256, b->lora_sha256) == 0,
                  MPO_ERR_DATA,
                  "policy '%s' on rank %d (%s) is not the same model as on rank %d (%s); "
                  "check its path on each host",
                  b->policy, b->rank, b->model, a->rank, a->model);
    }
cleanup:
    return status;
}

static enum mpo_status allocate_provenance(const struct mpo_session *session,
                                           struct provenance **out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = session->comm;
    int32_t first = 0;
    MPO_NEW(1, out);
    mpo_placement_block(&session->placement, 0, &first, &(*out)->rows_per_rank);
    MPO_NEW((*out)->rows_per_rank, &(*out)->own);
    if (mpo_comm_rank(comm) == 0)
        MPO_NEW(mpo_comm_size(comm) * (*out)->rows_per_rank, &(*out)->all);
cleanup:
    return status;
}

/* One row per policy and rank, on rank zero. */
static enum mpo_status gather_ranks(struct provenance *provenance,
                                    const struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = session->comm;
    int32_t total = mpo_comm_size(comm) * provenance->rows_per_rank;
    int32_t own = mpo_policies_local_count(session->policies);
    if (mpo_plan_blends(session->config))
        own--; /* what is drawn from is no file of its own */
    for (int32_t i = 0; i < own; i++)
        describe_policy(session, i, &provenance->own[i]);
    MPO_TRY(mpo_comm_gather(comm, provenance->own,
                            (size_t)provenance->rows_per_rank * sizeof *provenance->own,
                            provenance->all));
    for (int32_t i = 0; provenance->all != NULL && i < total; i++)
        if (provenance->all[i].policy[0] != '\0')
            provenance->all[provenance->rank_count++] = provenance->all[i];
cleanup:
    return status;
}

static enum mpo_status name_things(struct provenance *provenance,
                                   const struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    int64_t prompt_count = mpo_prompts_count(session->prompts);
    MPO_NEW(session->config->policy_count, &provenance->objective);
    MPO_NEW(prompt_count, &provenance->prompt);
    MPO_NEW(session->config->objective_count, &provenance->scale);
    for (int32_t k = 0; k < session->config->objective_count; k++)
        provenance->scale[k] = session->config->policies[k].scale;
    for (int32_t h = 0; h < session->config->policy_count; h++)
        provenance->objective[h] = session->config->policies[h].name;
    for (int64_t i = 0; i < prompt_count; i++)
        provenance->prompt[i] = mpo_prompts_get(session->prompts, i)->text;
    MPO_TRY(mpo_config_print(session->config, &provenance->config_text));
cleanup:
    return status;
}

static enum mpo_status create_record(const struct mpo_session *session,
                                     const struct provenance *provenance,
                                     struct mpo_record_writer **out)
{
    struct mpo_record_spec spec = {
        .path = session->config->record.file,
        .force = session->config->fit.force,
        .objective = provenance->objective,
        .policy = provenance->objective,
        .objective_count = session->config->objective_count,
        .policy_count = session->config->policy_count,
        .prompt = provenance->prompt,
        .prompt_count = mpo_prompts_count(session->prompts),
        .config_text = provenance->config_text,
        .attribute = provenance->attribute,
        .attribute_count = provenance->attribute_count,
        .rank = provenance->all,
        .rank_count = provenance->rank_count,
        .target = mpo_target_name(session->config->estimator.target),
        .average = mpo_averaging_name(session->config->descent.average),
        .strength = session->config->rollout.strength,
        .scale = provenance->scale,
        .rewards = provenance->rewards,
        .run_id = provenance->run_id,
        .created_utc = provenance->created_utc,
        .git_commit = MPO_GIT_COMMIT,
        .job_id = environment_value("SLURM_JOB_ID"),
    };
    return mpo_record_create(&spec, out);
}

/* {"step": 12, "time": "...", "key": "rewards.command", "was": "...", "is": "..."} */
static enum mpo_status write_note(const struct mpo_session_change *change,
                                  int64_t step_count, const char *time, char **line)
{
    enum mpo_status status = MPO_OK;
    json_t *note =
        json_pack("{s:I, s:s, s:s, s:s, s:s}", "step", (json_int_t)step_count, "time", time,
                  "key", change->key, "was", change->was, "is", change->is);
    *line = note != NULL ? json_dumps(note, JSON_COMPACT) : NULL;
    MPO_CHECK(*line != NULL, MPO_ERR_MEMORY, "no memory to note a change of %s",
              change->key);
cleanup:
    json_decref(note);
    return status;
}

/* Append to the record after its last step; its provenance stays that of its start. */
static enum mpo_status resume_record(const struct mpo_session *session, int64_t step_count,
                                     const struct mpo_session_change *change,
                                     struct mpo_record_writer **out)
{
    enum mpo_status status = MPO_OK;
    char start_utc[32] = "";
    char *note = NULL;
    format_utc(start_utc, sizeof start_utc);
    if (change != NULL)
        MPO_TRY(write_note(change, step_count, start_utc, &note));
    struct mpo_record_segment segment = {
        .git_commit = MPO_GIT_COMMIT,
        .job_id = environment_value("SLURM_JOB_ID"),
        .start_utc = start_utc,
        .note = note,
    };
    MPO_TRY(mpo_record_resume(session->config->record.file, &segment, step_count, out));
cleanup:
    free(note);
    return status;
}

/* The key's value in one line, owned; NULL where the line is no note of the key. */
static char *read_note(const char *line, size_t bytes, const char *key)
{
    json_t *note = json_loadb(line, bytes, 0, NULL);
    const char *named = json_string_value(json_object_get(note, "key"));
    const char *is = json_string_value(json_object_get(note, "is"));
    char *copy = named != NULL && is != NULL && strcmp(named, key) == 0 ? strdup(is) : NULL;
    json_decref(note);
    return copy;
}

enum mpo_status mpo_session_find_change(const struct mpo_record *record, const char *key,
                                        char **is)
{
    enum mpo_status status = MPO_OK;
    char *notes = NULL;
    *is = NULL;
    MPO_TRY(mpo_record_read_notes(record, &notes));
    for (const char *line = notes; *line != '\0';) {
        size_t bytes = strcspn(line, "\n");
        char *later = read_note(line, bytes, key);
        if (later != NULL) {
            free(*is);
            *is = later;
        }
        line += bytes + (line[bytes] == '\n');
    }
cleanup:
    free(notes);
    return status;
}

static enum mpo_status describe_all(const struct mpo_session *session,
                                    const char *command_line, struct provenance *provenance)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(gather_ranks(provenance, session));
    if (mpo_comm_rank(session->comm) != 0)
        goto cleanup;
    MPO_TRY(compare_groups(provenance, session->config->policy_count));
    MPO_TRY(name_things(provenance, session));
    name_run(provenance);
    describe_run(provenance, session, command_line);
cleanup:
    return status;
}

static enum mpo_status describe_and_create(const struct mpo_session *session,
                                           const char *command_line,
                                           struct provenance *provenance,
                                           struct mpo_record_writer **out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(describe_all(session, command_line != NULL ? command_line : "", provenance));
    if (mpo_comm_rank(session->comm) == 0)
        MPO_TRY(create_record(session, provenance, out));
cleanup:
    return status;
}

enum mpo_status mpo_session_create_record(const struct mpo_session *session,
                                          const char *command_line,
                                          const struct mpo_record_rewards *rewards,
                                          struct mpo_record_writer **out)
{
    struct provenance *provenance = NULL;
    enum mpo_status status = mpo_comm_agree(allocate_provenance(session, &provenance));
    if (provenance != NULL)
        provenance->rewards = rewards;
    if (status == MPO_OK)
        status =
            mpo_comm_agree(describe_and_create(session, command_line, provenance, out));
    if (provenance != NULL) {
        free(provenance->config_text);
        free(provenance->all);
        free(provenance->own);
        free(provenance->scale);
        free(provenance->prompt);
        free(provenance->objective);
    }
    free(provenance);
    return status;
}

enum mpo_status mpo_session_resume_record(const struct mpo_session *session,
                                          int64_t step_count,
                                          const struct mpo_session_change *change,
                                          struct mpo_record_writer **out)
{
    bool is_rank_zero = mpo_comm_rank(session->comm) == 0;
    return mpo_comm_agree(is_rank_zero ? resume_record(session, step_count, change, out)
                                       : MPO_OK);
}
