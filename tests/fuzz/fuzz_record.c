/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing the reader of records.
 *
 * HDF5 1.10 crashes on corrupt files by its own doing, so flipping bits of a file would
 * find HDF5's bugs and hide ours. Instead an input says how to damage the contents of a
 * valid record (record_damage.h): HDF5 itself writes the damaged file, so what breaks when
 * it is read is the reader's trust in sizes, shapes, types, offsets and indices.
 *
 * Byte 0 of an input: odd marks the file as left open by a crash, which is read in another
 * way and can be repaired. Then four bytes a piece of damage. The empty input is a valid
 * record; only sizes that a file of this size cannot hold may ask for much memory, and the
 * reader must not believe them.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/record/record_example.h"
#include "fuzz_case.h"
#include "base/memory.h"
#include "record_damage.h"

#define STEPS       2
#define DAMAGES_MAX 16
/* The superblock: its flags, and the checksum of what is before it (HDF5 file format 3.0,
 * section II.A, version 3). */
#define FLAGS_BYTE    11
#define OPEN_FLAGS    5
#define CHECKED_BYTES 44

/* Exported by the library, though in none of its public headers. */
extern uint32_t H5_checksum_metadata(const void *data, size_t bytes, uint32_t initial);
extern int64_t H5I_nmembers(H5I_type_t type);

/* HDF5 keeps what it frees in lists of its own, and the sanitizer now and then
 * takes such a piece for lost. What our code can lose are HDF5's identifiers, which
 * are counted below. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5";
}

struct image {
    char *data;
    size_t bytes;
};

static struct image valid;
static char folder[256];
static char written[sizeof folder + 16];
static char repaired[sizeof folder + 16];

/* ---- the files ---- */

static void remove_folder(void)
{
    unlink(written);
    rmdir(folder);
}

static void make_folder(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.200s/mpo-fuzz-XXXXXX", base != NULL ? base : "/tmp");
    fuzz_check(mkdtemp(folder) != NULL, "no folder for a record");
    snprintf(written, sizeof written, "%s/run.h5", folder);
    snprintf(repaired, sizeof repaired, "%s/repaired.h5", folder);
    atexit(remove_folder);
}

static enum mpo_status write_valid(void)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_spec spec = example_spec(written);
    MPO_TRY(mpo_record_create(&spec, &writer));
    MPO_TRY(example_append(writer, 0, STEPS));
    MPO_TRY(mpo_record_finish(&writer));
cleanup:
    mpo_record_finish(&writer);
    return status;
}

static void load_valid(struct image *out)
{
    FILE *stream = fopen(written, "rb");
    fuzz_check(stream != NULL && fseek(stream, 0, SEEK_END) == 0, "no valid record");
    out->bytes = (size_t)ftell(stream);
    out->data = malloc(out->bytes);
    rewind(stream);
    fuzz_check(fread(out->data, 1, out->bytes, stream) == out->bytes, "no valid record");
    fclose(stream);
}

/* The valid record with the damage of an input; data is owned by the caller. */
static struct image damaged(const uint8_t *data, size_t bytes)
{
    struct image image = {0};
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, (size_t)1 << 20, false);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_file_image(access, valid.data, valid.bytes);
    hid_t file = H5Fopen("memory", H5F_ACC_RDWR, access);
    for (size_t i = 0; i < DAMAGES_MAX && 1 + 4 * (i + 1) <= bytes; i++) {
        const uint8_t *at = data + 1 + 4 * i;
        record_damage_apply(file, &(struct record_damage){at[0], at[1], at[2], at[3]});
    }
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    image.bytes = (size_t)H5Fget_file_image(file, NULL, 0);
    image.data = malloc(image.bytes);
    fuzz_check(H5Fget_file_image(file, image.data, image.bytes) == (ssize_t)image.bytes,
               "HDF5 gives no image of the damaged record");
    H5Fclose(file);
    H5Pclose(access);
    H5Eclear2(H5E_DEFAULT);
    return image;
}

/* H5Fget_file_image takes the mark of an open file away and forgets the checksum. */
static void mark(struct image *image, bool crashed)
{
    image->data[FLAGS_BYTE] = crashed ? OPEN_FLAGS : 0;
    const uint32_t sum = H5_checksum_metadata(image->data, CHECKED_BYTES, 0);
    memcpy(image->data + CHECKED_BYTES, &sum, sizeof sum);
}

/* A file on a disk, because HDF5 wants to know its real path. */
static void save(const struct image *image)
{
    FILE *stream = fopen(written, "wb");
    fuzz_check(stream != NULL &&
                   fwrite(image->data, 1, image->bytes, stream) == image->bytes &&
                   fclose(stream) == 0,
               "the damaged record cannot be written");
}

/* ---- reading everything there is ---- */

