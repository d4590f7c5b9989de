/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of models and what they stand for, listed ones and those with weights in them; the
 * bodies of GET /v1/models; and the description of the whole interface.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request_case.h"
#include "runner.h"
#include "serve/openapi.h"
#include "serve/request_impl.h"

/* ---- names ---- */

static void check_model(const char *name, double helpful, double concise, double base)
{
    struct mpo_serve_mix mix = {0};
    request_refusal = (struct mpo_serve_refusal){0};
    if (!mpo_serve_mix_open(&request_world.catalog, name, &mix, &request_refusal))
        fail_msg("%s: %s", name, request_refusal.message);
    mpo_serve_mix_finish(&request_world.catalog, &mix);
    assert_close(mix.mu[0], helpful, 1e-15);
    assert_close(mix.mu[1], concise, 1e-15);
    assert_close(mix.mu[2], base, 1e-15);
    mpo_serve_mix_close(&mix);
}

static void check_refused(const char *name, const char *code, const char *word)
{
    struct mpo_serve_mix mix = {0};
    request_refusal = (struct mpo_serve_refusal){0};
    assert_false(mpo_serve_mix_open(&request_world.catalog, name, &mix, &request_refusal));
    if (strcmp(request_refusal.code, code) != 0 ||
        strstr(request_refusal.message, word) == NULL)
        fail_msg("%s: %s: %s", name, request_refusal.code, request_refusal.message);
    assert_string_equal(request_refusal.param, "model");
    mpo_serve_mix_close(&mix);
}

static void names_stand_for_exponents(void **state)
{
    (void)state;
    check_model("mpo", 0.25, 0.75, 0.0);
    check_model("mpo:even", 0.5, 0.5, 0.0);
    check_model("policy/helpful", 1.0, 0.0, 0.0);
    check_model("policy/base", 0.0, 0.0, 1.0);
    check_model("mpo@0.4:0.6", 0.4, 0.6, 0.0);
    check_model("mpo@helpful=0.4:concise=0.6", 0.4, 0.6, 0.0);
    check_model("mpo@concise=0.6:helpful=0.4", 0.4, 0.6, 0.0);
    check_model("mpo@concise=1", 0.0, 1.0, 0.0);
    check_model("mpo@1e0:0", 1.0, 0.0, 0.0);
    check_model("mpo@0.3333:0.6666", 0.3333 / 0.9999, 0.6666 / 0.9999, 0.0);
}

static void weights_in_a_name_are_checked(void **state)
{
    (void)state;
    static const char *const malformed[] = {"mpo@",
                                            "mpo@0.4",
                                            "mpo@0.4:",
                                            "mpo@0.4:0.6:",
                                            "mpo@0.4:0.6:0",
                                            "mpo@:0.4:0.6",
                                            "mpo@0.4,0.6",
                                            "mpo@0x1:0",
                                            "mpo@nan:1",
                                            "mpo@inf:1",
                                            "mpo@helpful=",
                                            "mpo@=1",
                                            "mpo@base=1",
                                            "mpo@helpful=1:helpful=0",
                                            "mpo@0.4:concise=0.6",
                                            "mpo@helpful=0.4:0.6",
                                            "mpo@-:1",
                                            "mpo@1 :0",
                                            "mpo@1e999:0"};
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        check_refused(malformed[i], "invalid_weights", "2 numbers");
    check_refused("mpo@0.4:0.5", "invalid_weights", "sum of 0.9");
    check_refused("mpo@helpful=0.4", "invalid_weights", "sum of 0.4");
    check_refused("mpo@-0.5:1.5", "invalid_weights", "-0.5 for helpful");
    request_world.catalog.allow_any_weights = true;
    check_model("mpo@-0.5:1.7", -0.5, 1.7, 0.0);
    request_world.catalog.allow_any_weights = false;
}

static void a_name_may_hold_a_colon(void **state)
{
    (void)state;
    static const char *const names[] = {"a:b", "c:1", "base"};
    const char *const *before = request_world.catalog.policy_name;
    request_world.catalog.policy_name = names;
    check_model("mpo@a:b=0.25:c:1=0.75", 0.25, 0.75, 0.0);
    request_world.catalog.policy_name = before;
}

static void strength_and_scale_of_a_model_make_its_exponents(void **state)
{
    (void)state;
    request_world.catalog.strength = 2.0;
    request_world.scale[1] = 0.5; /* of the models, and as configured */
    check_model("mpo@0.4:0.6", 0.8, 0.6, -0.4);
    check_model("mpo:even", 0.5, 0.25, 0.25);
    request_world.scale[1] = 1.0;
    request_world.catalog.strength = 1.0;
}

static void an_unknown_name_hears_of_the_nearest(void **state)
{
    (void)state;
    char longest[600];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    check_refused("mpo:evn", "model_not_found", "nearest is 'mpo:even'");
    check_refused("policy/helpfull", "model_not_found", "nearest is 'policy/helpful'");
    check_refused("helpful", "model_not_found", "policy/helpful");
    check_refused("", "model_not_found", "'mpo'");
    check_refused("\n", "model_not_found", "GET /v1/models");
    check_refused(longest, "model_not_found", "GET /v1/models");
    assert_int_equal(request_refusal.http_status, 404);
}

