/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The models that a record was made with, against those of this job.
 */
#pragma once

#include "parts.h"

/** What rank zero reads from a record and sends to all ranks. */
struct mpo_models {
    const char *path;             /* the record, borrowed */
    const char *remedy;           /* where they differ; a literal */
    struct mpo_record_rank *rank; /* [count] for the caller to free */
    int32_t count;
};

/** The models in a record; without hashes where the configuration wants none. Rank zero
 *  only. */
enum mpo_status mpo_models_read(const struct mpo_config *config, struct mpo_record *record,
                                struct mpo_models *models);

/**
 * Send the models to all ranks and refuse those of this job that are not the same. Collective
 * over all ranks; failures are agreed on and reported.
 *
 * @param models  as rank zero read them; others pass path and remedy
 * @return MPO_ERR_DATA
 */
enum mpo_status mpo_models_compare(const struct mpo_session *session,
                                   struct mpo_models *models);
