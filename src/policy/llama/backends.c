/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libllama's backends, some of which may be libraries of their own that are loaded at run
 * time. launch/setup.sh builds the one for CUDA so: it needs the library of a GPU's driver,
 * without which nothing that is linked with it starts, and login nodes have none. It is
 * looked for beside libllama's other libraries, and nowhere else: libllama itself would
 * also take what lies in the working folder.
 */
#define _GNU_SOURCE /* dladdr */
#include "llama_impl.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The folder of libllama's libraries; "." where it is not known. */
static void find_folder(char folder[PATH_MAX])
{
    Dl_info about;
    ggml_backend_reg_t (*here)(const char *path) = ggml_backend_load;
    void *address = NULL;
    memcpy(&address, &here, sizeof address); /* as dlsym, the other way round */
    const char *path = dladdr(address, &about) != 0 ? about.dli_fname : "";
    const char *name = strrchr(path, '/');
    snprintf(folder, PATH_MAX, "%.*s", name != NULL ? (int)(name - path) : 1,
             name != NULL ? path : ".");
}

/* The first call registers backends that are linked, which have much to say. */
static bool has_cpu(void)
{
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) != NULL;
}

enum mpo_status mpo_llama_load_cpu(void)
{
    enum mpo_status status = MPO_OK;
    char folder[PATH_MAX];
    find_folder(folder);
    struct mpo_llama_listener before = mpo_llama_library_mute();
    if (!has_cpu())
        ggml_backend_load_all_from_path(folder);
    if (!has_cpu())
        ggml_backend_load_all(); /* packages have a folder for them, which libllama knows */
    mpo_llama_library_unmute(before);
    MPO_CHECK(
        has_cpu(), MPO_ERR_DEVICE,
        "expected libllama's backend for the CPU, linked or as a library in %s, found "
        "none; build libllama again with launch/setup.sh",
        folder);
cleanup:
    return status;
}

/* libllama would only log why a library cannot be loaded, so it is loaded here before. */
static enum mpo_status try_library(const char *path)
{
    enum mpo_status status = MPO_OK;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    MPO_CHECK(library != NULL, MPO_ERR_DEVICE,
              "libllama's %s cannot be loaded: %s; libcuda.so.1 comes with the driver of a "
              "GPU, other libraries with the CUDA toolkit of the build: run on a host that "
              "has them, or set run.device=cpu",
              path, dlerror());
    struct mpo_llama_listener before = mpo_llama_library_mute();
    ggml_backend_reg_t backend = ggml_backend_load(path);
    mpo_llama_library_unmute(before);
    dlclose(library);
    MPO_CHECK(
        backend != NULL, MPO_ERR_DEVICE,
        "expected a backend of this libllama, found another library in %s; build both "
        "with MPO_LLAMA_CUDA=ON launch/setup.sh, or set run.device=cpu",
        path);
cleanup:
    return status;
}

enum mpo_status mpo_llama_load_backend(const char *kind)
{
    enum mpo_status status = MPO_OK;
    char folder[PATH_MAX];
    char path[PATH_MAX + 64];
    find_folder(folder);
    snprintf(path, sizeof path, "%s/libggml-%s.so", folder, kind);
    MPO_CHECK(
        access(path, F_OK) == 0, MPO_ERR_DEVICE,
        "this libllama has no %s: expected it to be linked or %s, found neither; build "
        "it with MPO_LLAMA_CUDA=ON launch/setup.sh, or set run.device=cpu",
        kind, path);
    MPO_TRY(try_library(path));
cleanup:
    return status;
}
