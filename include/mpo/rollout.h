/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The rollout: m responses to each prompt of a step, drawn from the proposal
 *
 *     q(v|s) ~ exp( sum_h mu_h log pi_h(v|s) + b [v ends] )     (src/README.md, Mixture)
 *
 * and everything the estimator needs to know of them; or the scores of given responses.
 * Both are loops over the row machine (mpo/decode.h).
 *
 * Where policies are adapters of one model, q can be one policy, the model with the adapters of
 * all of them (struct mpo_rollout_blend). Then responses are drawn from that policy alone,
 * which costs one pass a token, and scored as they are under all policies afterwards, many
 * positions a pass.
 *
 * The prompts of a step are cut into work units of `unit_prompts`; a unit is decoded from a
 * cleared cache by one group, and rows of finished responses are given to the unit's next
 * prompts. What is computed depends on the unit alone, so any number of ranks gives the
 * same bytes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/decode.h"
#include "mpo/policy.h"
#include "mpo/status.h"
#include "mpo/timing.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Responses of one step; N = prompt_count * responses, response j of prompt slot p is
 *  p * responses + j. Arrays are owned by the rollout. */
struct mpo_responses {
    int32_t prompt_count;  /* prompts of this step */
    int32_t responses;     /* m */
    int32_t policy_count;  /* H */
    int32_t max_tokens;    /* L */
    const int64_t *prompt; /* [prompt_count] prompt indices */
    int32_t *token_count;  /* [N] tokens, a drawn end token included */
    int32_t *ended; /* [N] 1 when the last token is an end token, 0 when cut or stopped */
    double *log_proposal; /* [N] log q(y|x), nat */
    double *log_policy;   /* [N, H] log pi_h(y|x), nat */
    double *control;      /* [N, H] sum_t log pi_h(y_t|s_t) - E_q log pi_h, nat */
    double *end_surprise; /* [N] sum_t [y_t ends] - q(end|s_t) */
    double *entropy;      /* [N] sum_t entropy of q(.|s_t), nat */
    int32_t *token;       /* [N, L] */
    /* [N] of MPO_ROLLOUT_EXACT: tries since the response before, this one included; 0: the
       response was not drawn, and has no token. NULL otherwise */
    int64_t *tries;
    const double
        *score; /* [N, score_count] s_k that the caller has measured; NULL: they are
                             those of log_policy */
    int32_t score_count; /* K; 0 without a score */
};

/** Scores of given responses; N = prompt_count * responses, response j of prompt slot p is
 *  p * responses + j. Arrays are owned by the rollout. */
struct mpo_scores {
    int32_t prompt_count; /* prompts of this step */
    int32_t responses;    /* given to each */
    int32_t policy_count; /* H */
    int32_t *token_count; /* [N] tokens, the end token of a whole response included */
    double *log_mixture;  /* [N] log q(y|x), nat */
    double *log_z;        /* [N] sum_t log Z(s_t) - b [y_t ends], nat; of a blend 0 but for
                             the tilt */
    double *log_policy;   /* [N, H] log pi_h(y|x), nat */
};

/** What rows that never end imply for the responses that end inside them: the ends are
 *  integrated out (src/README.md, Ends integrated out). N and the order as above; arrays
 *  are owned by the rollout. */
struct mpo_integrals {
    int32_t prompt_count; /* prompts of this step */
    int32_t responses;    /* rows of each */
    int32_t policy_count; /* H; where there is a blend H + 1: the last is its policy */
    double *log_total;    /* [N] log R, of which the mean of R is Z without bias, nat */
    double *whole;      /* [N, H] mean log pi_h under the whole mixture, by the parts of R,
                             nat */
    double *served;     /* [N, H] mean log pi_h under the token mixture, nat */
    double *divergence; /* [N, H] KL(token mixture || pi_h), nat */
    double *length;     /* [N] mean tokens under the token mixture, an end included */
    double *truncated;  /* [N] probability under it of a cut at max_tokens */
};

/** What rows that never end imply for where responses end, at each of their positions: all
 *  that the end tilt depends on. N and the order as above; arrays are owned by the
 *  rollout. */
struct mpo_end_masses {
    int32_t prompt_count; /* prompts of this step */
    int32_t responses;    /* rows of each */
    int32_t max_tokens;   /* L */
    double
        *log_stay; /* [N, L] log of the mass of prod_h pi_h^mu_h on tokens that do not end
                         the response, nat */
    double *log_odds; /* [N, L] log of the mass on end tokens, less log_stay, nat */
};

struct mpo_rollout;

/** What a rollout is opened for. */
enum mpo_rollout_purpose {
    MPO_ROLLOUT_DRAWS,      /* mpo_rollout_run */
    MPO_ROLLOUT_EXACT,      /* the same, exact draws of the mixture of whole responses */
    MPO_ROLLOUT_SCORES,     /* mpo_rollout_score */
    MPO_ROLLOUT_INTEGRATES, /* mpo_rollout_integrate; decode has to report ends */
    MPO_ROLLOUT_END_MASSES, /* mpo_rollout_end_masses */
};

/**
 * One policy in place of the mixture: the last one that decode has, whose adapter i gets
 *
 *     scale_i = sum_h mu_h share_ih              (src/README.md, Adapters of one model)
 *
 * with the exponents mu of each step. It has an exponent nowhere else: mu and results are of
 * the other H policies.
 */
struct mpo_rollout_blend {
    int32_t adapter_count; /* of the last policy */
    const double *share; /* [adapter_count, H] scale of adapter i in policy h; 0: it is none
                              of its own */
};

