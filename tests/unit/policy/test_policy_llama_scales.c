/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other scales of a policy's adapters, on a bigram GGUF whose logits are known.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "llama_case.h"

#define BYTE(letter) BIGRAM_GGUF_BYTE(letter)

/* Row 0 after the first prompt is the table's and so much of the shift. */
static void check_shift(struct llama_case *test, const float *shift, float scale)
{
    const float *expected = test->logits + (size_t)BYTE('x') * (size_t)test->states;
    llama_case_begin(test, 1, 2);
    for (int32_t id = 0; id < test->states; id++)
        assert_close(test->row[0][id], expected[id] + scale * shift[id], 1e-4);
}

static void adapters_get_other_scales_and_the_old_ones_to_the_bit(void **state)
{
    (void)state;
    struct llama_case test;
    char path[TABLE_PATH_BYTES];
    float shift[BIGRAM_GGUF_TOKENS];
    float first[BIGRAM_GGUF_TOKENS];
    const double scales[] = {2.0, -1.5, 0.0};
    llama_case_make(&test, NULL);
    for (int32_t id = 0; id < BIGRAM_GGUF_TOKENS; id++)
        shift[id] = 0.01f * (float)id;
    snprintf(path, sizeof path, "%.480s/adapter.gguf", test.folder);
    bigram_gguf_write_adapter(path, shift, BIGRAM_GGUF_TOKENS);
    test.spec.lora = path;
    test.spec.lora_scale = 0.5;
    llama_case_start(&test, "x\n");
    assert_int_equal(mpo_policy_adapter_count(&test.policy), 1);
    check_shift(&test, shift, 0.5f);
    memcpy(first, test.row[0], sizeof first);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        assert_ok(mpo_policy_rescale(&test.policy, &scales[i], 1));
        assert_int_equal(mpo_policy_row_tokens(&test.policy, 0), 0);
        check_shift(&test, shift, (float)scales[i]);
    }
    assert_ok(mpo_policy_rescale(&test.policy, &(double){0.5}, 1));
    check_shift(&test, shift, 0.5f);
    assert_memory_equal(first, test.row[0], sizeof first);
    assert_int_equal(mpo_policy_rescale(&test.policy, &(double){NAN}, 1), MPO_ERR_USAGE);
    assert_int_equal(mpo_policy_rescale(&test.policy, scales, 2), MPO_ERR_USAGE);
    assert_error_names("1 adapters");
    llama_case_remove(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_get_other_scales_and_the_old_ones_to_the_bit),
    };
    return run_cases("policy_llama_scales", tests);
}
