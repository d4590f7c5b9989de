/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Bigram worlds in which every figure of a certificate is known exactly (bigram.h; and by a
 * forward recursion what is served), and rows without ends to estimate the figures from, as
 * the program draws them. A prompt is a start state; all are equally likely. Everything is
 * local and ends the program when there is no memory.
 */
#pragma once

#include "estimator/certificate.h"

enum {
    CERTIFICATE_OBJECTIVE_MAX = 4,
    CERTIFICATE_POLICY_MAX = CERTIFICATE_OBJECTIVE_MAX + 1,
    CERTIFICATE_COLUMN_MAX = MPO_COLUMN_SINGLES + MPO_BLOCK_COUNT * CERTIFICATE_POLICY_MAX,
};

struct certificate_world_spec {
    uint64_t seed;
    int32_t objective_count; /* K */
    bool has_reference;
    int32_t vocab_size;   /* V, the last token ends a response */
    int32_t prompt_kinds; /* start states */
    int32_t odd_kinds;    /* the first of them, all alike, with odd_spread */
    double spread;        /* logits are uniform in +-spread */
    double odd_spread;
    double end_logit; /* added to that of the end */
    int32_t max_tokens;
    int32_t rows; /* m of a prompt */
    double strength;
    double scale[CERTIFICATE_OBJECTIVE_MAX];
};

struct certificate_world {
    struct certificate_world_spec spec;
    struct mpo_certificate certificate;
    double weights[CERTIFICATE_OBJECTIVE_MAX];
    double mu[CERTIFICATE_POLICY_MAX];
    double exact[CERTIFICATE_COLUMN_MAX]; /* but for ESS and halving, which are NAN */
    struct bigram *bigram;
    struct certificate_state *state; /* [V + prompt_kinds] q without ends */
    struct mpo_integrals integrals;  /* of one prompt */
};

void certificate_world_open(const struct certificate_world_spec *spec,
                            struct certificate_world *world);
void certificate_world_close(struct certificate_world *world);

/** Set the weights [K], and with them the exponents and the exact columns. */
void certificate_world_weigh(struct certificate_world *world, const double *weights);

/** Find the weights of two objectives at which both scores of a block (served or whole) are
 *  equal, and set them. */
void certificate_world_balance(struct certificate_world *world,
                               enum mpo_certificate_block block);

/** Estimated columns of a prompt of a random kind, with rows of its own, by a counter. */
void certificate_world_draw(struct certificate_world *world, uint64_t seed, double *column);

/** The same of `count` prompts, [count, columns]. */
void certificate_world_draw_prompts(struct certificate_world *world, uint64_t seed,
                                    int64_t count, double *value);

int32_t certificate_world_columns(const struct certificate_world *world);
