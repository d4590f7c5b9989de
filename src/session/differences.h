/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What differs between the configuration that a record was made with and the present one.
 */
#pragma once

#include <limits.h>

#include "parts.h"

/** "KEY was RECORDED, is NOW; ...", as far as there is room. All zero: none. */
struct mpo_differences {
    char text[1024];
    size_t length;
};

/** Note another difference. Local. */
void mpo_differences_add(struct mpo_differences *differences, const char *key,
                         const char *recorded, const char *now);

/** The configuration in a record, for the caller to close. Rank zero only.
 *  @return MPO_ERR_DATA when it cannot be read */
enum mpo_status mpo_differences_read(const struct mpo_record *record, const char *path,
                                     struct mpo_config **recorded);

/**
 * Where the relative paths of a recorded configuration begin. The record's own path was
 * written from there too: "/a/b/" of "/a/b/runs/x.h5" that was written as "runs/x.h5".
 * Local.
 *
 * @param path    of the record, now
 * @param folder  out: "" where it is not known
 */
void mpo_differences_find_folder(const char *path, const struct mpo_config *recorded,
                                 char folder[PATH_MAX]);

/** Whether two values that mpo_config_compare prints are paths of one file, however they are
 *  spelled, as from another working directory. Local.
 *  @param folder  where recorded paths may begin, beside the working directory */
bool mpo_differences_is_same_file(const char *folder, const char *recorded,
                                  const char *now);

/**
 * Warn, once, when policies are not what they were when the weights of a record were found:
 * their sections are compared, but for what says only where or how fast they compute, and
 * for bounds and scales, which belong to the weights. Models are compared by their
 * files only where they have no hashes. Rank zero only.
 *
 * @param mixture  out, the rollout.mixture of the record
 */
enum mpo_status mpo_differences_warn(const struct mpo_config *config,
                                     const struct mpo_record *record, const char *path,
                                     enum mpo_mixing *mixture);
