/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF files as files: found, told from what is none, hashed, and looked through for
 * numbers that are none. A large model may be split into several files, of which the first
 * is named and libllama finds the others by their names.
 */
#include "llama_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/reason.h"

#define PATH_BYTES 4096

/* Of a file at a time, a multiple of the size of any type's block of numbers. */
#define SCAN_BLOCKS 4096

/* ---- what a path names ---- */

/* What to do with something that is no GGUF file. */
static const char *advice_for(enum mpo_policy_form form)
{
    switch (form) {
    case MPO_FORM_SAFETENSORS:
        return "is a safetensors file; convert the folder it lies in: launch/convert.sh "
               "FOLDER";
    case MPO_FORM_ZIP:
        return "is an archive, as PyTorch writes checkpoints; save the model as "
               "safetensors and convert its folder: launch/convert.sh FOLDER";
    case MPO_FORM_GGUF_BIG_ENDIAN:
        return "is a GGUF file for big-endian machines; convert the model "
               "again without --bigendian, or convert the file with gguf-py's "
               "gguf_convert_endian.py FILE little";
    default:
        return "is not in GGUF format; convert the model first: launch/convert.sh FOLDER";
    }
}

enum mpo_status mpo_llama_file_find(const char *policy, const char *path,
                                    struct mpo_llama_file *out)
{
    enum mpo_status status = MPO_OK;
    struct stat about = {0};
    MPO_CHECK(stat(path, &about) == 0, mpo_reason_of_input(errno), "policy '%s': %s: %s",
              policy, path, strerror(errno));
    MPO_CHECK(!S_ISDIR(about.st_mode), MPO_ERR_INPUT,
              "policy '%s': %s is a folder and not a file, expected one in GGUF format; "
              "where it holds a Hugging Face checkpoint: launch/convert.sh %s",
              policy, path, path);
    MPO_CHECK(S_ISREG(about.st_mode), MPO_ERR_INPUT,
              "policy '%s': %s is not a file, expected one in GGUF format", policy, path);
    enum mpo_policy_form form = mpo_policy_file_form(path);
    MPO_CHECK(form != MPO_FORM_NONE, mpo_reason_of_input(errno), "policy '%s': %s: %s",
              policy, path, strerror(errno));
    MPO_CHECK(form == MPO_FORM_GGUF, MPO_ERR_DATA, "policy '%s': %s %s", policy, path,
              advice_for(form));
    *out = (struct mpo_llama_file){.device = about.st_dev,
                                   .inode = about.st_ino,
                                   .bytes = about.st_size,
                                   .part_count = 1};
cleanup:
    return status;
}

bool mpo_llama_file_same(const struct mpo_llama_file *a, const struct mpo_llama_file *b)
{
    return a->device == b->device && a->inode == b->inode;
}

/* ---- parts ---- */

/* The path of part `index` of the model whose first part has this path, as libllama looks
 * for it.
 * @return false when the first part is not named as libllama expects */
static bool name_part(const char *first, int32_t count, int32_t index,
                      char path[PATH_BYTES])
{
    char prefix[PATH_BYTES] = "";
    if (strlen(first) >= PATH_BYTES ||
        llama_split_prefix(prefix, sizeof prefix, first, 0, count) <= 0)
        return false;
    llama_split_path(path, PATH_BYTES, prefix, index, count);
    return true;
}

/* A key of a split, -1 when there is none. */
static int32_t split_number(const struct gguf_context *metadata, const char *key)
{
    int64_t id = gguf_find_key(metadata, key);
    if (id < 0 || gguf_get_kv_type(metadata, id) != GGUF_TYPE_UINT16)
        return -1;
    return gguf_get_val_u16(metadata, id);
}

enum mpo_status mpo_llama_file_parts(const char *policy, const char *path,
                                     const struct gguf_context *metadata,
                                     struct mpo_llama_file *file)
{
    enum mpo_status status = MPO_OK;
    char part[PATH_BYTES] = "";
    int32_t count = split_number(metadata, "split.count");
    int32_t number = split_number(metadata, "split.no");
    if (count <= 1)
        return MPO_OK;
    MPO_CHECK(number == 0, MPO_ERR_DATA,
              "policy '%s': %s is part %d of a model that is split into %d files; name the "
              "first part, ...-00001-of-%05d.gguf",
              policy, path, number + 1, count, count);
    MPO_CHECK(name_part(path, count, 0, part), MPO_ERR_DATA,
              "policy '%s': %s is the first of the %d files that a model is split into, "
              "expected a name that ends in -00001-of-%05d.gguf, beside the other parts; "
              "give all parts their names back, or merge them with llama-gguf-split",
              policy, path, count, count);
    for (int32_t index = 1; index < count; index++) {
        struct mpo_llama_file one = {0};
        name_part(path, count, index, part);
        MPO_TRY(mpo_llama_file_find(policy, part, &one));
        file->bytes += one.bytes;
    }
    file->part_count = count;
cleanup:
    return status;
}

