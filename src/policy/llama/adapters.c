/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adapters of a policy: one, or several whose scaled sum it is.
 *
 * libllama adds them to a layer's output in the order in which its hash table of addresses
 * returns them (llama_adapter_loras), and a sum of floats depends on its order. So the same
 * policy would have other bits in another run. Here a copy of a file is loaded anew until
 * its address leaves the table in the order of the list, which happens at once in most cases.
 *
 * With other scales (mpo_llama_rescale) they become one, the file that mpo export writes.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "llama_impl.h"
#include "order.h"
#include "unite.h"

/* A copy has a free place in the table with a chance of at least 1/13 for 12 adapters. */
#define COPIES_MAX 128

/* Path of adapter `index` of a policy. */
const char *mpo_llama_adapter_path(const struct mpo_llama_policy *policy, int32_t index)
{
    const struct mpo_policy_spec *spec = &policy->spec;
    return index == 0 ? spec->lora : spec->more[index - 1].path;
}

static float configured_scale(const struct mpo_llama_policy *policy, int32_t index)
{
    const struct mpo_policy_spec *spec = &policy->spec;
    return (float)(index == 0 ? spec->lora_scale : spec->more[index - 1].scale);
}

static enum mpo_status hash_adapters(struct mpo_llama_policy *policy)
{
    const char *each[MPO_POLICY_ADAPTER_COUNT_MAX] = {NULL};
    if (!policy->hash_models || policy->adapter_count == 0)
        return MPO_OK;
    for (int32_t i = 0; i < policy->adapter_count; i++)
        each[i] = policy->adapter[i]->file.sha256;
    return mpo_policy_join_sha256(each, policy->adapter_count, policy->lora_sha256);
}

static enum mpo_status name_adapters(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = 0;
    if (policy->adapter_count < 2)
        return MPO_OK;
    FILE *stream = open_memstream(&policy->adapter_names, &bytes);
    MPO_CHECK(stream != NULL, MPO_ERR_MEMORY, "no memory for the names of adapters");
    for (int32_t i = 0; i < policy->adapter_count; i++)
        fprintf(stream, "%s%s", i > 0 ? " + " : "", mpo_llama_adapter_path(policy, i));
    MPO_CHECK(fclose(stream) == 0, MPO_ERR_MEMORY, "no memory for the names of adapters");
cleanup:
    return status;
}

/* Whether libllama will add the first `count` adapters in the order of the list. Those with
 * a scale of 0 it leaves out. */
static bool are_in_order(const struct mpo_llama_policy *policy, int32_t count)
{
    const void *handle[MPO_POLICY_ADAPTER_COUNT_MAX];
    size_t used = 0;
    for (int32_t i = count - 1; i >= 0; i--)
        if (policy->scale[i] != 0.0F)
            handle[used++] = policy->adapter[i]->handle;
    return mpo_llama_are_in_order(handle, used);
}

/* Another copy of the file has another address. */
static enum mpo_status put_in_order(struct mpo_llama_policy *policy, int32_t index)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < COPIES_MAX && !are_in_order(policy, index + 1); i++)
        MPO_TRY(mpo_llama_adapter_load(policy, mpo_llama_adapter_path(policy, index),
                                       &policy->adapter[index]));
    MPO_CHECK(
        are_in_order(policy, index + 1), MPO_ERR_CONFIG,
        "policy '%s': libllama adds %d adapters in another order in each run, so that "
        "two runs differ in the last digits; name fewer, or merge some of them",
        policy->spec.name, index + 1);
cleanup:
    return status;
}

