/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of adapters that became one: on disk for mpo export, in memory for a policy whose
 * adapters get other scales.
 */
#define _GNU_SOURCE /* memfd_create */
#include "united.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/reason.h"
#include "llama_impl.h"

enum mpo_status mpo_united_write(const struct united *united, const char *path)
{
    enum mpo_status status = MPO_OK;
    FILE *file = fopen(path, "wbx");
    MPO_CHECK(file != NULL, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "%s: cannot be created: %s; name another file with --output", path,
              strerror(errno));
    errno = 0;
    bool written = gguf_write_to_file_ptr(united->file, file, false);
    written = fclose(file) == 0 && written;
    int error = errno;
    if (!written)
        unlink(path);
    MPO_CHECK(written, mpo_reason_status(error, MPO_ERR_IO), "%s: writing failed: %s%s",
              path, strerror(error), mpo_reason_advice(error));
cleanup:
    return status;
}

enum mpo_status mpo_united_write_memory(const struct united *united, int *out)
{
    enum mpo_status status = MPO_OK;
    int memory = memfd_create("adapter", MFD_CLOEXEC);
    int copy = memory >= 0 ? dup(memory) : -1;
    FILE *file = copy >= 0 ? fdopen(copy, "wb") : NULL;
    if (file == NULL && copy >= 0)
        close(copy);
    bool written = file != NULL && gguf_write_to_file_ptr(united->file, file, false);
    if (file != NULL)
        written = fclose(file) == 0 && written;
    int error = errno;
    if (!written && memory >= 0)
        close(memory);
    MPO_CHECK(written, MPO_ERR_MEMORY, "no memory for the sum of %d adapters: %s",
              united->part_count, strerror(error));
    *out = memory;
cleanup:
    return status;
}

enum mpo_status mpo_united_check(const struct united *united, const char *path)
{
    enum mpo_status status = MPO_OK;
    struct ggml_context *tensors = NULL;
    struct gguf_context *file =
        gguf_init_from_file(path, (struct gguf_init_params){false, &tensors});
    bool is_same =
        file != NULL && gguf_get_n_tensors(file) == (int64_t)(2 * united->target_count);
    for (struct ggml_tensor *of = ggml_get_first_tensor(united->tensors);
         is_same && of != NULL; of = ggml_get_next_tensor(united->tensors, of)) {
        const struct ggml_tensor *other = ggml_get_tensor(tensors, ggml_get_name(of));
        is_same = other != NULL && ggml_are_same_shape(of, other) &&
                  memcmp(of->data, other->data, ggml_nbytes(of)) == 0;
    }
    MPO_CHECK(is_same, MPO_ERR_IO, "%s does not read back as it was written", path);
cleanup:
    gguf_free(file);
    if (tensors != NULL)
        ggml_free(tensors);
    return status;
}
