/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The record: the trajectory of a fit in one HDF5 file, schema "mpo-1.1"
 * (src/README.md, The record).
 *
 * Writer: rank zero only, serial library, SWMR, flushed every step. `/step` is written
 * last: a step counted by len(/step) is complete and stays, whatever happens afterwards.
 * /checksum has a sum of all that belongs to a step, which readers of the whole file check:
 *
 *     checksum[n] = sum over data sets d of XXH64(rows of step n in d, seed XXH64(path of d))
 *
 * modulo 2^64, as a signed number; without /step, clocks, and data sets that have no row of
 * that step. `path` is as in h5ls, without a leading slash.
 * Every data set is created before SWMR starts. The trajectory's data sets are declared
 * once, in mpo/record.def. A side file PATH.lock is locked by flock while a run writes.
 *
 * Every dimension is named by a dimension scale; what has no values of its own is a scale
 * as NetCDF makes one. `step`, `objective` and `policy` are those of the root and of all
 * groups; a name means one dimension in the whole file:
 *
 *     responses   response: the index    response_token of token    response_byte of text
 *     prompts     prompt_bound of offset, one more than prompts     prompt_byte of text
 *     provenance  rank of ranks          segment of segments         note_byte of notes
 *
 * Names and units are such that xarray decodes them: objectives and policies are text, and
 * `time` is a time. (Its engine netcdf4 needs NetCDF-C 4.9.1 for the names.)
 *
 * Reader: any process, also during the run; needs no lock.
 *
 * Source: HDF5 single-writer/multiple-reader user's guide; CF conventions 1.10; H5MD 1.1
 * (step/value trajectories).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/rewards.h"
#include "mpo/rollout.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A new minor version only adds data sets; a new major one may change anything. Readers
 * accept their own major version up to their own minor version. */
#define MPO_RECORD_SCHEMA     "mpo-1.1"
#define MPO_RECORD_NAME_BYTES 64

struct mpo_record_writer;

/** An attribute of /provenance. */
struct mpo_record_attribute {
    const char *name;
    const char *value;
};

/** One row of /provenance/ranks: one rank, or one policy of a rank. */
struct mpo_record_rank {
    int32_t rank;
    int32_t local_rank;
    int32_t threads;
    char host[64];
    char device[32];
    char gpu_uuid[48];
    char policy[MPO_RECORD_NAME_BYTES];
    char model[256];
    char sha256[72];
    char lora_sha256[72]; /* "none" without an adapter; "" when not asked for, and in
                               records of older programs */
    char vocabulary[24];  /* hash, hexadecimal */
};

/** Of a run with a reward program. */
struct mpo_record_rewards {
    bool is_objective; /* the descent balances them */
    const char *
        zero_of; /* what zero was measured from: "reference" or "others", the policies but k; before, "uniform"; "": nothing,
                            for it was given or is not needed */
    struct mpo_rewards_scale scale; /* NAN: unknown; errors of what was given are NAN too */
};

/** What a record is created with; texts other than its path may be NULL: "" is kept. */
struct mpo_record_spec {
    const char *path;
    bool force;                   /* move an existing output aside */
    const char *const *objective; /* [objective_count] names */
    const char *const *policy;    /* [policy_count] names, objectives first */
    int32_t objective_count;      /* K */
    int32_t policy_count;         /* H */
    const char *const *prompt;    /* [prompt_count] texts */
    int64_t prompt_count;
    const char *config_text;                      /* the whole configuration as used */
    const struct mpo_record_attribute *attribute; /* [attribute_count] of /provenance */
    int32_t attribute_count;
    const struct mpo_record_rank *rank; /* [rank_count] */
    int32_t rank_count;
    const char *target;                       /* of the gradient: "whole" or "served" */
    const char *average;                      /* of the weights: "uniform" or "linear" */
    double strength;                          /* A of the exponents */
    const double *scale;                      /* [objective_count] a_k */
    const struct mpo_record_rewards *rewards; /* NULL: there is no reward program */
    const char *run_id;
    const char *created_utc;
    const char *git_commit;
    const char *job_id;
};