enum mpo_status mpo_llama_adapters_open(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    int32_t count = policy->spec.lora[0] != '\0' ? 1 + policy->spec.more_count : 0;
    MPO_NEW(count, &policy->adapter);
    MPO_NEW(count, &policy->scale);
    for (int32_t i = 0; i < count; i++)
        policy->scale[i] = configured_scale(policy, i);
    for (int32_t i = 0; i < count; i++) {
        MPO_TRY(mpo_llama_adapter_acquire(policy, mpo_llama_adapter_path(policy, i),
                                          &policy->adapter[i]));
        policy->adapter_count++;
        for (int32_t j = 0; j < i; j++)
            MPO_CHECK(
                !mpo_llama_file_same(&policy->adapter[j]->file, &policy->adapter[i]->file),
                MPO_ERR_CONFIG,
                "policy '%s': adapters %d and %d are the same file, %s; name it once, "
                "with the sum of the scales",
                policy->spec.name, j + 1, i + 1, mpo_llama_adapter_path(policy, i));
        if (!policy->spec.rescales) /* they become one */
            MPO_TRY(put_in_order(policy, i));
    }
    MPO_TRY(hash_adapters(policy));
    MPO_TRY(name_adapters(policy));
cleanup:
    return status;
}

enum mpo_status mpo_llama_adapters_set(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct llama_adapter_lora *handle[MPO_POLICY_ADAPTER_COUNT_MAX];
    float scale[MPO_POLICY_ADAPTER_COUNT_MAX];
    int32_t count = policy->adapter_count;
    if (count == 0)
        return MPO_OK;
    for (int32_t i = 0; i < count; i++) { /* the last one first: see are_in_order */
        handle[i] = policy->adapter[count - 1 - i]->handle;
        scale[i] = policy->scale[count - 1 - i];
    }
    int32_t code = llama_set_adapters_lora(policy->context, handle, (size_t)count, scale);
    MPO_CHECK(code == 0, MPO_ERR_DATA,
              "policy '%s': libllama rejected adapter %s (code %d)", policy->spec.name,
              mpo_llama_adapter_path(policy, 0), code);
cleanup:
    return status;
}

int32_t mpo_llama_adapter_count(const void *self)
{
    const struct mpo_llama_policy *policy = self;
    return policy->adapter_count;
}

/* Files are read once: one that changes later is not another policy. */
static enum mpo_status open_parts(struct mpo_llama_policy *policy)
{
    const char *path[MPO_POLICY_ADAPTER_COUNT_MAX];
    if (policy->parts != NULL)
        return MPO_OK;
    for (int32_t i = 0; i < policy->adapter_count; i++)
        path[i] = mpo_llama_adapter_path(policy, i);
    return mpo_llama_parts_open(path, policy->adapter_count, &policy->parts);
}

/* @param out  NULL where all scales are 0 */
static enum mpo_status load_sum(struct mpo_llama_policy *policy, const double *scale,
                                struct llama_adapter_lora **out)
{
    enum mpo_status status = MPO_OK;
    char path[64];
    int file = -1;
    *out = NULL;
    MPO_TRY(open_parts(policy));
    MPO_TRY(mpo_llama_parts_sum(policy->parts, scale, &file));
    if (file < 0)
        return MPO_OK;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    mpo_llama_library_listen(policy->library, policy->spec.name, path);
    *out = llama_adapter_lora_init(policy->model->handle, path);
    MPO_CHECK(*out != NULL, MPO_ERR_MEMORY,
              "policy '%s': libllama cannot load the sum of its adapters (%s)",
              policy->spec.name, mpo_llama_library_said(policy->library));
cleanup:
    if (file >= 0)
        close(file);
    return status;
}

enum mpo_status mpo_llama_rescale(void *self, const double *scale)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = self;
    struct llama_adapter_lora *sum = NULL;
    MPO_TRY(load_sum(policy, scale, &sum));
    int32_t code =
        llama_set_adapters_lora(policy->context, &sum, sum != NULL, &(float){1.0F});
    MPO_CHECK(code == 0, MPO_ERR_INTERNAL,
              "policy '%s': libllama rejected the sum of its adapters (code %d)",
              policy->spec.name, code);
    if (policy->sum != NULL)
        llama_adapter_lora_free(policy->sum);
    policy->sum = sum;
    sum = NULL;
cleanup:
    if (sum != NULL)
        llama_adapter_lora_free(sum);
    return status;
}
