/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adapters of a policy: one, or several whose scaled sum it is.
 *
 * libllama adds them to a layer's output in the order in which its hash table of addresses
 * returns them (llama_adapter_loras), and a sum of floats depends on its order. So the same
 * policy would have other bits in another run. Here a copy of a file is loaded anew until
 * its address leaves the table in the order of the list, which happens at once in most cases.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "llama_impl.h"
#include "order.h"

/* A copy has a free place in the table with a chance of at least 1/13 for 12 adapters. */
#define COPIES_MAX 128

/* No sum of floats changes by it. */
#define LEAST_SCALE 1e-30F

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

/* Next to nothing in place of 0, so that the adapters and their order stay the same. */
enum mpo_status mpo_llama_rescale(void *self, const double *scale)
{
    struct mpo_llama_policy *policy = self;
    for (int32_t i = 0; i < policy->adapter_count; i++) {
        float rounded = (float)scale[i];
        policy->scale[i] = rounded != 0.0F ? rounded : LEAST_SCALE;
    }
    return mpo_llama_adapters_set(policy);
}
