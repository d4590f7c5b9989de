/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many rows a session may decode at once.
 */
#include "runner.h"
#include "session/plan.h"

static void rows_that_no_cache_holds_or_that_hold_no_prompt_are_refused(void **state)
{
    (void)state;
    struct mpo_session_size size = {.unit_prompts = 2, .responses = 129};
    assert_status(mpo_plan_check_rows(&size), MPO_ERR_CONFIG);
    assert_error_names("found 258: units of 2 prompts x 129 responses");
    size.row_capacity = 128;
    assert_status(mpo_plan_check_rows(&size), MPO_ERR_CONFIG);
    assert_error_names(
        "expected 129 (the responses to a prompt) to 256 rows at once, found 128");
    size.row_capacity = 129;
    assert_ok(mpo_plan_check_rows(&size));
    size = (struct mpo_session_size){.unit_prompts = 2, .responses = 128};
    assert_ok(mpo_plan_check_rows(&size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_that_no_cache_holds_or_that_hold_no_prompt_are_refused),
    };
    return run_cases("plan_rows", tests);
}
