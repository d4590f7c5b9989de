/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog of the tests of serve.
 */
#include "serve_case.h"

#include "mpo/policy.h"
#include "runner.h"

static const char *const names[SERVE_CASE_POLICIES] = {"helpful", "concise", "base"};
static const double weights[2][SERVE_CASE_OBJECTIVES] = {{0.25, 0.75}, {0.5, 0.5}};

/* A table need not say what follows its end. */
static const char without_end[] = "mpo-table 1\n"
                                  "tokens a b c </s>\n"
                                  "row a 0.25 0.25 0.25 0.25\n"
                                  "row b 0.4 0.3 0.2 0.1\n"
                                  "row c 0.1 0.2 0.3 0.4\n"
                                  "row <s> 0.25 0.25 0.25 0.25\n";

static void open_policies(struct serve_case *test)
{
    static const double probability[(SERVE_CASE_VOCAB + 1) * SERVE_CASE_VOCAB] = {
        0.1,  0.2,  0.3, 0.4, 0.4, 0.3, 0.2, 0.1, 0.25, 0.25,
        0.25, 0.25, 0.7, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2,  0.4};
    struct mpo_policy_spec policy[SERVE_CASE_POLICIES];
    for (int32_t h = 0; h < SERVE_CASE_POLICIES; h++) {
        if (h == 1)
            table_write_text(test->folder, names[h], without_end, test->path[h]);
        else
            table_write(test->folder, names[h], probability, SERVE_CASE_VOCAB,
                        test->path[h]);
        policy[h] = (struct mpo_policy_spec){
            .name = names[h],
            .kind = "table",
            .model = test->path[h],
            .lora = "",
            .system = "",
            .request = "",
            .chat_template = "auto",
            .temperature = 1.0,
        };
    }
    const struct mpo_policies_spec spec = {
        .policies = policy,
        .placement = {.policy_count = SERVE_CASE_POLICIES, .group_size = 1},
        .thread_count = 1,
        .prompt_slots = 1,
    };
    assert_ok(mpo_placement_open_comm(1, 0, &test->comm));
    assert_ok(mpo_policies_open(&spec, test->comm, &test->policies));
}

static void list_models(struct serve_case *test)
{
    static const char *const model[SERVE_CASE_MODELS] = {
        "mpo", "mpo:even", "policy/helpful", "policy/concise", "policy/base"};
    for (int32_t i = 0; i < SERVE_CASE_MODELS; i++) {
        bool is_mixture = i < 2;
        test->model[i] = (struct mpo_serve_model){
            .name = (char *)model[i],
            .mu = test->mu[i],
            .weights = is_mixture ? weights[i] : NULL,
            .strength = 1.0,
            .scale = is_mixture ? test->scale : NULL,
            .end_bias = i == 0 ? SERVE_CASE_TILT : 0.0,
            .policy = is_mixture ? -1 : i - 2,
        };
        for (int32_t k = 0; k < SERVE_CASE_OBJECTIVES && is_mixture; k++)
            test->mu[i][k] = weights[i][k];
        if (!is_mixture)
            test->mu[i][i - 2] = 1.0;
    }
}

void serve_case_open(struct serve_case *test)
{
    *test = (struct serve_case){.scale = {1.0, 1.0}};
    table_folder_make(test->folder);
    open_policies(test);
    list_models(test);
    test->catalog = (struct mpo_serve_catalog){
        .policies = test->policies,
        .policy_name = names,
        .scale = test->scale,
        .has_system = test->has_system,
        .objective_count = SERVE_CASE_OBJECTIVES,
        .policy_count = SERVE_CASE_POLICIES,
        .has_reference = true,
        .strength = 1.0,
        .vocab_size = SERVE_CASE_VOCAB,
        .context_tokens = SERVE_CASE_CONTEXT,
        .max_tokens = 32,
        .row_capacity = SERVE_CASE_ROWS,
        .created = 1700000000,
        .model = test->model,
        .model_count = SERVE_CASE_MODELS,
    };
}

void serve_case_close(struct serve_case *test)
{
    mpo_policies_close(&test->policies);
    mpo_comm_close(&test->comm);
    table_folder_remove(test->folder);
}
