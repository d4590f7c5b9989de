/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies that are adapters of one model: what is drawn from is that model with all of them.
 * The configuration has checked that nothing else differs (config/adapters.c), so this policy
 * has whatever they have in common. It has one place beside them, or, in a machine whose
 * requests draw from several mixtures, one for each of these and the others have none.
 *
 * Two paths are one model if they are one file, or files of one content, as for a record.
 */
#include "blend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "plan.h"

/* Shown by doctor and in messages; users' names have no comma. */
#define BLEND_NAME "all, added"
#define NAME_BYTES 24 /* with a number behind it */

static bool is_same_file(const char *a, const char *b)
{
    struct stat first;
    struct stat second;
    if (strcmp(a, b) == 0)
        return true;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* A file that cannot be read is refused where it is opened. */
static enum mpo_status check_model(const struct mpo_policy_spec *base,
                                   const struct mpo_policy_spec *other)
{
    enum mpo_status status = MPO_OK;
    char a[65] = "";
    char b[65] = "";
    if (is_same_file(base->model, other->model))
        return MPO_OK;
    MPO_TRY(mpo_policies_hash_model(base->name, base->model, a));
    MPO_TRY(mpo_policies_hash_model(other->name, other->model, b));
    MPO_CHECK(strcmp(a, b) == 0, MPO_ERR_DATA,
              "rollout.mixture: adapters needs adapters of one model, but '%s' is of %s "
              "(SHA-256 %.12s...) and '%s' of %s (%.12s...); use rollout.mixture: logits",
              base->name, base->model, a, other->name, other->model, b);
cleanup:
    return status;
}

/* Adapter `index` of a policy. */
static struct mpo_policy_adapter adapter_of(const struct mpo_policy_spec *spec,
                                            int32_t index)
{
    if (index > 0)
        return spec->more[index - 1];
    return (struct mpo_policy_adapter){spec->lora, spec->lora_scale};
}

static int32_t count_adapters(const struct mpo_policy_spec *spec)
{
    return spec->lora[0] != '\0' ? 1 + spec->more_count : 0;
}

/* The place of an adapter among those of all, new ones at the end. */
static int32_t place_of(struct mpo_session *session, const char *path)
{
    int32_t place = 0;
    while (place < session->blend.adapter_count &&
           !is_same_file(session->blended[place].path, path))
        place++;
    if (place == session->blend.adapter_count)
        session->blended[session->blend.adapter_count++] =
            (struct mpo_policy_adapter){path, 1.0};
    return place;
}

static enum mpo_status unite_adapters(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const int32_t policies = session->config->policy_count;
    double *share = NULL;
    int32_t count = 0;
    for (int32_t h = 0; h < policies; h++)
        count += count_adapters(&session->policy_specs[h]);
    MPO_NEW(count, &session->blended);
    MPO_NEW(count * policies, &share);
    session->blend.share = share;
    for (int32_t h = 0; h < policies; h++)
        for (int32_t i = 0; i < count_adapters(&session->policy_specs[h]); i++) {
            struct mpo_policy_adapter adapter = adapter_of(&session->policy_specs[h], i);
            share[place_of(session, adapter.path) * policies + h] += adapter.scale;
        }
cleanup:
    return status;
}

enum mpo_status mpo_session_describe_blends(struct mpo_session *session)
{
    enum mpo_status status = MPO_OK;
    const int32_t policies = session->config->policy_count;
    const int32_t hosted = mpo_plan_policy_count(session->config, &session->size);
    const int32_t first = mpo_plan_first_blend(session->config, &session->size);
    for (int32_t h = 1; h < policies; h++)
        MPO_TRY(check_model(&session->policy_specs[0], &session->policy_specs[h]));
    MPO_TRY(unite_adapters(session));
    MPO_NEW((hosted - first) * NAME_BYTES, &session->blend_names);
    session->hosted = session->policy_specs + (first == 0 ? policies : 0);
    for (int32_t i = first; i < hosted; i++) {
        struct mpo_policy_spec *blend = &session->hosted[i];
        char *name = session->blend_names + (ptrdiff_t)(i - first) * NAME_BYTES;
        *blend = session->policy_specs[0];
        if (hosted - first == 1)
            snprintf(name, NAME_BYTES, BLEND_NAME);
        else
            snprintf(name, NAME_BYTES, BLEND_NAME " %d", i - first + 1);
        blend->name = name;
        blend->lora = session->blended[0].path;
        blend->lora_scale = 1.0;
        blend->more = session->blended + 1;
        blend->more_count = session->blend.adapter_count - 1;
        blend->rescales = true;
    }
    for (int32_t i = 1; i < hosted; i++)
        session->temperature[i] = session->temperature[0];
cleanup:
    return status;
}

enum mpo_status mpo_session_set_blend(const struct mpo_session *session, int32_t index,
                                      const double *mu)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_blend *blend = &session->blend;
    const int32_t policies = session->config->policy_count;
    double *scale = NULL;
    if (session->policies == NULL)
        return MPO_OK;
    MPO_NEW(blend->adapter_count, &scale);
    for (int32_t i = 0; i < blend->adapter_count; i++)
        scale[i] = mpo_rollout_blend_scale(blend, policies, mu, i);
    MPO_TRY(mpo_policy_rescale(mpo_policies_local(session->policies, index), scale,
                               blend->adapter_count));
cleanup:
    free(scale);
    return status;
}
