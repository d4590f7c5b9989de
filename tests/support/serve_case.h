/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A catalog over three table policies, without MPI: objectives helpful and concise and a
 * reference, over the tokens a, b, c and </s> with a start state. Its models are mpo (0.25
 * and 0.75, tilt 0.5), mpo:even and policy/NAME of all three. Nothing follows </s> under
 * concise. A failure fails the test.
 */
#pragma once

#include "serve/serve_impl.h"
#include "table_files.h"

#define SERVE_CASE_OBJECTIVES 2
#define SERVE_CASE_POLICIES   3
#define SERVE_CASE_VOCAB      4
#define SERVE_CASE_END        3 /* its id */
#define SERVE_CASE_START      4 /* the start state, in prompts alone */
#define SERVE_CASE_CONTEXT    64
#define SERVE_CASE_ROWS       6
#define SERVE_CASE_MODELS     5
#define SERVE_CASE_TILT       0.5

struct serve_case {
    char folder[TABLE_PATH_BYTES];
    char path[SERVE_CASE_POLICIES][TABLE_PATH_BYTES];
    struct mpo_comm *comm;
    struct mpo_policies *policies;
    struct mpo_serve_catalog catalog; /* change it as you like */
    struct mpo_serve_model model[SERVE_CASE_MODELS];
    double mu[SERVE_CASE_MODELS][SERVE_CASE_POLICIES];
    double scale[SERVE_CASE_OBJECTIVES];
    bool has_system[SERVE_CASE_POLICIES];
};

void serve_case_open(struct serve_case *test);
void serve_case_close(struct serve_case *test);
