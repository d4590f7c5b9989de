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
#include "mpo/backend/policy_ops.h"
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
};

/* ---- the record ---- */

/* A path of the record, where it is found; owned. */
static enum mpo_status find_file(const char *folder, char **path)
{
    enum mpo_status status = MPO_OK;
    char moved[2 * PATH_MAX];
    char *found = NULL;
    snprintf(moved, sizeof moved, "%s%s", folder, *path);
    if (**path == '\0' || access(*path, F_OK) == 0 || access(moved, F_OK) != 0)
        return MPO_OK;
    MPO_TRY(mpo_memory_copy_text(moved, &found));
    free(*path);
    *path = found;
cleanup:
    return status;
}

static enum mpo_status find_files(struct exported *to)
{
    enum mpo_status status = MPO_OK;
    char folder[PATH_MAX];
    mpo_differences_find_folder(to->path, to->recorded, folder);
    for (int32_t h = 0; h < to->recorded->policy_count; h++) {
        struct mpo_config_policies *policy = &to->recorded->policies[h];
        MPO_TRY(find_file(folder, &policy->model));
        for (int32_t i = 0; i < policy->lora.count; i++)
            MPO_TRY(find_file(folder, &policy->lora.text[i]));
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

/* ---- the files ---- */

/* As a record has it: of one adapter its hash, of several that of their hashes. */
static enum mpo_status hash_adapters(const struct mpo_policy_spec *spec, char hex[65])
{
    enum mpo_status status = MPO_OK;
    char text[MPO_POLICY_ADAPTER_COUNT_MAX * 65 + 1];
    size_t length = 0;
    MPO_TRY(mpo_policy_file_sha256(spec->lora, hex));
    if (spec->more_count == 0)
        return MPO_OK;
    length += (size_t)snprintf(text, sizeof text, "%s\n", hex);
    for (int32_t i = 0; i < spec->more_count && length < sizeof text; i++) {
        MPO_TRY(mpo_policy_file_sha256(spec->more[i].path, hex));
        length += (size_t)snprintf(text + length, sizeof text - length, "%s\n", hex);
    }
    MPO_TRY(mpo_policy_text_sha256(text, hex));
cleanup:
    return status;
}

static enum mpo_status check_adapters(const struct exported *to)
{
    enum mpo_status status = MPO_OK;
    char hex[65] = "";
    for (int32_t h = 0; h < to->recorded->policy_count; h++) {
        const struct mpo_policy_spec *spec = &to->session->policy_specs[h];
        const char *stored = "";
        for (int32_t i = 0; i < to->rank_count; i++)
            if (strcmp(to->rank[i].policy, spec->name) == 0)
                stored = to->rank[i].lora_sha256;
        if (spec->lora[0] == '\0')
            continue;
        MPO_TRY(hash_adapters(spec, hex));
        MPO_CHECK(stored[0] == '\0' || strcmp(stored, hex) == 0, MPO_ERR_DATA,
                  "%s: expected the adapter (SHA-256 %.12s...) of '%s' in %s, found a "
                  "different one (%.12s...); restore it, or fit again",
                  spec->lora, stored, spec->name, to->path, hex);
    }
cleanup:
    return status;
}

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

/* ---- the command ---- */

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
    MPO_TRY(check_adapters(to));
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