/* ---- bodies ---- */

static void check_entry(const json_t *entry, const char *name, const char *mpo)
{
    json_t *wanted = json_loads(mpo, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(entry, "id")), name);
    assert_string_equal(json_string_value(json_object_get(entry, "object")), "model");
    assert_string_equal(json_string_value(json_object_get(entry, "owned_by")), "mpo");
    assert_int_equal(json_integer_value(json_object_get(entry, "created")), 1700000000);
    assert_int_equal(json_integer_value(json_object_get(entry, "max_model_len")),
                     SERVE_CASE_CONTEXT);
    assert_true(json_equal(json_object_get(entry, "mpo"), wanted));
    json_decref(wanted);
}

static void all_listed_models_are_told(void **state)
{
    (void)state;
    char *text = mpo_serve_models_json(&request_world.catalog);
    json_t *root = json_loads(text, 0, NULL);
    json_t *data = json_object_get(root, "data");
    assert_string_equal(json_string_value(json_object_get(root, "object")), "list");
    assert_int_equal(json_array_size(data), SERVE_CASE_MODELS);
    check_entry(json_array_get(data, 0), "mpo",
                "{\"weights\": {\"helpful\": 0.25, \"concise\": 0.75}, \"end_bias\": 0.5, "
                "\"strength\": 1.0, \"policy\": null}");
    check_entry(json_array_get(data, 4), "policy/base",
                "{\"weights\": null, \"end_bias\": 0.0, \"strength\": 1.0, \"policy\": "
                "\"base\"}");
    json_decref(root);
    free(text);
}

static void one_model_is_told_even_one_with_weights(void **state)
{
    (void)state;
    request_refusal = (struct mpo_serve_refusal){0};
    char *text =
        mpo_serve_model_json(&request_world.catalog, "mpo@0.5:0.5", &request_refusal);
    json_t *root = json_loads(text, 0, NULL);
    check_entry(root, "mpo@0.5:0.5",
                "{\"weights\": {\"helpful\": 0.5, \"concise\": 0.5}, \"end_bias\": 0.0, "
                "\"strength\": 1.0, \"policy\": null}");
    json_decref(root);
    free(text);
    assert_null(mpo_serve_model_json(&request_world.catalog, "gpt", &request_refusal));
    assert_int_equal(request_refusal.http_status, 404);
}

/* ---- /openapi.json ---- */

/* Every reference leads somewhere. */
static void check_references(json_t *root, json_t *value)
{
    static const char prefix[] = "#/components/schemas/";
    const char *name = NULL;
    json_t *member = NULL;
    size_t index = 0;
    json_array_foreach(value, index, member) check_references(root, member);
    json_object_foreach(value, name, member)
    {
        const char *target = json_string_value(member);
        check_references(root, member);
        if (strcmp(name, "$ref") != 0)
            continue;
        assert_int_equal(strncmp(target, prefix, strlen(prefix)), 0);
        if (json_object_get(json_object_get(json_object_get(root, "components"), "schemas"),
                            target + strlen(prefix)) == NULL)
            fail_msg("%s leads nowhere", target);
    }
}

static void the_interface_is_described_with_every_field(void **state)
{
    (void)state;
    static const char *const schema[] = {
        [MPO_SERVE_CHAT] = "ChatRequest", [MPO_SERVE_COMPLETION] = "CompletionRequest"};
    char *text = mpo_serve_openapi_json(&request_world.catalog);
    assert_non_null(text);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "openapi")), "3.1.0");
    assert_int_equal(json_object_size(json_object_get(root, "paths")), 12);
    check_references(root, root);
    json_t *schemas = json_object_get(json_object_get(root, "components"), "schemas");
    for (int kind = 0; kind < 2; kind++) {
        json_t *fields =
            json_object_get(json_object_get(schemas, schema[kind]), "properties");
        for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++) {
            bool is_here = (mpo_serve_fields[i].endpoints & (1U << kind)) != 0;
            bool is_told = json_object_get(fields, mpo_serve_fields[i].name) != NULL;
            if (is_here && !is_told)
                fail_msg("%s has no %s", schema[kind], mpo_serve_fields[i].name);
        }
    }
    json_decref(root);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_stand_for_exponents),
        cmocka_unit_test(weights_in_a_name_are_checked),
        cmocka_unit_test(a_name_may_hold_a_colon),
        cmocka_unit_test(strength_and_scale_of_a_model_make_its_exponents),
        cmocka_unit_test(an_unknown_name_hears_of_the_nearest),
        cmocka_unit_test(all_listed_models_are_told),
        cmocka_unit_test(one_model_is_told_even_one_with_weights),
        cmocka_unit_test(the_interface_is_described_with_every_field),
    };
    return cmocka_run_group_tests_name("models", tests, request_case_open,
                                       request_case_close);
}
