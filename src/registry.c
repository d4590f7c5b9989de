/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this build has of each stage, from registry.def: the only file that sees what was
 * built. The rest of the program asks here, by name.
 */
#include <stddef.h>
#include <string.h>

#include "descent/descent_impl.h"
#include "device/device_impl.h"
#include "exchange/exchange_impl.h"
#include "mixture/mixture_impl.h"
#include "policy/policy_impl.h"
#include "prompts/prompts_impl.h"

#ifndef MPO_HAVE_LLAMA
#define MPO_HAVE_LLAMA 0
#endif
#ifndef MPO_HAVE_CUDA
#define MPO_HAVE_CUDA 0
#endif
#ifndef MPO_HAVE_NCCL
#define MPO_HAVE_NCCL 0
#endif

/* IF_BUILT(built, tokens) is its tokens, or nothing. */
#define IF_BUILT(built, ...)  IF_BUILT_(built, __VA_ARGS__)
#define IF_BUILT_(built, ...) IF_BUILT_##built(__VA_ARGS__)
#define IF_BUILT_0(...)
#define IF_BUILT_1(...) __VA_ARGS__

/* A table of what is built, and the same as words: "cpu cuda". */
#define ROW(built, entry)  IF_BUILT(built, entry, )
#define WORD(built, name)  IF_BUILT(built, " " #name)
#define FIRST_LETTER(text) (&(text)[1]) /* without the blank before the first word */

/* ---- formats of prompts ---- */

const struct mpo_prompts_format *const mpo_prompts_formats[] = {
#define MPO_PROMPT_FORMAT(name) &mpo_prompts_##name##_format,
#include "registry.def"
    NULL,
};

const char *mpo_registry_prompt_formats(void)
{
    static const char words[] =
#define MPO_PROMPT_FORMAT(name) " or " #name
#include "registry.def"
        ;
    return words + strlen(" or ");
}

/* ---- policies ---- */

const struct mpo_policy_ops *const mpo_policy_kinds[] = {
#define MPO_POLICY_KIND(name, built, suffix) ROW(built, &mpo_policy_##name##_ops)
#include "registry.def"
    NULL,
};

const char *mpo_policy_kinds_built(void)
{
    static const char words[] =
#define MPO_POLICY_KIND(name, built, suffix) WORD(built, name)
#include "registry.def"
        ;
    return FIRST_LETTER(words);
}

const char *mpo_registry_policy_kind(const char *model)
{
    static const char *const kinds[][2] = {
#define MPO_POLICY_KIND(name, built, suffix) {#name, suffix},
#include "registry.def"
    };
    size_t length = strlen(model);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t tail = strlen(kinds[i][1]);
        if (length >= tail && strcmp(model + length - tail, kinds[i][1]) == 0)
            return kinds[i][0];
    }
    return "none";
}

/* ---- transports ---- */

const struct mpo_exchange_ops *const mpo_exchange_transports[] = {
#define MPO_TRANSPORT(name, built) ROW(built, &mpo_exchange_##name##_ops)
#include "registry.def"
    NULL,
};

const char *mpo_exchange_transports_built(void)
{
    static const char words[] =
#define MPO_TRANSPORT(name, built) WORD(built, name)
#include "registry.def"
        ;
    return FIRST_LETTER(words);
}

/* ---- devices ---- */

static const struct mpo_mixture_ops *const mixtures[] = {
#define MPO_DEVICE(name, built) ROW(built, &mpo_mixture_##name##_ops)
#include "registry.def"
    NULL,
};

static const struct mpo_device_ops *const accelerators[] = {
#define MPO_ACCELERATOR(name, built) ROW(built, &mpo_device_##name##_ops)
#include "registry.def"
    NULL,
};

const struct mpo_mixture_ops *mpo_registry_mixture(const char *device)
{
    for (size_t i = 0; mixtures[i] != NULL; i++)
        if (strcmp(mixtures[i]->device, device) == 0)
            return mixtures[i];
    return NULL;
}

const struct mpo_device_ops *mpo_registry_accelerator(void)
{
    return accelerators[0];
}

const struct mpo_device_ops *mpo_registry_device(const char *kind)
{
    for (size_t i = 0; accelerators[i] != NULL; i++)
        if (strcmp(accelerators[i]->kind, kind) == 0)
            return accelerators[i];
    return NULL;
}

const char *mpo_device_built(void)
{
    static const char words[] =
#define MPO_DEVICE(name, built) WORD(built, name)
#include "registry.def"
        ;
    return FIRST_LETTER(words);
}

/* ---- mirror maps ---- */

const struct mpo_descent_map *const mpo_descent_maps[] = {
#define MPO_MIRROR_MAP(name) &mpo_descent_##name##_map,
#include "registry.def"
    NULL,
};

const char *mpo_descent_maps_built(void)
{
    static const char words[] =
#define MPO_MIRROR_MAP(name) WORD(1, name)
#include "registry.def"
        ;
    return FIRST_LETTER(words);
}