enum mpo_status mpo_llama_file_part(const struct mpo_llama_file *file, const char *path,
                                    int32_t index, char **out)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(PATH_BYTES + strlen(path), out);
    if (index == 0)
        memcpy(*out, path, strlen(path) + 1);
    else
        name_part(path, file->part_count, index, *out);
cleanup:
    return status;
}

enum mpo_status mpo_llama_file_hash(bool wanted, const char *path,
                                    struct mpo_llama_file *file)
{
    enum mpo_status status = MPO_OK;
    char **part = NULL;
    if (!wanted || file->sha256[0] != '\0')
        return MPO_OK;
    MPO_NEW(file->part_count, &part);
    for (int32_t index = 0; index < file->part_count; index++)
        MPO_TRY(mpo_llama_file_part(file, path, index, &part[index]));
    MPO_TRY(
        mpo_policy_files_sha256((const char *const *)part, file->part_count, file->sha256));
cleanup:
    for (int32_t index = 0; part != NULL && index < file->part_count; index++)
        free(part[index]);
    free(part);
    return status;
}

enum mpo_status mpo_llama_hash_model(const char *policy, const char *path, char hex[65])
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_file file = {0};
    struct gguf_context *metadata = NULL;
    struct mpo_llama_listener before = mpo_llama_library_mute();
    MPO_TRY(mpo_llama_file_find(policy, path, &file));
    metadata = gguf_init_from_file(path, (struct gguf_init_params){.no_alloc = true});
    MPO_CHECK(metadata != NULL, MPO_ERR_DATA,
              "policy '%s': %s is truncated or damaged; download it again", policy, path);
    MPO_TRY(mpo_llama_file_parts(policy, path, metadata, &file));
    MPO_TRY(mpo_llama_file_hash(true, path, &file));
    memcpy(hex, file.sha256, sizeof file.sha256);
cleanup:
    gguf_free(metadata);
    mpo_llama_library_unmute(before);
    return status;
}

/* ---- numbers ---- */

/* Whether all are finite. Plain types are read here, others by ggml, which says on standard
 * error what it finds. */
static bool all_finite(enum ggml_type type, const unsigned char *data, size_t bytes)
{
    bool finite = true;
    if (type == GGML_TYPE_F32) {
        const float *value = (const float *)(const void *)data;
        for (size_t i = 0; i < bytes / sizeof *value; i++)
            finite &= isfinite(value[i]) != 0;
        return finite;
    }
    if (type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) {
        unsigned exponent = type == GGML_TYPE_F16 ? 0x7C00U : 0x7F80U;
        const uint16_t *value = (const uint16_t *)(const void *)data;
        for (size_t i = 0; i < bytes / sizeof *value; i++)
            finite &= (value[i] & exponent) != exponent;
        return finite;
    }
    return !ggml_is_quantized(type) || ggml_validate_row_data(type, data, bytes);
}

/* A file being looked through. */
struct scan {
    const char *policy;
    const char *path;
    const struct gguf_context *metadata;
    FILE *file;
    unsigned char *data; /* [room] */
    size_t room;
};

static enum mpo_status scan_tensor(struct scan *scan, int64_t id)
{
    enum mpo_status status = MPO_OK;
    const struct gguf_context *metadata = scan->metadata;
    enum ggml_type type = gguf_get_tensor_type(metadata, id);
    size_t block = SCAN_BLOCKS * ggml_type_size(type);
    size_t left = gguf_get_tensor_size(metadata, id);
    size_t offset = gguf_get_data_offset(metadata) + gguf_get_tensor_offset(metadata, id);
    if (block > scan->room) {
        free(scan->data);
        scan->data = NULL;
        MPO_NEW(block, &scan->data);
        scan->room = block;
    }
    if (fseeko(scan->file, (off_t)offset, SEEK_SET) != 0)
        return MPO_OK; /* libllama knows what is cut */
    while (left > 0) {
        size_t bytes = left < block ? left : block;
        if (fread(scan->data, 1, bytes, scan->file) != bytes)
            return MPO_OK;
        MPO_CHECK(all_finite(type, scan->data, bytes), MPO_ERR_DATA,
                  "policy '%s': %s: tensor %s holds a value that is infinite or "
                  "NaN; the file is damaged, or its training diverged",
                  scan->policy, scan->path, gguf_get_tensor_name(metadata, id));
        left -= bytes;
    }
cleanup:
    return status;
}

enum mpo_status mpo_llama_file_scan(const char *policy, const char *path,
                                    const struct gguf_context *metadata)
{
    enum mpo_status status = MPO_OK;
    struct scan scan = {.policy = policy, .path = path, .metadata = metadata};
    scan.file = fopen(path, "rb");
    MPO_CHECK(scan.file != NULL, mpo_reason_of_input(errno), "policy '%s': %s: %s", policy,
              path, strerror(errno));
    for (int64_t id = 0; id < gguf_get_n_tensors(metadata); id++)
        MPO_TRY(scan_tensor(&scan, id));
cleanup:
    free(scan.data);
    if (scan.file != NULL)
        fclose(scan.file);
    return status;
}