/** One step's values; members from record.def, [K] arrays borrowed. */
struct mpo_record_row {
    int64_t step;
#define MPO_MEMBER_F64_SCALAR(member)    double member;
#define MPO_MEMBER_I64_SCALAR(member)    int64_t member;
#define MPO_MEMBER_F64_OBJECTIVE(member) const double *member;
#define MPO_FIELD(path, member, type, shape, units, long_name)                             \
    MPO_MEMBER_##type##_##shape(member)
#include "mpo/record.def"
#undef MPO_FIELD
#undef MPO_MEMBER_F64_SCALAR
#undef MPO_MEMBER_I64_SCALAR
#undef MPO_MEMBER_F64_OBJECTIVE
};

/** The step's responses and their text, for /responses. */
struct mpo_record_responses {
    const struct mpo_responses *responses;
    const char *text;          /* all texts, one after another */
    const int64_t *text_bytes; /* [N] bytes of each */
    const double *reward;      /* [N, K] as the program has them; NULL: there is none */
};

/**
 * Create the record and start writing. Rank zero only.
 *
 * @return MPO_ERR_OUTPUT when the path exists (and not force), is locked by another run
 * (the text names host, process and job), or cannot be made; MPO_ERR_IO
 */
enum mpo_status mpo_record_create(const struct mpo_record_spec *spec,
                                  struct mpo_record_writer **out);

/** A start or restart, for /provenance/segments; texts may be NULL. */
struct mpo_record_segment {
    const char *git_commit;
    const char *job_id;
    const char *start_utc;
    const char *note; /* a line for /provenance/notes; NULL: nothing has changed */
};

/**
 * Continue a record after its acknowledged steps and add a row to its segments. Leftovers
 * of an unfinished step are dropped. A record that its writer left open is first repaired
 * on a copy, which takes its place in one move (as mpo_record_recover), so that a kill at
 * any moment leaves a whole record. A link is followed. Rank zero only.
 *
 * @param step_count the number of steps that the caller saw; a record that has changed
 *                    since is refused
 * @return MPO_ERR_OUTPUT when another run writes it; MPO_ERR_DATA; MPO_ERR_IO
 */
enum mpo_status mpo_record_resume(const char *path,
                                  const struct mpo_record_segment *segment,
                                  int64_t step_count, struct mpo_record_writer **out);

/** Whether the disk has room for the copy on which mpo_record_resume repairs a record that its
 *  writer left open. Nothing is made. Local. @return MPO_ERR_IO, MPO_ERR_INPUT */
enum mpo_status mpo_record_check_repair(const char *path);

/** Whether mpo_record_create would refuse the path: its lock is taken and given back, and
 *  nothing else is made. A file system without locks is a warning. Local.
 *  @return MPO_ERR_OUTPUT, MPO_ERR_PERMISSION, MPO_ERR_IO */
enum mpo_status mpo_record_check(const char *path, bool force);

/** What a record will hold. Plain data. */
struct mpo_record_extent {
    int64_t steps;
    int64_t step_responses;  /* of a step, 0: they are not kept */
    int64_t response_tokens; /* of each response */
    int64_t response_bytes;  /* of its text */
    int32_t objective_count; /* K */
    int32_t policy_count;    /* H */
    bool has_rewards;        /* of a reward program */
};

/** Bytes of its file, about, from below: names and configuration are taken to be short.
 *  Local. */
uint64_t mpo_record_bytes(const struct mpo_record_extent *extent);

/** Whether the path's folder is on NFS, SMB or CIFS. Local. */
bool mpo_record_is_on_network(const char *path);

/** The advice for that case, after the path. */
#define MPO_RECORD_NETWORK_ADVICE                                                          \
    "is on a network file system, where HDF5 guarantees nothing to readers while it "      \
    "is written; prefer a local or parallel one"

/** Append one step: everything else first, `/step` last, then flush. On MPO_OK the step is
 *  acknowledged. Rank zero only.
 *  @param responses  NULL: store none (record.responses: false)
 *  @return MPO_ERR_IO, for instance on a full disk; acknowledged steps stay readable;
 *  MPO_ERR_USAGE for a step that does not follow the last one */
