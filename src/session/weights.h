/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The weights that a command uses.
 */
#pragma once

#include "parts.h"

/** As the command's options have them; strings are borrowed. */
struct mpo_weights_choice {
    const char *text;         /* a record, numbers, "uniform", or the name of one policy */
    enum mpo_iterate iterate; /* of a record */
    int64_t step;             /* of a record; MPO_AUTO_INTEGER: the last one */
    bool allow_any;           /* negative weights and any sum: exponents as given */
    double strength;          /* of the exponents; NAN: the record's, or as configured */
    const char *flag;         /* what messages call it: "--weights"; a literal */
    bool any_mixture; /* a record of the other rollout.mixture too, where both are hosted */
};

/** What exponents were made of (mpo/exponents.h); arrays belong to the exponents' memory. */
struct mpo_weights_recipe {
    double strength; /* A */
    enum mpo_mixing
        mixture;         /* that weights of a record were fitted for, else as configured */
    const double *scale; /* [K] a_k */
    const double *weights; /* [K] l; exponents given as such, of the objectives */
};

/** True when the weights come from a record: its models are then compared by hash, where it
 *  has hashes, so the job should be opened with record.hash_models as configured. Local. */
bool mpo_weights_are_of_a_record(const struct mpo_config *config, const char *text);

/** Refuse what none of the choices heeds, which differ in their texts alone: a step or an iterate
 *  where none comes from a record, a strength where all are a policy's name or exponents as
 *  given, and allow_any where none is numbers. Local; the same on all ranks.
 *  @return MPO_ERR_USAGE */
enum mpo_status mpo_weights_check_choices(const struct mpo_config *config,
                                          const struct mpo_weights_choice *choice,
                                          int32_t count);

/**
 * Settle the exponents mu of the mixture. Weights of a record become exponents by the
 * record's strength and scales, other weights on the simplex by the configuration's
 * (mpo/exponents.h); a single policy by name is that policy. Collective over all ranks;
 * failures are agreed on and reported.
 *
 * @param out  [H] owned by the caller
 * @return MPO_ERR_DATA when the record has other objectives, models or another vocabulary;
 * MPO_ERR_USAGE when the text is none of the four
 */
enum mpo_status mpo_weights_open(const struct mpo_session *session,
                                 const struct mpo_weights_choice *choice, double **out);

/**
 * The end tilt b that a choice of weights is drawn with. That of a record (of target served
 * it is 0, unless rollout.end_bias was set) belongs to the record's exponents: after the last
 * step that for the next one, of an earlier step that which it was drawn with. All else,
 * another strength than the record's included, has none. Collective over all ranks; failures
 * are agreed on and reported.
 *
 * @param given  the tilt that a user requests, nat; NAN: the above
 * @param out    b, nat
 */
enum mpo_status mpo_weights_end_bias(const struct mpo_session *session,
                                     const struct mpo_weights_choice *choice, double given,
                                     double *out);

/** The same, with the recipe. The name of a policy and exponents given as such have a strength
 *  of 1 and the configured scales, which need not make these exponents. */
enum mpo_status mpo_weights_open_recipe(const struct mpo_session *session,
                                        const struct mpo_weights_choice *choice,
                                        struct mpo_weights_recipe *recipe, double **out);

/** Refuse to go on unless this job's models and vocabulary are those that a record was made
 *  with. Collective over all ranks; failures are agreed on and reported. */
enum mpo_status mpo_weights_check_models(const struct mpo_session *session,
                                         const char *path);
