/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export: the weights of a record of adapters as one adapter, for programs that know nothing of
 * weights. The record says which files its policies had and, by their hashes, whether these are
 * the ones; scales follow from weights as in a fit (session/blend.h).
 */
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "commands/report/log.h"
#include "commands/report/output.h"
#include "session/differences.h"
#include "session/weights.h"

#define SUFFIX     ".h5"
#define NEW_SUFFIX ".gguf"

struct exported {
    struct mpo_config *options;
    struct mpo_config *recorded; /* the configuration of the fit */
    const char *path;            /* of the record */
    char output[PATH_MAX];
    struct mpo_session *session;
    double *mu; /* [H] */
    struct mpo_record_rank *rank;
    int32_t rank_count;
    int64_t lora_rank;
    char hashed[2 * PATH_MAX]; /* a model, and its hash */
    char sha256[65];
};

/* ---- the record and its files ---- */

/* Files of one policy of the record. */
struct files {
    const char *policy;
    const char *kind; /* for messages: "model" */
    char **path;      /* [count] owned by the configuration */
    int32_t count;
    const char *sha256; /* as the record has it; "" where it has none */
};

/* Where a relative path is, if it is in neither folder as written. Owned by the caller. */
static enum mpo_status find_file(const char *first, const char *second, const char *path,
                                 char **out)
{
    enum mpo_status status = MPO_OK;
    const char *folder[] = {first, second};
    char found[2 * PATH_MAX];
    snprintf(found, sizeof found, "%s", path);
    for (int i = 0; i < 2 && *path != '/'; i++) {
        snprintf(found, sizeof found, "%s%s", folder[i], path);
        if (access(found, F_OK) == 0)
            break;
        snprintf(found, sizeof found, "%s", path);
    }
    MPO_TRY(mpo_memory_copy_text(found, out));
cleanup:
    return status;
}

/* Policies of one base name one file, which is large. */
static enum mpo_status hash_model(struct exported *to, const char *policy, const char *path,
                                  char hex[65])
{
    enum mpo_status status = MPO_OK;
    if (strcmp(path, to->hashed) != 0)
        MPO_TRY(mpo_policies_hash_model(policy, path, to->sha256));
    snprintf(to->hashed, sizeof to->hashed, "%s", path);
    memcpy(hex, to->sha256, sizeof to->sha256);
cleanup:
    return status;
}

/* The files in the working directory, else where the record was written, or, where those are
 * others, the other way round. The paths become theirs. */
static enum mpo_status take_files(struct exported *to, const char *folder, struct files *of)
{
    enum mpo_status status = MPO_OK;
    char *found[MPO_POLICY_ADAPTER_COUNT_MAX] = {NULL};
    const char *place[] = {"", folder, ""};
    char hex[65] = "";
    char other[65] = ""; /* of the first place */
    bool is_same = false;
    for (int p = 0; p < 2 && !is_same; p++) {
        for (int32_t i = 0; i < of->count; i++) {
            free(found[i]);
            found[i] = NULL;
            MPO_TRY(find_file(place[p], place[p + 1], of->path[i], &found[i]));
        }
        if (of->sha256[0] != '\0' && strcmp(of->kind, "model") == 0)
            MPO_TRY(hash_model(to, of->policy, found[0], hex));
        else if (of->sha256[0] != '\0')
            MPO_TRY(mpo_policies_hash_adapters((const char *const *)found, of->count, hex));
        is_same = strcmp(hex, of->sha256) == 0;
        if (p == 0)
            memcpy(other, hex, sizeof other);
    }
    MPO_CHECK(is_same, MPO_ERR_DATA,
              "%s: expected the %s (SHA-256 %.12s...) of '%s' in %s, found a different one "
              "(%.12s...); restore it, or fit again",
              of->path[0], of->kind, of->sha256, of->policy, to->path, other);
    for (int32_t i = 0; i < of->count; i++) {
        free(of->path[i]);
        of->path[i] = found[i];
        found[i] = NULL;
    }
cleanup:
    for (int32_t i = 0; i < of->count; i++)
        free(found[i]);
    return status;
}

static enum mpo_status find_files(struct exported *to)
{
    enum mpo_status status = MPO_OK;
    char folder[PATH_MAX];
    mpo_differences_find_folder(to->path, to->recorded, folder);
    for (int32_t h = 0; h < to->recorded->policy_count; h++) {
        struct mpo_config_policies *policy = &to->recorded->policies[h];
        struct files model = {policy->name, "model", &policy->model, 1, ""};
        struct files lora = {policy->name, "adapter", policy->lora.text, policy->lora.count,
                             ""};
        for (int32_t i = 0; i < to->rank_count; i++)
            if (strcmp(to->rank[i].policy, policy->name) == 0) {
                model.sha256 = to->rank[i].sha256;
                lora.sha256 = to->rank[i].lora_sha256;
            }
        MPO_TRY(take_files(to, folder, &model));
        if (lora.count > 0)
            MPO_TRY(take_files(to, folder, &lora));
    }
cleanup:
    return status;
}