enum mpo_status mpo_record_append(struct mpo_record_writer *writer,
                                  const struct mpo_record_row *row,
                                  const struct mpo_record_responses *responses);

/** Close and remove the record of a run that failed before its first step, so that it
 *  blocks no later run, and release the lock; a record with steps is left as it is.
 *  NULL-safe. Rank zero only. */
void mpo_record_discard(struct mpo_record_writer **writer);

/** Close, check the file's end, release the lock; NULL-safe. Rank zero only.
 *  @return MPO_ERR_IO when not everything reached the file */
enum mpo_status mpo_record_finish(struct mpo_record_writer **writer);

/* ---- reading ---- */

struct mpo_record;

/** Open a record: finished, being written, or left by a crash (its acknowledged steps are
 *  readable, and mpo_record_is_complete() is false). Local.
 *  @return MPO_ERR_INPUT no such file; MPO_ERR_PERMISSION; MPO_ERR_IO; MPO_ERR_DATA not a
 *          record, another schema, or damaged (the text says what to do) */
enum mpo_status mpo_record_open(const char *path, struct mpo_record **out);
void mpo_record_close(struct mpo_record **record);

/** Look for new steps of a live record. A record that was moved aside for another run is
 *  not live any more. Local. */
enum mpo_status mpo_record_refresh(struct mpo_record *record);

/**
 * Look at all acknowledged steps: whether the file has them whole. Local.
 *
 * @return MPO_ERR_DATA with what is damaged or missing; MPO_ERR_MEMORY
 */
enum mpo_status mpo_record_verify(struct mpo_record *record);

/** True if a run held the record's lock at the last open or refresh. Local. */
bool mpo_record_is_live(const struct mpo_record *record);

/** True if the writer had closed the file properly at the last open or refresh. Neither
 *  live nor complete: the run was killed. Local. */
bool mpo_record_is_complete(const struct mpo_record *record);

/** Sizes, and names of objectives and policies, borrowed; of the steps those at the last
 *  open or refresh. Local. */
int64_t mpo_record_step_count(const struct mpo_record *record);      /* N = len(/step) */
int32_t mpo_record_objective_count(const struct mpo_record *record); /* K */
int32_t mpo_record_policy_count(const struct mpo_record *record);    /* H */
const char *mpo_record_objective(const struct mpo_record *record, int32_t index);
const char *mpo_record_policy(const struct mpo_record *record, int32_t index);

/** A root or provenance attribute as text, "" when absent; borrowed. Local. */
const char *mpo_record_attribute(const struct mpo_record *record, const char *name);

/** What the record was fitted for: whole in schema mpo-1.0. Local. */
enum mpo_target mpo_record_target(const struct mpo_record *record);

/** Rows first_step .. first_step+count-1 of a trajectory data set as doubles. Local.
 *  @param path    as in record.def, for instance "weights" or "timing/decode", or "step"
 *  @param values  [count, columns] out; columns is K for OBJECTIVE fields, else 1
 *  @return MPO_ERR_USAGE for steps that the record does not have; MPO_ERR_DATA */
enum mpo_status mpo_record_read(struct mpo_record *record, const char *path,
                                int64_t first_step, int64_t count, double *values);

/** What the exponents of the record's mixture are made of beside the weights: 1 and all 1 in
 *  schema mpo-1.0. Local. @param scale  [K] out */
enum mpo_status mpo_record_read_exponents(const struct mpo_record *record, double *strength,
                                          double *scale);

/** The scale of the rewards, [K] each and NAN where it is unknown; whether the run had a
 *  reward program, and else nothing is filled in. zero_of is borrowed. Local. */
enum mpo_status mpo_record_read_rewards(const struct mpo_record *record,
                                        struct mpo_record_rewards *out, bool *exists);