/** scale_i of adapter i for exponents mu [H]. Local. */
double mpo_rollout_blend_scale(const struct mpo_rollout_blend *blend, int32_t policy_count,
                               const double *mu, int32_t adapter);

struct mpo_rollout_spec {
    const struct mpo_comm *comm;         /* borrowed, like all below */
    const struct mpo_policies *policies; /* that have encoded all prompts into slots of
                                            their indices */
    struct mpo_decode *decode;
    struct mpo_timing *timing; /* NULL: disabled */
    const struct mpo_rollout_blend
        *blend; /* NULL: q is made of the rows of logits. Groups of
                                              one rank, and given_positions in decode; not
                                              for exact draws and end masses */
    uint64_t seed;
    int32_t policy_count; /* H, without the policy of a blend */
    int32_t prompts_max;  /* prompts of a step at most */
    int32_t unit_prompts;
    int32_t row_capacity;    /* of decode; with all of a unit's rows, no prompt waits */
    int32_t responses;       /* m */
    int32_t max_tokens;      /* L */
    const char *const *stop; /* [stop_count] texts that end a response */
    int32_t stop_count;
    int64_t try_limit; /* of MPO_ROLLOUT_EXACT: tries of a prompt, over m, at most */
    enum mpo_rollout_purpose purpose;
};

/** Local; allocates all it will need. */
enum mpo_status mpo_rollout_open(const struct mpo_rollout_spec *spec,
                                 struct mpo_rollout **out);
void mpo_rollout_close(struct mpo_rollout **rollout);

/** One step's work. */
struct mpo_rollout_step {
    int64_t step;           /* counts the draws, with the slot */
    int64_t first_slot;     /* of prompt[0]: not 0 when a step comes in several calls */
    int32_t first_response; /* of each prompt, likewise */
    const int64_t *prompt;  /* [prompt_count] prompt indices */
    int32_t prompt_count;   /* <= prompts_max */
    const double *mu;       /* [H] */
    bool of_logits;     /* q is made of the rows of logits, even where there is a blend */
    double end_bias;    /* b, nat */
    bool greedy;        /* the most probable token instead of a draw */
    bool weighted_only; /* as of a row (mpo/decode.h): log_policy[h] and control[h] are
                              NAN where mu_h = 0 */
    bool yields;        /* a request to stop ends it at the next token */
    const struct mpo_mixture_filter *filter; /* of the draws; NULL: none */
    /* [prompt_count] of scores: b of each prompt; NULL: end_bias */
    const double *end_biases;
    /* called on the group's root after each token of each response; false: the response
       ends here, as if its text had stopped. NULL: disabled */
    bool (*watch)(void *watcher, const int32_t *token, int32_t token_count);
    void *watcher;
    /* called on the root of a group that sets it, after each step of a unit or each given
     * response: the number of the step's responses made so far (fractions included, other
     * groups by a guess) and the number of new tokens; NULL: disabled */
    void (*report)(void *reporter, double responses, int32_t token_count);
    void *reporter;
};

/**
 * Decode. Collective over all ranks; every rank passes the same step. Allocates nothing.
 * A failure of one rank ends the job (mpo_comm_fail).
 *
 * MPO_ROLLOUT_EXACT draws from pi(y|x) ~ prod_h pi_h(y|x)^mu_h, by tries of which each token
 * survives with probability Z(s): so no exponent of the step may be negative, their sum is
 * at least 1, end_bias is 0, and there is no filter, watch or stop text. The first m
 * survivors are the responses; the share of survivors among tries is Z(x).
 *
 * @param out  complete on rank zero; valid until the next call
 * @return MPO_REQUEUE on all ranks where a request to stop ended a step that yields
 */
enum mpo_status mpo_rollout_run(struct mpo_rollout *rollout,
                                const struct mpo_rollout_step *step,
                                struct mpo_responses *out);

/**
 * Score given responses to prompts under every policy and under the mixture of step->mu and
 * step->end_bias, or of each prompt's own; greedy and the step's number have no effect. Collective over all ranks;
 * every rank passes the same step. Allocates nothing. Needs MPO_ROLLOUT_SCORES, and one
 * prompt per unit.
 *
 * @param out  complete on rank zero; valid until the next call
 */
enum mpo_status mpo_rollout_score(struct mpo_rollout *rollout,
                                  const struct mpo_rollout_step *step,
                                  struct mpo_scores *out);

/**
 * Draw rows that never end, and integrate the ends out. end_bias tilts the token mixture that
 * `served` and what follows it are of; greedy, filter and watch of the step have no effect.
 * Collective over all ranks; every rank passes the same step.
 * Allocates nothing. Needs MPO_ROLLOUT_INTEGRATES. Each row has max_tokens tokens.
 *
 * @param out  complete on rank zero; valid until the next call
 */
enum mpo_status mpo_rollout_integrate(struct mpo_rollout *rollout,
                                      const struct mpo_rollout_step *step,
                                      struct mpo_integrals *out);

/**
 * Draw rows that never end, and keep the mass of the end tokens at each position. end_bias,
 * greedy, filter and watch of the step have no effect. Collective over all ranks; every rank
 * passes the same step. Allocates nothing. Needs MPO_ROLLOUT_END_MASSES.
 *
 * @param out  complete on rank zero; valid until the next call
 */
enum mpo_status mpo_rollout_end_masses(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step,
                                       struct mpo_end_masses *out);

#ifdef __cplusplus
}
#endif
