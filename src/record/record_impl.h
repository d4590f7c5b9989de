/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of this folder share: the data sets, HDF5's errors, and the lock.
 *
 * HDF5 is called in this folder only. Its own printing is off; MPO_TRY_HDF5 turns its
 * innermost message into ours.
 */
#pragma once

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "mpo/record.h"

#define MPO_RECORD_TEXT_BYTES 512

/* ---- errors (record/hdf5.c) ---- */

/** Raise "<what>: <HDF5's reason>" and clear HDF5's stack. Local. */
enum mpo_status mpo_record_hdf5_raise(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Relay a failure of HDF5 as MPO_ERR_IO (beyond a limit MPO_ERR_MEMORY), or MPO_ERR_DATA while reading; the text after the
 *  call says which object. */
#define MPO_TRY_HDF5(call, ...)                                                            \
    do {                                                                                   \
        if ((call) < 0) {                                                                  \
            status = mpo_record_hdf5_raise(__FILE__, __LINE__, __VA_ARGS__);               \
            goto cleanup;                                                                  \
        }                                                                                  \
    } while (0)

/** First call of every entry: no printing by HDF5 on this thread, no closing at exit. */
void mpo_record_hdf5_prepare(void);

/** Release an identifier of any kind and leave it invalid; an invalid one is left alone. */
void mpo_record_hdf5_release(hid_t *id);

/* ---- data sets (record/fields.c) ---- */

/** A growing data set: its extent is [rows] or [rows, columns]. */
struct mpo_record_column {
    hid_t id;
    hid_t memory_type; /* predefined, not owned */
    const char *path;
    hsize_t rows;
    hsize_t columns; /* 0: one-dimensional */
    size_t row_bytes;
    uint64_t seed; /* of its sums: XXH64 of the path */
    bool is_clock; /* not summed: the same run has other values the next time */
};

/* One constant per field of record.def, in its order. */
enum mpo_record_field_index {
#define MPO_FIELD(path, member, type, shape, units, long_name) MPO_RECORD_FIELD_##member,
#include "mpo/record.def"
#undef MPO_FIELD
    MPO_RECORD_FIELD_COUNT
};

/* Rows of a chunk of the trajectory. */
#define MPO_RECORD_FIELD_CHUNK_ROWS 64

/* Growing data sets of /responses: name, type, columns, rows of a chunk, units, sentence.
 * `response` is the dimension scale of all but `token` and `text`, which hold all responses
 * one after another and have dimensions of their own, response_token and response_byte. */
#define MPO_RECORD_RESPONSE_LIST(X)                                                        \
    X(response, I64, 0, 512, "1", "index of the response")                                 \
    X(step, I64, 0, 512, "1", "step that drew the response")                               \
    X(prompt, I64, 0, 512, "1", "index of the prompt in /prompts")                         \
    X(token_count, I32, 0, 512, "1", "tokens, a drawn end token included")                 \
    X(ended, I32, 0, 512, "1", "1: ends with an end token, 0: cut at max_tokens")          \
    X(log_proposal, F64, 0, 512, "nat", "log-probability under the proposal")              \
    X(log_policy, F64, H, 512, "nat", "log-probability under each policy")                 \
    X(control, F64, H, 512, "nat", "log-probability less its mean, summed over tokens")    \
    X(reward, F64, K, 512, "1", "reward for each objective, as the reward program has it") \
    X(token_offset, I64, 0, 512, "1", "first token of the response in token")              \
    X(token, I32, 0, 8192, "1", "token ids, one response after another")                   \
    X(text_offset, I64, 0, 512, "byte", "first byte of the response in text")              \
    X(text_bytes, I64, 0, 512, "byte", "bytes of the response's text")                     \
    X(text, U8, 0, 16384, "1", "text in UTF-8, one response after another")

enum mpo_record_response_index {
#define MPO_RECORD_RESPONSE_ENUM(name, ...) MPO_RECORD_RESPONSE_##name,
    MPO_RECORD_RESPONSE_LIST(MPO_RECORD_RESPONSE_ENUM)
#undef MPO_RECORD_RESPONSE_ENUM
        MPO_RECORD_RESPONSE_COUNT
};

/** The file, its creation properties and every growing data set. */
struct mpo_record_schema {
    hid_t file;
    hid_t objective;   /* dimension scale */
    hid_t policy;      /* dimension scale */
    bool has_rewards;  /* has /rewards and /responses/reward */
    bool is_by_reward; /* the gradient is of rewards, which have no unit */
    struct mpo_record_column step;
    struct mpo_record_column checksum;
    struct mpo_record_column field[MPO_RECORD_FIELD_COUNT];
    struct mpo_record_column response[MPO_RECORD_RESPONSE_COUNT];
};

/** Attribute of text, of variable length because h5py and xarray give those as str. */
enum mpo_status mpo_record_put_attribute(hid_t object, const char *name, const char *value);

/** units and long_name of a data set. */
enum mpo_status mpo_record_put_units(hid_t object, const char *units,
                                     const char *long_name);

/** Let a file that is written keep few chunks of each data set in memory. */
enum mpo_status mpo_record_set_chunk_cache(hid_t access);

/** A data set creation or group creation list without time stamps; *out is owned. */
enum mpo_status mpo_record_make_properties(hid_t class_id, hid_t *out);

/** Make the growing data sets; the two scales of `schema` exist already. */
enum mpo_status mpo_record_make_columns(struct mpo_record_schema *schema,
                                        int32_t objectives, int32_t policies);

/** Every identifier invalid, every count zero. */
void mpo_record_invalidate(struct mpo_record_schema *schema);

/** Refuse an extent that the file cannot hold, before anything is allocated from it. */
enum mpo_status mpo_record_check_extent(hid_t data_set, const char *path,
                                        const hsize_t extent[2]);

/** Borrowed; -1 if HDF5 does not provide it. */
int mpo_record_descriptor(hid_t file);

/** Whether a file has "name" or "group/name". */
enum mpo_status mpo_record_has_path(hid_t file, const char *path, htri_t *exists);

/** Open the growing data sets of an existing file with their rows and columns; those
 *  missing in an older file stay invalid. The identifiers are owned by the caller. */
enum mpo_status mpo_record_open_columns(hid_t file, struct mpo_record_schema *schema);

/** Whether schema mpo-1.0, which a resumed record may have, lacks the field. Local. */
bool mpo_record_came_later(enum mpo_record_field_index field);

/** Whether it is there in records of runs with a reward program alone. Local. */
bool mpo_record_is_of_rewards(enum mpo_record_field_index field);

/** Append rows to a growing data set; one that the file lacks takes none. Local, allocates
 *  nothing by itself. */
enum mpo_status mpo_record_append_rows(struct mpo_record_column *column, size_t rows,
                                       const void *source);

/* ---- dimensions (record/scales.c) ---- */

/** Names along a dimension. */
struct mpo_record_names {
    const char *path;
    const char *long_name;
    const char *const *name; /* [count] */
    int32_t count;
};

/** Say that a data set of fixed-length text is UTF-8, so that xarray decodes it. */
enum mpo_status mpo_record_put_encoding(hid_t data_set);

/** The scale with these names as its values; *out is owned by the caller. */
enum mpo_status mpo_record_make_names(hid_t file, const struct mpo_record_names *names,
                                      hid_t *out);

/** Name the first dimension of a data set: make a scale without values at `path`, which
 *  grows if the data set does, and attach it. */
enum mpo_status mpo_record_name_dimension(hid_t file, const char *path, hid_t data_set);

/* ---- what is complete when the file is made (record/create.c, record/tables.c) ---- */

/** A data set that is written once, with a checksum; one that grows has few rows. */
struct mpo_record_fixed {
    const char *path;
    const char *units;
    const char *long_name;
    const char *dimension; /* path of its name; NULL for a scale */
    hid_t file_type;
    hid_t memory_type;
    hsize_t rows;
    bool grows;
    hsize_t chunk_rows; /* 0: as many as there are, up to a limit */
};

/** Make it; *out is owned by the caller, NULL closes it. */
enum mpo_status mpo_record_make_fixed(hid_t file, const struct mpo_record_fixed *spec,
                                      const void *source, hid_t *out);

/** Fixed-length text: NUL-terminated in memory, padded with NUL in the file. */
enum mpo_status mpo_record_make_text_type(size_t bytes, H5T_str_t padding, hid_t *out);

/** /provenance/ranks and /provenance/segments. */
enum mpo_status mpo_record_make_tables(hid_t file, const struct mpo_record_spec *spec);

/** Add a row to /provenance/segments and flush it. */
enum mpo_status mpo_record_append_segment(hid_t file, int64_t first_step,
                                          const struct mpo_record_segment *segment);

/** Add a line to /provenance/notes and flush it. @return MPO_ERR_DATA where a record has none */
enum mpo_status mpo_record_append_note(hid_t file, const char *line);

/* ---- the lock and the path (record/lock.c) ---- */

struct mpo_record_lock {
    int descriptor;  /* -1: not held */
    char *path;      /* owned */
    bool is_refused; /* the file system has no locks */
};

/** Lock PATH.lock, or refuse with the holder's name (MPO_ERR_OUTPUT). */
enum mpo_status mpo_record_lock_take(const char *path, const char *job_id,
                                     struct mpo_record_lock *lock);

/** Remove the lock file and unlock; harmless if not held. */
void mpo_record_lock_drop(struct mpo_record_lock *lock);

#define MPO_RECORD_HOLDER_BYTES 256

/** True while some process holds the lock of `path`, and then who it is. Local. */
bool mpo_record_lock_names_holder(const char *path, char holder[MPO_RECORD_HOLDER_BYTES]);

/** True while some process holds the lock of `path`. Local. */
bool mpo_record_lock_is_held(const char *path);

/** Refuse what is at the path, or with force move a record aside to PATH.1, PATH.2, ... The
 *  lock is held. */
enum mpo_status mpo_record_make_room(const char *path, bool force);

/* ---- the writer (record/create.c, record/write.c) ---- */

/** A record that takes longer to read back than this is read back only where something tells
 *  that it changed: a run that is asked to stop has seconds left. */
#define MPO_RECORD_LOOK_SECONDS_MAX 1.0

/** The file as its writer left it (record/guard.c). */
struct mpo_record_guard {
    struct stat left;
    char head[28]; /* of the superblock, up to the end of the file that it notes */
    bool is_set;
    bool is_told;        /* of a touch, once */
    bool is_foreign;     /* its first bytes are not the writer's: nor is what follows */
    int by_name;         /* open as a path, of which the kernel says where it is; -1: not */
    char *moved_to;      /* the path that it has now; owned, NULL: the writer's */
    double next_look;    /* of mpo_timing_now */
    double look_seconds; /* that the last look took */
};

struct mpo_record_writer {
    struct mpo_record_schema schema;
    struct mpo_record_lock lock;
    struct mpo_record_guard guard;
    char *path;
    int32_t objective_count;
    int32_t policy_count;
    int64_t last_step;
    uint64_t sum; /* of the step that is being written */
    bool broken;  /* a write failed: HDF5 must not touch the file any more */
    void *gather; /* grown to one step's largest column of responses */
    size_t gather_capacity;
};

/** A writer without a file yet that holds the lock of `path`. */
enum mpo_status mpo_record_writer_new(const char *path, const char *job_id,
                                      struct mpo_record_writer **out);

/** Note how the file was left; after everything that writes. Local. */
void mpo_record_guard_note(struct mpo_record_writer *writer);

/** Whether it is still so; MPO_ERR_IO with what happened to it. Local. */
enum mpo_status mpo_record_guard_check(struct mpo_record_writer *writer);

/** Read the file beside its writer as a reader does. The error's text stays. Local.
 *  @param steps  acknowledged steps that are whole; -1 where the file is not
 *  @return what the reader met */
enum mpo_status mpo_record_read_back(const struct mpo_record_writer *writer,
                                     int64_t *steps);

/** Close the file unless a write failed, unlock, free. NULL-safe. */
void mpo_record_writer_free(struct mpo_record_writer **writer);

/* ---- what is acknowledged (record/verify.c) ---- */

#define MPO_RECORD_FIRST_FIELD    2 /* after /step and /checksum */
#define MPO_RECORD_FIRST_RESPONSE (MPO_RECORD_FIRST_FIELD + MPO_RECORD_FIELD_COUNT)
#define MPO_RECORD_COLUMN_COUNT   (MPO_RECORD_FIRST_RESPONSE + MPO_RECORD_RESPONSE_COUNT)

/** Rows of the growing data sets that belong to acknowledged steps. */
struct mpo_record_kept {
    int64_t steps;
    int64_t responses;
    int64_t tokens;
    int64_t text_bytes;
};

/** The columns of a schema in one order: /step, /checksum, the fields, the responses. */
struct mpo_record_column *mpo_record_column_at(struct mpo_record_schema *schema,
                                               int32_t index);

/** Acknowledged rows of the column of that index. */
int64_t mpo_record_rows_to_keep(const struct mpo_record_kept *kept, int32_t index);

/** Release the identifiers of all columns. */
void mpo_record_close_columns(struct mpo_record_schema *schema);

/** Read rows of an open column into memory of its type. */
enum mpo_status mpo_record_read_column(const struct mpo_record_column *column,
                                       hsize_t first, hsize_t rows, void *out);

/** Count the rows of kept->steps steps; MPO_ERR_DATA where a column has fewer. */
enum mpo_status mpo_record_count_kept(struct mpo_record_schema *schema,
                                      struct mpo_record_kept *kept);

/** The first rows of a column of whole numbers of eight bytes; *out is owned. */
enum mpo_status mpo_record_read_numbers(struct mpo_record_column column, int64_t rows,
                                        int64_t **out);

/* ---- sums of steps (record/sums.c) ---- */

/** Add the rows that a step appends to a column; a clock and a column that the file lacks
 *  add nothing. Local. */
void mpo_record_sum_add(const struct mpo_record_column *column, size_t rows,
                        const void *source, uint64_t *sum);

/** Whether every acknowledged step has the sum that its writer noted; MPO_ERR_DATA where not.
 *  Records of older programs have no sums and pass. The columns are open. */
enum mpo_status mpo_record_check_sums(const struct mpo_record_schema *schema,
                                      const struct mpo_record_kept *kept);

/* ---- repairing (record/recover.c) ---- */

/** mpo_record_recover for a caller that holds the record's lock. */
enum mpo_status mpo_record_repair(const char *path, const char *output,
                                  struct mpo_record_recovery *out);

/* ---- the reader (record/read*.c) ---- */

struct mpo_record_text_attribute {
    char *name;
    char *value;
};

struct mpo_record {
    char *path;
    hid_t file;
    struct stat identity; /* of the opened file: device and inode */
    bool live;
    bool complete;
    bool swmr;   /* opened beside a writer, or after a crash */
    bool beside; /* the writer is in this process */
    int64_t step_count;
    char (*objective)[MPO_RECORD_NAME_BYTES + 1]; /* [objective_count] */
    char (*policy)[MPO_RECORD_NAME_BYTES + 1];    /* [policy_count] */
    int32_t objective_count;
    int32_t policy_count;
    struct mpo_record_text_attribute
        *attribute; /* [attribute_count] of the root, then of /provenance */
    size_t attribute_count;
    size_t attribute_capacity;
};

/** mpo_record_open while a writer of this process has the file open. Local. */
enum mpo_status mpo_record_open_beside(const char *path, struct mpo_record **out);

/** Rows of a growing data set: first .. first + count - 1, each of `columns` elements. */
struct mpo_record_rows {
    const char *path;
    hid_t type; /* in memory, not owned */
    hsize_t columns;
    int64_t first;
    int64_t count;
};

/** Read rows with the current extent in the file; *rows is checked against it. Local. */
enum mpo_status mpo_record_read_rows(const struct mpo_record *record,
                                     const struct mpo_record_rows *rows, void *values);

/** Current number of rows of a data set. Local. */
enum mpo_status mpo_record_count_rows(const struct mpo_record *record, const char *path,
                                      int64_t *count);

/** How many leading rows of responses/step belong to steps up to `last`. Leftovers of an
 *  unacknowledged step belong to a later step or were never written (-1). Local. */
int64_t mpo_record_acknowledged_rows(const int64_t *step, int64_t rows, int64_t last);

/** Turn a failure of an opened file into MPO_ERR_DATA
 *  with the path in front of its text. */
enum mpo_status mpo_record_reword(const struct mpo_record *record, enum mpo_status status);
