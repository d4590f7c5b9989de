/* SPDX-License-Identifier: Apache-2.0 */
/**
 * log Z of prompts from the responses that a record keeps, with no model.
 */
#pragma once

#include "end_bias.h"
#include "weights.h"

/**
 * log Z_x at any exponents for the prompts of a query, by importance sampling over the record's
 * responses to each (estimator/sample.h). Known are prompts of a record of target whole, whose
 * tilt lets its responses end as whole ones do, if it has the session's prompts and cut and
 * enough of its responses count (mpo_sample_is_known) for a standard error of a quarter nat. Collective over all ranks; failures are
 * agreed on and reported.
 *
 * @param choice  weights of a record, or others: then nothing is known
 * @param out     [prompt_count] nat, NAN where it is not known; the same on all ranks
 */
enum mpo_status mpo_session_recorded_log_z(const struct mpo_session *session,
                                           const struct mpo_weights_choice *choice,
                                           const struct mpo_end_bias_query *query,
                                           double *out);
