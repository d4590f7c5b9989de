/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several adapters at scales become one file: the sum of scale_i alpha_i / rank_i B_i A_i is
 *
 *     B A,   A = [ A_1; A_2; ... ],   B = [ scale_1 alpha_1 / rank_1 B_1, ... ],   alpha = rank
 *
 * of which any engine makes the same product, alpha / rank being 1. A tensor that an adapter
 * leaves as it is gets zeros in its place, so that all tensors have one rank, which servers
 * expect. Numbers are written in F32, so nothing is rounded but the products with a scale.
 * A policy whose adapters get other scales draws from this file too, one in memory, so that the
 * exported one is the same policy to the bit, also of models that round activations.
 *
 * In a file the rank is the second size of lora_a and the first of lora_b; of the embedding of
 * tokens, of which rows are taken, it is the first of both.
 */
#include "unite.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/reason.h"
#include "llama_impl.h"
#include "united.h"

#define SUFFIX_BYTES 7 /* ".lora_a" */
#define ALPHA_KEY    "adapter.lora.alpha"
#define TYPE_KEY     "adapter.type"
#define EMBEDDING    "token_embd.weight"

static const char *path_of(const struct part *part)
{
    return part->adapter->path;
}

/* ---- what there is ---- */

static struct ggml_tensor *find_half(const struct part *part, const char *name,
                                     const char *suffix)
{
    char full[MPO_UNITED_NAME_BYTES + SUFFIX_BYTES + 1];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return ggml_get_tensor(part->tensors, full);
}

static bool is_embedding(const struct target *target)
{
    return strcmp(target->name, EMBEDDING) == 0;
}

static enum mpo_status check_pair(const struct part *part, const struct target *target,
                                  const struct ggml_tensor *a, const struct ggml_tensor *b)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(a != NULL && b != NULL && ggml_n_dims(a) <= 2 && ggml_n_dims(b) <= 2,
              MPO_ERR_DATA,
              "%s: expected lora_a and lora_b of two sizes for %s; adapters of experts "
              "cannot be united, merge them into the model",
              path_of(part), target->name);
    bool fits = is_embedding(target) ? a->ne[0] == b->ne[0] : a->ne[1] == b->ne[0];
    MPO_CHECK(fits, MPO_ERR_DATA, "%s: lora_a and lora_b of %s have different ranks",
              path_of(part), target->name);
cleanup:
    return status;
}

/* The sizes of a tensor are the same in all adapters. */
static enum mpo_status add_target(struct united *united, struct part *part,
                                  const char *name)
{
    enum mpo_status status = MPO_OK;
    struct target found = {0};
    size_t at = 0;
    snprintf(found.name, sizeof found.name, "%s", name);
    const struct ggml_tensor *a = find_half(part, name, ".lora_a");
    const struct ggml_tensor *b = find_half(part, name, ".lora_b");
    MPO_TRY(check_pair(part, &found, a, b));
    found.inner = is_embedding(&found) ? a->ne[1] : a->ne[0];
    found.outer = b->ne[1];
    if (b->ne[0] > part->rank)
        part->rank = b->ne[0];
    while (at < united->target_count && strcmp(united->target[at].name, name) != 0)
        at++;
    if (at == united->target_count) {
        MPO_TRY(mpo_memory_grow((void **)&united->target, &united->target_capacity, at + 1,
                                sizeof found, "tensors of adapters"));
        united->target[united->target_count++] = found;
    }
    const struct target *first = &united->target[at];
    MPO_CHECK(first->inner == found.inner && first->outer == found.outer, MPO_ERR_DATA,
              "%s: %s has the sizes %lld x %lld, and %lld x %lld in another adapter; "
              "expected adapters of one model",
              path_of(part), name, (long long)found.inner, (long long)found.outer,
              (long long)first->inner, (long long)first->outer);
cleanup:
    return status;
}

