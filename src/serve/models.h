/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Names of models, and the weights that they and requests stand for.
 *
 *     mpo, and serve.name             serve.weights
 *     mpo:average, :last, :untilted   of a record in serve.weights
 *     mpo:NAME                        serve.presets
 *     policy/NAME                     that policy alone
 *     mpo@0.4:0.6, mpo@a=0.4:b=0.6    these weights; answered, not listed
 *
 * With rollout.mixture: adapters each of the first three kinds (without :last) is a policy, the
 * model with the adapters of all at the scales that its weights ask for, and there are no
 * others: scales belong to a context, and are set when the server opens.
 *
 * catalog.c makes the list when the server opens, from records and numbers; models.c finds
 * names in it and lists them; mix.c makes exponents of what a request asks for.
 */
#pragma once

#include <jansson.h>

#include "serve_impl.h"

#include "mpo/session.h"

/* ---- catalog.c ---- */

/**
 * Fill a zeroed catalog from the configuration: everything but context_tokens and
 * row_capacity. Records are read here and never again. Collective over all ranks; failures
 * are agreed on and reported.
 *
 * @return MPO_ERR_USAGE for presets or a name that cannot be; the statuses of
 *         mpo_weights_open_recipe
 */
enum mpo_status mpo_serve_models_open(const struct mpo_session *session,
                                      struct mpo_serve_catalog *catalog);

/** With rollout.mixture: adapters how many policies the models are, those of the same weights
 *  one together; 0 without. Local. */
int32_t mpo_serve_models_blends(const struct mpo_config *config);

/** Release what models_open made; the catalog is zero afterwards. Local. */
void mpo_serve_models_close(struct mpo_serve_catalog *catalog);

/* ---- models.c ---- */

/** A listed model by its name; NULL: there is none. Local. */
const struct mpo_serve_model *mpo_serve_model_find(const struct mpo_serve_catalog *catalog,
                                                   const char *name);

/** Refuse a name with 404 model_not_found and the nearest one. Local. @return false */
bool mpo_serve_refuse_model(const struct mpo_serve_catalog *catalog, const char *name,
                            struct mpo_serve_refusal *refusal);

/** All models, as GET /v1/models tells them; owned by the caller; NULL without memory.
 *  Local. */
json_t *mpo_serve_models_list(const struct mpo_serve_catalog *catalog);

/** The same as the body of that answer. Owned by the caller; NULL without memory. Local. */
char *mpo_serve_models_json(const struct mpo_serve_catalog *catalog);

/** The body of GET /v1/models/{id}, owned by the caller; NULL with the refusal noted. Local.
 *  @param id  percent-decoded */
char *mpo_serve_model_json(const struct mpo_serve_catalog *catalog, const char *id,
                           struct mpo_serve_refusal *refusal);

/** {name: number} of weights [K], as answers tell them; null for NULL, a policy alone. Owned
 *  by the caller; NULL without memory. Local. */
json_t *mpo_serve_weights_json(const struct mpo_serve_catalog *catalog,
                               const double *weights);

/* ---- mix.c ---- */

/** What a request is drawn from. Arrays are owned, but for scale. */
struct mpo_serve_mix {
    double *mu;      /* [H] exponents of hosted policies, made by mpo_serve_mix_finish */
    double *weights; /* [K] l, or exponents as given */
    const double *scale; /* [K] a_k; NULL: as configured */
    double strength;     /* A */
    double end_bias;     /* nat */
    int32_t policy;      /* alone, whose weights say nothing; -1: a mixture */
    bool as_given;       /* weights are exponents, whatever strength and scales are */
};

/** Of a name, an @ form included. Local. @return false with the refusal noted */
bool mpo_serve_mix_open(const struct mpo_serve_catalog *catalog, const char *name,
                        struct mpo_serve_mix *mix, struct mpo_serve_refusal *refusal);
void mpo_serve_mix_close(struct mpo_serve_mix *mix); /* also of a zero one */

/** Replace the weights; without a tilt then. Refused where models are policies. Local.
 *  @param weights  [K] as a client gave them */
bool mpo_serve_mix_reweigh(const struct mpo_serve_catalog *catalog,
                           struct mpo_serve_mix *mix, const double *weights,
                           struct mpo_serve_refusal *refusal);

/** Replace the strength; without a tilt then, if it is another one. Local. */
bool mpo_serve_mix_strengthen(const struct mpo_serve_catalog *catalog,
                              struct mpo_serve_mix *mix, double strength,
                              struct mpo_serve_refusal *refusal);

/** Make mu of the rest. Local. */
void mpo_serve_mix_finish(const struct mpo_serve_catalog *catalog,
                          struct mpo_serve_mix *mix);

/** The index of an objective's name, of bytes that need no NUL; -1: it is none. Local. */
int32_t mpo_serve_objective(const struct mpo_serve_catalog *catalog, const char *name,
                            size_t bytes);

/** Names of the objectives, separated by commas, cut to the room. Local. @return text */
const char *mpo_serve_objectives(const struct mpo_serve_catalog *catalog, char *text,
                                 size_t text_bytes);
