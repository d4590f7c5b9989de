/*
 * What this build has, device by device: the only file that names an optional backend.
 */
#include <stddef.h>
#include <string.h>

#include "device/device_impl.h"
#include "exchange/exchange_impl.h"
#include "mixture/mixture_impl.h"
#include "policy/policy_impl.h"

const struct mpo_policy_ops *const mpo_policy_kinds[] = {
#ifdef MPO_HAVE_LLAMA
    &mpo_policy_llama_ops,
#endif
    &mpo_policy_table_ops,
    NULL,
};

const struct mpo_exchange_ops *const mpo_exchange_transports[] = {
    &mpo_exchange_self_ops,
#ifdef MPO_HAVE_NCCL
    &mpo_exchange_nccl_ops,
#endif
    &mpo_exchange_shared_ops, &mpo_exchange_nodes_ops, &mpo_exchange_mpi_ops, NULL,
};

static const struct mpo_mixture_ops *const mixtures[] = {
    &mpo_mixture_cpu_ops,
#ifdef MPO_HAVE_CUDA
    &mpo_mixture_cuda_ops,
#endif
};
#define MIXTURE_COUNT (sizeof mixtures / sizeof *mixtures)

const char *mpo_policy_kinds_built(void)
{
#ifdef MPO_HAVE_LLAMA
    return "llama table";
#else
    return "table";
#endif
}

const struct mpo_mixture_ops *mpo_registry_mixture(const char *device)
{
    for (size_t i = 0; i < MIXTURE_COUNT; i++)
        if (strcmp(mixtures[i]->device, device) == 0)
            return mixtures[i];
    return NULL;
}

const struct mpo_device_ops *mpo_registry_accelerator(void)
{
#ifdef MPO_HAVE_CUDA
    return &mpo_device_cuda_ops;
#else
    return NULL;
#endif
}

const struct mpo_device_ops *mpo_registry_device(const char *kind)
{
    const struct mpo_device_ops *ops = mpo_registry_accelerator();
    return ops != NULL && strcmp(ops->kind, kind) == 0 ? ops : NULL;
}

const char *mpo_device_built(void)
{
#ifdef MPO_HAVE_CUDA
    return "cpu cuda";
#else
    return "cpu";
#endif
}