static enum mpo_status list_targets(struct united *united, struct part *part)
{
    enum mpo_status status = MPO_OK;
    char name[MPO_UNITED_NAME_BYTES];
    for (int64_t id = 0; id < gguf_get_n_tensors(part->file); id++) {
        const char *full = gguf_get_tensor_name(part->file, id);
        size_t bytes = strlen(full);
        bool is_a = bytes > SUFFIX_BYTES && bytes - SUFFIX_BYTES < sizeof name &&
                    strcmp(full + bytes - SUFFIX_BYTES, ".lora_a") == 0;
        if (!is_a)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(bytes - SUFFIX_BYTES), full);
        MPO_TRY(add_target(united, part, name));
    }
    MPO_CHECK(part->rank > 0, MPO_ERR_DATA, "%s: expected a LoRA adapter, found no pair",
              path_of(part));
cleanup:
    return status;
}

static const char *architecture_of(const struct part *part)
{
    int64_t id = gguf_find_key(part->file, "general.architecture");
    bool is_text = id >= 0 && gguf_get_kv_type(part->file, id) == GGUF_TYPE_STRING;
    return is_text ? gguf_get_val_str(part->file, id) : "";
}

static enum mpo_status open_part(struct part *part)
{
    enum mpo_status status = MPO_OK;
    const struct gguf_init_params params = {.no_alloc = false, .ctx = &part->tensors};
    MPO_CHECK(access(path_of(part), R_OK) == 0, mpo_reason_of_input(errno), "%s: %s",
              path_of(part), strerror(errno));
    part->file = gguf_init_from_file(path_of(part), params);
    MPO_CHECK(part->file != NULL, MPO_ERR_DATA, "%s: expected an adapter in GGUF",
              path_of(part));
cleanup:
    return status;
}

static void close_part(struct part *part)
{
    gguf_free(part->file);
    if (part->tensors != NULL)
        ggml_free(part->tensors);
}

static enum mpo_status list_part(struct united *united, struct part *part)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(strcmp(architecture_of(part), architecture_of(united->part)) == 0,
              MPO_ERR_DATA,
              "%s is for the architecture '%s' and %s for '%s'; expected adapters of one "
              "model",
              path_of(part), architecture_of(part), path_of(united->part),
              architecture_of(united->part));
    MPO_TRY(list_targets(united, part));
    part->first = united->rank;
    united->rank += part->rank;
cleanup:
    return status;
}

static enum mpo_status check_ranks(const struct united *united)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < united->target_count; i++) {
        const struct target *target = &united->target[i];
        int64_t least = target->inner < target->outer ? target->inner : target->outer;
        MPO_CHECK(united->rank <= least, MPO_ERR_DATA,
                  "the ranks of the adapters sum to %lld, more than the smaller side of "
                  "%s (%lld x %lld); merge them into the model instead",
                  (long long)united->rank, target->name, (long long)target->inner,
                  (long long)target->outer);
    }
cleanup:
    return status;
}

/* ---- what becomes of it ---- */

/* alpha / rank, or 1 without an alpha, as libllama has it. */
static double factor_of(const struct part *part, int64_t rank)
{
    int64_t id = gguf_find_key(part->file, ALPHA_KEY);
    bool is_number = id >= 0 && gguf_get_kv_type(part->file, id) == GGUF_TYPE_FLOAT32;
    double alpha = is_number ? gguf_get_val_f32(part->file, id) : 0.0;
    return part->adapter->scale * (alpha != 0.0 ? alpha / (double)rank : 1.0);
}

/* Row `index` of a tensor of any type. @return NULL where its type has no floats */
static const float *read_row(const struct ggml_tensor *tensor, int64_t index, float *room)
{
    const char *row = (const char *)tensor->data + (size_t)index * tensor->nb[1];
    const struct ggml_type_traits *traits = ggml_get_type_traits(tensor->type);
    if (tensor->type == GGML_TYPE_F32)
        return (const float *)(const void *)row;
    if (traits->to_float == NULL)
        return NULL;
    traits->to_float(row, room, tensor->ne[0]);
    return room;
}