static enum mpo_status read_record(struct exported *to)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    MPO_TRY(mpo_record_open(to->path, &record));
    MPO_TRY(mpo_differences_read(record, to->path, &to->recorded));
    MPO_CHECK(to->recorded->rollout.mixture == MPO_MIXING_ADAPTERS, MPO_ERR_DATA,
              "%s: expected a record of rollout.mixture: adapters, found logits; a mixture "
              "of logits is no adapter, serve it with mpo serve",
              to->path);
    to->recorded->objective_count = mpo_record_objective_count(record);
    MPO_TRY(mpo_record_read_ranks(record, &to->rank, &to->rank_count));
    MPO_TRY(find_files(to));
cleanup:
    mpo_record_close(&record);
    return status;
}

/* ---- the command ---- */

/* Scales of all adapters; those of 0 take no part. @return how many do */
static int32_t choose_scales(const struct exported *to, struct mpo_policy_adapter *adapter)
{
    const struct mpo_rollout_blend *blend = &to->session->blend;
    const int32_t policies = to->recorded->policy_count;
    int32_t count = 0;
    for (int32_t i = 0; i < blend->adapter_count; i++) {
        double scale = mpo_rollout_blend_scale(blend, policies, to->mu, i);
        if (scale != 0.0)
            adapter[count++] =
                (struct mpo_policy_adapter){to->session->blended[i].path, scale};
    }
    return count;
}

static enum mpo_status open_export(struct exported *to)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_export *options = &to->options->export;
    const struct mpo_session_size size = {.unit_prompts = 1, .responses = 1};
    const struct mpo_weights_choice choice = {to->path, options->iterate,  options->step,
                                              false,    options->strength, "export",
                                              false};
    size_t stem = strlen(to->path);
    if (stem > strlen(SUFFIX) && strcmp(to->path + stem - strlen(SUFFIX), SUFFIX) == 0)
        stem -= strlen(SUFFIX);
    snprintf(to->output, sizeof to->output, "%s", options->output);
    if (*options->output == '\0')
        snprintf(to->output, sizeof to->output, "%.*s%s", (int)stem, to->path, NEW_SUFFIX);
    MPO_TRY(read_record(to));
    MPO_TRY(mpo_session_make("export", to->recorded, &size, &to->session));
    MPO_TRY(mpo_session_open_groups(to->session, 1));
    MPO_TRY(mpo_session_describe_policies(to->session));
    MPO_TRY(mpo_weights_open(to->session, &choice, &to->mu));
cleanup:
    return status;
}

static enum mpo_status print_export(const struct exported *to,
                                    const struct mpo_policy_adapter *adapter, int32_t count)
{
    enum mpo_status status = MPO_OK;
    const char *model = to->recorded->policies[0].model;
    json_t *list = json_array();
    for (int32_t i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:o, s:o}", "lora", output_text(adapter[i].path),
                                        "scale", output_number(adapter[i].scale)));
    if (to->options->export.format == MPO_REPORT_JSON) {
        MPO_TRY(output_json(json_pack(
            "{s:o, s:o, s:I, s:O}", "adapter", output_text(to->output), "model",
            output_text(model), "rank", (json_int_t)to->lora_rank, "adapters", list)));
    } else {
        printf("adapter        %s, of rank %lld\nfor            %s\n", to->output,
               (long long)to->lora_rank, model);
        for (int32_t i = 0; i < count; i++)
            printf("%-14s %.6f x %s\n", i == 0 ? "made of" : "", adapter[i].scale,
                   adapter[i].path);
    }
    MPO_TRY(output_flush());
cleanup:
    json_decref(list);
    return status;
}

static enum mpo_status write_export(struct exported *to)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_adapter *adapter = NULL;
    MPO_NEW(to->session->blend.adapter_count, &adapter);
    int32_t count = choose_scales(to, adapter);
    MPO_CHECK(count > 0, MPO_ERR_DATA,
              "%s: all adapters have a scale of 0, so nothing is left of them", to->path);
    MPO_TRY(mpo_policies_unite_adapters(adapter, count, to->output, &to->lora_rank));
    MPO_TRY(print_export(to, adapter, count));
cleanup:
    free(adapter);
    return status;
}

enum mpo_status mpo_command_export(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct exported to = {0};
    MPO_TRY(mpo_command_read_record("export", argc, argv, &to.path, &to.options));
    /* mpo_comm_agree reports a failure, and the program prints it again when this returns. */
    struct mpo_reporter log = mpo_report_to((struct mpo_reporter){0});
    status = open_export(&to);
    mpo_report_to(log);
    MPO_TRY(status);
    MPO_TRY(write_export(&to));
cleanup:
    free(to.mu);
    free(to.rank);
    mpo_session_close(&to.session);
    mpo_config_close(&to.recorded);
    mpo_config_close(&to.options);
    return status;
}