/** Rows of /provenance/ranks: policy, both hashes and vocabulary of each, other members are
 *  zero, and so are those that an older program did not store. *rank [*count] is owned by
 *  the caller; *count is 0 when there are none. Local. */
enum mpo_status mpo_record_read_ranks(struct mpo_record *record,
                                      struct mpo_record_rank **rank, int32_t *count);

/** Scores of the stored responses of acknowledged steps, in the order they were drawn. */
struct mpo_record_scores {
    int64_t count;        /* R */
    int32_t policy_count; /* H */
    int64_t *step;        /* [R] step that drew the response */
    int64_t *prompt;      /* [R] index of the prompt */
    double *log_proposal; /* [R] nat */
    double *log_policy;   /* [R, H] nat */
};

/** Read them; count is 0 when the run stored none. Released by mpo_record_release_scores.
 *  Local. @return MPO_ERR_DATA when the file is damaged */
enum mpo_status mpo_record_read_scores(const struct mpo_record *record,
                                       struct mpo_record_scores *out);
void mpo_record_release_scores(struct mpo_record_scores *scores);

/** Rewards [count, K], control [count, H] and tokens [count] of the first `count` stored responses, in a record
 *  that has rewards. Local. @return MPO_ERR_DATA when there are fewer */
enum mpo_status mpo_record_read_response_rewards(const struct mpo_record *record,
                                                 int64_t count, double *reward,
                                                 double *control, int64_t *tokens);

/** Whether the record has a data set: records of an older minor version lack those added
 *  since. Local. */
enum mpo_status mpo_record_has(const struct mpo_record *record, const char *path,
                               bool *exists);

/** A stored response and its prompt as texts in UTF-8, owned. */
struct mpo_record_sample {
    int64_t prompt; /* index of the prompt */
    int32_t token_count;
    bool ended; /* with an end token, not cut at max_tokens */
    char *text;
    char *prompt_text;
};

/** Read response `index` of mpo_record_read_scores. Released by
 *  mpo_record_release_sample. Local. @return MPO_ERR_DATA when the file is damaged */
enum mpo_status mpo_record_read_sample(const struct mpo_record *record, int64_t index,
                                       struct mpo_record_sample *out);
void mpo_record_release_sample(struct mpo_record_sample *sample);

/** The configuration as used, YAML; *text is owned by the caller. Local. */
enum mpo_status mpo_record_read_config(const struct mpo_record *record, char **text);

/** What was changed when the run was resumed, a JSON line for each change (fit says which); ""
 *  where nothing was. *text is owned by the caller. Local. */
enum mpo_status mpo_record_read_notes(const struct mpo_record *record, char **text);

/* ---- repairing ---- */

struct mpo_record_recovery {
    bool repaired;             /* false: the record was closed properly; no copy was made */
    int64_t step_count;        /* acknowledged steps, all kept */
    int64_t response_count;    /* their responses, all kept */
    int64_t surplus_steps;     /* rows that no acknowledged step wrote, left out */
    int64_t surplus_responses; /* likewise, of responses */
};

/**
 * Repair a record that its writer left open: make a closed copy at `output` with every
 * acknowledged step, compared with the original value by value, which any program can read.
 * The original is never written. Local.
 *
 * @return MPO_ERR_OUTPUT when a run is writing the record (the text names it), or `output`
 *         exists or cannot be made; MPO_ERR_INPUT, MPO_ERR_DATA and the others of
 *         mpo_record_open
 */
enum mpo_status mpo_record_recover(const char *path, const char *output,
                                   struct mpo_record_recovery *out);

/** The fields of record.def, for printing. */
struct mpo_record_field {
    const char *path;
    const char *type;  /* "F64", "I64" */
    const char *shape; /* "SCALAR", "OBJECTIVE" */
    const char *units;
    const char *long_name;
};

/** How many there are, and each of them; borrowed. Local. */
int32_t mpo_record_field_count(void);
const struct mpo_record_field *mpo_record_field(int32_t index);

/** Version of the HDF5 library, e.g. "1.10.8". Local. */
const char *mpo_record_library_version(void);

#ifdef __cplusplus
}
#endif