/* Where rows of a half go: as rows from `row` on, or in columns from `column` on. */
struct place {
    float *to;
    int64_t stride;
    int64_t row;
    int64_t column;
    double factor;
};

static enum mpo_status copy_half(const struct part *part, const struct ggml_tensor *half,
                                 const struct place *place)
{
    enum mpo_status status = MPO_OK;
    float *room = NULL;
    MPO_NEW(half->ne[0], &room);
    for (int64_t i = 0; i < half->ne[1]; i++) {
        const float *from = read_row(half, i, room);
        float *to = place->to + (place->row + i) * place->stride + place->column;
        MPO_CHECK(from != NULL, MPO_ERR_DATA, "%s: %s is of type %s, expected floats",
                  path_of(part), ggml_get_name(half), ggml_type_name(half->type));
        for (int64_t j = 0; j < half->ne[0]; j++)
            to[j] = (float)(place->factor * from[j]);
    }
cleanup:
    free(room);
    return status;
}

static enum mpo_status copy_pair(const struct part *part, const struct target *target,
                                 struct ggml_tensor *a, struct ggml_tensor *b)
{
    enum mpo_status status = MPO_OK;
    const struct ggml_tensor *from_a = find_half(part, target->name, ".lora_a");
    const struct ggml_tensor *from_b = find_half(part, target->name, ".lora_b");
    if (from_a == NULL)
        return MPO_OK;
    struct place place = {a->data, a->ne[0], part->first, 0, 1.0};
    if (is_embedding(target))
        place = (struct place){a->data, a->ne[0], 0, part->first, 1.0};
    MPO_TRY(copy_half(part, from_a, &place));
    place =
        (struct place){b->data, b->ne[0], 0, part->first, factor_of(part, from_b->ne[0])};
    MPO_TRY(copy_half(part, from_b, &place));
cleanup:
    return status;
}

static struct ggml_tensor *make_half(struct united *united, const char *name,
                                     const char *suffix, const int64_t sizes[2])
{
    char full[MPO_UNITED_NAME_BYTES + SUFFIX_BYTES + 1];
    struct ggml_tensor *half =
        ggml_new_tensor_2d(united->tensors, GGML_TYPE_F32, sizes[0], sizes[1]);
    snprintf(full, sizeof full, "%s%s", name, suffix);
    ggml_set_name(half, full);
    memset(half->data, 0, ggml_nbytes(half));
    gguf_add_tensor(united->file, half);
    return half;
}

static enum mpo_status make_pairs(struct united *united)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < united->target_count; i++) {
        const struct target *target = &united->target[i];
        const int64_t plain[] = {target->inner, united->rank};
        const int64_t turned[] = {united->rank, target->inner};
        const int64_t outer[] = {united->rank, target->outer};
        struct ggml_tensor *a = make_half(united, target->name, ".lora_a",
                                          is_embedding(target) ? turned : plain);
        struct ggml_tensor *b = make_half(united, target->name, ".lora_b", outer);
        for (int32_t p = 0; p < united->part_count; p++)
            MPO_TRY(copy_pair(&united->part[p], target, a, b));
    }
cleanup:
    return status;
}

/* The first adapter's, but for what is another now. */
static enum mpo_status make_file(struct united *united)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = united->target_count * 2 * (ggml_tensor_overhead() + GGML_MEM_ALIGN);
    for (size_t i = 0; i < united->target_count; i++)
        bytes +=
            (size_t)(united->rank * (united->target[i].inner + united->target[i].outer)) *
            sizeof(float);
    const struct ggml_init_params params = {.mem_size = bytes};
    united->file = gguf_init_empty();
    united->tensors = ggml_init(params);
    MPO_CHECK(united->tensors != NULL, MPO_ERR_MEMORY,
              "no memory for an adapter of %zu bytes", bytes);
    gguf_set_kv(united->file, united->part[0].file);
    gguf_set_val_str(united->file, "general.type", "adapter");
    gguf_set_val_str(united->file, TYPE_KEY, "lora");
    gguf_set_val_f32(united->file, ALPHA_KEY, (float)united->rank);
    gguf_remove_key(united->file, "general.name");
    MPO_TRY(make_pairs(united));
