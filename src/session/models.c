/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only rank zero reads the record, because other ranks may not see its file system. Its
 * description of the models goes to all ranks, and each compares it with the models that it
 * hosts.
 */
#include "models.h"

#include <string.h>

#include "base/text.h"
#include "provenance.h"

enum mpo_status mpo_models_read(const struct mpo_config *config, struct mpo_record *record,
                                struct mpo_models *models)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_record_read_ranks(record, &models->rank, &models->count));
    for (int32_t i = 0; i < models->count; i++)
        if (!config->record.hash_models)
            models->rank[i].sha256[0] = models->rank[i].lora_sha256[0] = '\0';
cleanup:
    return status;
}

/* A hash that one side does not know matches every hash. */
static bool may_be_same(const char *a, const char *b)
{
    return a[0] == '\0' || b[0] == '\0' || strcmp(a, b) == 0;
}

/* Compare a policy with the record's. */
static enum mpo_status compare_model(const struct mpo_policy_info *info,
                                     const struct mpo_models *models,
                                     const struct mpo_record_rank *rank)
{
    enum mpo_status status = MPO_OK;
    char vocabulary[MPO_TEXT_HASH_BYTES] = "";
    const char *adapter = mpo_session_adapter_sha256(info);
    mpo_text_hash(info->vocab_hash, vocabulary);
    MPO_CHECK(
        may_be_same(rank->vocabulary, vocabulary), MPO_ERR_DATA,
        "%s: expected the vocabulary (%s) of '%s' in %s, found a different one (%s); %s",
        info->model, rank->vocabulary, info->name, models->path, vocabulary,
        models->remedy);
    MPO_CHECK(may_be_same(rank->sha256, info->sha256), MPO_ERR_DATA,
              "%s: expected the model (SHA-256 %.12s...) of '%s' in %s, found a different "
              "one (%.12s...); %s",
              info->model, rank->sha256, info->name, models->path, info->sha256,
              models->remedy);
    MPO_CHECK(may_be_same(rank->lora_sha256, adapter), MPO_ERR_DATA,
              "%s: expected the adapter (SHA-256 %.12s) of '%s' in %s, found a different "
              "one (%.12s); %s",
              info->lora[0] != '\0' ? info->lora : info->model, rank->lora_sha256,
              info->name, models->path, adapter, models->remedy);
cleanup:
    return status;
}

static int32_t count_models(const struct mpo_session *session)
{
    if (session->policies != NULL)
        return mpo_policies_local_count(session->policies);
    return session->survey != NULL ? session->survey->local_count : 0;
}

/* A model of this rank, as it was opened or surveyed. @return false: it was not loaded */
static bool describe_model(const struct mpo_session *session, int32_t index,
                           struct mpo_policy_info *out)
{
    if (session->policies != NULL) {
        mpo_policies_describe(session->policies, index, out);
        return true;
    }
    const struct mpo_policy_survey *one = &session->survey->local[index];
    const struct mpo_policy_spec *spec = &session->hosted[one->policy];
    *out = (struct mpo_policy_info){.name = spec->name,
                                    .model = spec->model,
                                    .lora = spec->lora,
                                    .sha256 = one->sha256,
                                    .lora_sha256 = one->lora_sha256,
                                    .vocab_hash = one->vocab_hash};
    return one->load.status == MPO_OK;
}

/* Compare a policy with what the record has of its name. */
static enum mpo_status compare_policy(const struct mpo_policy_info *info,
                                      const struct mpo_models *models)
{
    enum mpo_status status = MPO_OK;
    for (int32_t j = 0; j < models->count; j++)
        if (strcmp(models->rank[j].policy, info->name) == 0)
            MPO_TRY(compare_model(info, models, &models->rank[j]));
cleanup:
    return status;
}

/* Where blends alone are hosted: they have the base model and the adapters of all, so what
 * belongs to each policy is read from its files. */
static enum mpo_status compare_adapters(const struct mpo_session *session,
                                        const struct mpo_policy_info *blend,
                                        const struct mpo_models *models)
{
    enum mpo_status status = MPO_OK;
    for (int32_t h = 0; h < session->config->policy_count; h++) {
        const struct mpo_policy_spec *spec = &session->policy_specs[h];
        const struct mpo_texts *lora = &session->config->policies[h].lora;
        char hash[65] = "";
        struct mpo_policy_info info = *blend;
        if (blend->sha256[0] != '\0' && lora->count > 0)
            MPO_TRY(mpo_policies_hash_adapters((const char *const *)lora->text, lora->count,
                                               hash));
        info.name = spec->name;
        info.lora = spec->lora;
        info.lora_sha256 = hash;
        MPO_TRY(compare_policy(&info, models));
    }
cleanup:
    return status;
}

/* Compare the models of this rank with those that the weights were found for. */
static enum mpo_status compare_models(const struct mpo_session *session,
                                      const struct mpo_models *models)
{
    enum mpo_status status = MPO_OK;
    bool has_blends_alone = session->size.machine.blends > 0;
    int32_t count = count_models(session);
    for (int32_t i = 0; i < (has_blends_alone && count > 1 ? 1 : count); i++) {
        struct mpo_policy_info info = {0};
        if (!describe_model(session, i, &info))
            continue;
        MPO_TRY(has_blends_alone ? compare_adapters(session, &info, models)
                                 : compare_policy(&info, models));
    }
cleanup:
    return status;
}

enum mpo_status mpo_models_compare(const struct mpo_session *session,
                                   struct mpo_models *models)
{
    enum mpo_status status =
        mpo_comm_broadcast(session->comm, &models->count, sizeof models->count, 0);
    if (status == MPO_OK && models->rank == NULL)
        status = mpo_memory_take((size_t)models->count, sizeof *models->rank, "models",
                                 (void **)&models->rank);
    status = mpo_comm_agree(status);
    if (status == MPO_OK)
        status = mpo_comm_broadcast(session->comm, models->rank,
                                    (size_t)models->count * sizeof *models->rank, 0);
    if (status == MPO_OK)
        status = mpo_comm_agree(compare_models(session, models));
    return status;
}