static enum mpo_status read_fields(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    const int64_t steps = mpo_record_step_count(record);
    const int64_t columns = mpo_record_objective_count(record);
    double *value = NULL;
    MPO_NEW(steps * columns, &value);
    MPO_TRY(mpo_record_read(record, "step", 0, steps, value));
    for (int32_t i = 0; i < mpo_record_field_count(); i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        const bool is_vector = strcmp(field->shape, "OBJECTIVE") == 0;
        bool exists = false;
        MPO_TRY(mpo_record_has(record, field->path, &exists));
        if (exists)
            MPO_TRY(mpo_record_read(record, field->path, 0, steps, value));
        fuzz_touch(value, (size_t)(is_vector ? steps * columns : steps) * sizeof *value);
    }
cleanup:
    free(value);
    return status;
}

static enum mpo_status read_names(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_rank *rank = NULL;
    int32_t count = 0;
    for (int32_t i = 0; i < mpo_record_objective_count(record); i++)
        fuzz_check(strlen(mpo_record_objective(record, i)) <= MPO_RECORD_NAME_BYTES,
                   "name");
    for (int32_t i = 0; i < mpo_record_policy_count(record); i++)
        fuzz_check(strlen(mpo_record_policy(record, i)) <= MPO_RECORD_NAME_BYTES, "name");
    MPO_TRY(mpo_record_read_ranks(record, &rank, &count));
    for (int32_t i = 0; i < count; i++) {
        fuzz_check(strlen(rank[i].policy) < sizeof rank->policy, "a name without an end");
        fuzz_check(strlen(rank[i].sha256) < sizeof rank->sha256, "a hash without an end");
        fuzz_check(strlen(rank[i].lora_sha256) < sizeof rank->lora_sha256, "likewise");
        fuzz_check(strlen(rank[i].vocabulary) < sizeof rank->vocabulary, "likewise");
    }
cleanup:
    free(rank);
    return status;
}

static enum mpo_status read_responses(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_scores scores = {0};
    struct mpo_record_sample sample = {0};
    MPO_TRY(mpo_record_read_scores(record, &scores));
    const size_t count = (size_t)scores.count;
    fuzz_touch(scores.step, count * sizeof *scores.step);
    fuzz_touch(scores.prompt, count * sizeof *scores.prompt);
    fuzz_touch(scores.log_proposal, count * sizeof *scores.log_proposal);
    fuzz_touch(scores.log_policy,
               count * (size_t)scores.policy_count * sizeof *scores.log_policy);
    for (int64_t i = 0; i < scores.count; i++) {
        MPO_TRY(mpo_record_read_sample(record, i, &sample));
        fuzz_touch(sample.text, strlen(sample.text));
        fuzz_touch(sample.prompt_text, strlen(sample.prompt_text));
        mpo_record_release_sample(&sample);
    }
cleanup:
    mpo_record_release_sample(&sample);
    mpo_record_release_scores(&scores);
    return status;
}

/* But for types, of which HDF5 makes some for every new kind of conversion. The public
 * H5Inmembers refuses to count the library's own kinds. */
static int64_t open_identifiers(void)
{
    int64_t sum = 0;
    for (H5I_type_t type = H5I_FILE; type < H5I_NTYPES; type++)
        if (type != H5I_DATATYPE)
            sum += H5I_nmembers(type);
    return sum;
}

static enum mpo_status first_failure(enum mpo_status first, enum mpo_status second)
{
    return first != MPO_OK ? first : second;
}

/* Every reader runs, whatever the others find. */
static enum mpo_status read_everything(void)
{
    struct mpo_record *record = NULL;
    char *config = NULL;
    enum mpo_status status = mpo_record_open(written, &record);
    fuzz_check((status == MPO_OK) == (record != NULL), "a status that does not fit");
    if (status != MPO_OK)
        return status;
    const int64_t identifiers = open_identifiers();
    status = first_failure(status, read_names(record));
    status = first_failure(status, read_fields(record));
    status = first_failure(status, read_responses(record));
    status = first_failure(status, mpo_record_read_config(record, &config));
    status = first_failure(status, mpo_record_refresh(record));
    /* Closing the file closes what is open in it, and would hide what was left open. */
    fuzz_check(open_identifiers() == identifiers, "a reader leaves something open");
    free(config);
    mpo_record_close(&record);
    return status;
}

static enum mpo_status repair(void)
{
    struct mpo_record_recovery recovery = {0};
    const enum mpo_status status = mpo_record_recover(written, repaired, &recovery);
    fuzz_check((status == MPO_OK) == (access(repaired, F_OK) == 0), "a half-made repair");
    unlink(repaired);
    return status;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    make_folder();
    fuzz_check(write_valid() == MPO_OK, "no valid record");
    load_valid(&valid);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const bool crashed = bytes > 0 && data[0] % 2 == 1;
    struct image image = damaged(data, bytes);
    mark(&image, crashed);
    save(&image);
    const int64_t identifiers = open_identifiers();
    enum mpo_status status = read_everything();
    if (crashed)
        status = first_failure(status, repair());
    fuzz_check(open_identifiers() == identifiers, "something stays open after a record");
    fuzz_verdict(status);
    free(image.data);
    return 0;
}