cleanup:
    return status;
}

/* ---- both ---- */

/* The parts' files stay. */
static void release_united(struct united *united)
{
    gguf_free(united->file);
    if (united->tensors != NULL)
        ggml_free(united->tensors);
    free(united->target);
    free(united->part);
}

static enum mpo_status unite_parts(struct united *united)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < united->part_count; i++)
        MPO_TRY(list_part(united, &united->part[i]));
    MPO_TRY(make_file(united));
cleanup:
    return status;
}

enum mpo_status mpo_llama_unite(const struct mpo_policy_adapter *adapters, int32_t count,
                                const char *path, int64_t *rank)
{
    enum mpo_status status = MPO_OK;
    struct united united = {.part_count = count};
    struct mpo_llama_listener before = mpo_llama_library_mute();
    MPO_NEW(count, &united.part);
    for (int32_t i = 0; i < count; i++) {
        united.part[i].adapter = &adapters[i];
        MPO_TRY(open_part(&united.part[i]));
    }
    MPO_TRY(unite_parts(&united));
    MPO_TRY(check_ranks(&united));
    MPO_TRY(mpo_united_write(&united, path));
    MPO_TRY(mpo_united_check(&united, path));
    *rank = united.rank;
cleanup:
    mpo_llama_library_unmute(before);
    for (int32_t i = 0; united.part != NULL && i < count; i++)
        close_part(&united.part[i]);
    release_united(&united);
    return status;
}

/* ---- sums in memory ---- */

struct mpo_llama_parts {
    struct mpo_policy_adapter *adapter; /* [count] at the scales of the last sum */
    struct part *part;                  /* [count] */
    int32_t count;
};

enum mpo_status mpo_llama_parts_open(const char *const *path, int32_t count,
                                     struct mpo_llama_parts **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_parts *parts = NULL;
    struct mpo_llama_listener before = mpo_llama_library_mute();
    MPO_NEW(1, &parts);
    MPO_NEW(count, &parts->adapter);
    MPO_NEW(count, &parts->part);
    parts->count = count;
    for (int32_t i = 0; i < count; i++) {
        parts->adapter[i].path = path[i];
        parts->part[i].adapter = &parts->adapter[i];
        MPO_TRY(open_part(&parts->part[i]));
    }
cleanup:
    mpo_llama_library_unmute(before);
    if (status != MPO_OK)
        mpo_llama_parts_close(&parts);
    *out = parts;
    return status;
}

void mpo_llama_parts_close(struct mpo_llama_parts **out)
{
    struct mpo_llama_parts *parts = *out;
    if (parts == NULL)
        return;
    for (int32_t i = 0; i < parts->count; i++)
        close_part(&parts->part[i]);
    free(parts->part);
    free(parts->adapter);
    free(parts);
    *out = NULL;
}

enum mpo_status mpo_llama_parts_sum(struct mpo_llama_parts *parts, const double *scale,
                                    int *out)
{
    enum mpo_status status = MPO_OK;
    struct united united = {0};
    struct mpo_llama_listener before = mpo_llama_library_mute();
    *out = -1;
    MPO_NEW(parts->count, &united.part);
    for (int32_t i = 0; i < parts->count; i++) {
        parts->adapter[i].scale = scale[i];
        parts->part[i].rank = 0;
        if (scale[i] != 0.0)
            united.part[united.part_count++] = parts->part[i];
    }
    if (united.part_count > 0) {
        MPO_TRY(unite_parts(&united));
        MPO_TRY(mpo_united_write_memory(&united, out));
    }
cleanup:
    mpo_llama_library_unmute(before);
    release_united(&united);
    return status;
}
