/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libllama on a CUDA device: rows of logits that stay in its memory, fetched from there, are
 * bit for bit those that libllama brings to the host, over a walk of the verbs with 1, 2, 16
 * and 64 rows, in one cache and in a cache for each row. The model's weights have few bits, so
 * that both are the table's to the bit as well, although a device multiplies in TF32.
 *
 * Ends with 77 where there is no device, or no libllama that computes on one.
 */
#include "device_suite.h"

#include <string.h>

#include "device/device_impl.h"
#include "llama_case.h"
#include "policy_verbs.h"

#define ROWS_MAX  64
#define POSITIONS 24
#define GIVEN     3 /* tokens of a row in one feed */
#define PROMPTS   "x\nyz\n"

/* One policy that leaves its rows and one that brings them, which do the same. */
struct twins {
    struct llama_case left;
    struct llama_case brought;
    int32_t row_count;
    bool is_live[ROWS_MAX];
    uint64_t drawn;
};

struct settings {
    int32_t row_count;
    enum mpo_kv kv;
    enum mpo_device_rows device_rows;
};

static struct mpo_device device;

static int32_t pick(struct twins *twins, int32_t count)
{
    return (int32_t)(runner_uniform(41, twins->drawn++) * count);
}

static void open_twins(struct twins *twins, const struct settings *settings)
{
    static const struct bigram_gguf_options options = {.few_bits = true, .says_f32 = true};
    struct llama_case *both[2] = {&twins->left, &twins->brought};
    memset(twins, 0, sizeof *twins);
    twins->row_count = settings->row_count;
    for (int i = 0; i < 2; i++) {
        llama_case_make(both[i], &options);
        both[i]->unit.unit_prompts = 2;
        both[i]->unit.row_capacity = settings->row_count;
        both[i]->unit.responses = 1;
        both[i]->unit.max_tokens = 2 * POSITIONS;
        both[i]->common.device = &device;
        both[i]->common.kv = settings->kv;
        both[i]->common.device_rows = settings->device_rows;
        both[i]->common.rows_on_device = i == 0;
        llama_case_start(both[i], PROMPTS);
        mpo_policy_clear(&both[i]->policy);
    }
    assert_true(mpo_policy_rows_on_device(&twins->left.policy));
    assert_false(mpo_policy_rows_on_device(&twins->brought.policy));
    assert_int_equal(llama_case_policy(&twins->left)->split.is_on,
                     settings->kv == MPO_KV_SPLIT);
}

static void close_twins(struct twins *twins)
{
    llama_case_remove(&twins->left);
    llama_case_remove(&twins->brought);
}

static void check_output(struct twins *twins, int32_t output, int32_t last)
{
    float fetched[BIGRAM_GGUF_TOKENS];
    const float *table = twins->left.logits + (size_t)last * BIGRAM_GGUF_TOKENS;
    assert_int_equal(cudaMemcpy(fetched, twins->left.row[output], sizeof fetched,
                                cudaMemcpyDeviceToHost),
                     cudaSuccess);
    assert_memory_equal(fetched, twins->brought.row[output], sizeof fetched);
    for (int32_t id = 0; id < BIGRAM_GGUF_TOKENS; id++)
        if (fetched[id] != table[id])
            fail_msg("logit %d after token %d is %g, expected %g", id, last,
                     (double)fetched[id], (double)table[id]);
}

/* ---- the verbs ---- */

static void begin_rows(struct twins *twins, int32_t slot, int32_t first, int32_t count)
{
    const int64_t prompt = slot;
    int32_t row[ROWS_MAX];
    const struct mpo_policy_slot *tokens = &twins->left.policy.slot[slot];
    for (int32_t i = 0; i < count; i++) {
        row[i] = first + i;
        twins->is_live[row[i]] = true;
    }
    const struct policy_entry entry = {&prompt, row, 1, count};
    assert_ok(policy_begin(&twins->left.policy, &entry, twins->left.row));
    assert_ok(policy_begin(&twins->brought.policy, &entry, twins->brought.row));
    check_output(twins, 0, tokens->token[tokens->count - 1]);
}

/* So many tokens onto each live row. */
static void extend_rows(struct twins *twins, int32_t each)
{
    int32_t row[ROWS_MAX];
    int32_t count[ROWS_MAX];
    int32_t token[ROWS_MAX * GIVEN];
    int32_t live = 0;
    for (int32_t i = 0; i < twins->row_count; i++) {
        if (!twins->is_live[i])
            continue;
        for (int32_t j = 0; j < each; j++)
            token[live * each + j] = pick(twins, BIGRAM_GGUF_TOKENS);
        count[live] = each;
        row[live++] = i;
    }
    const struct policy_batch batch = {.row = row,
                                       .token = token,
                                       .token_count = count,
                                       .row_count = live,
                                       .every_position = each > 1};
    assert_ok(policy_extend(&twins->left.policy, &batch, twins->left.row));
    assert_ok(policy_extend(&twins->brought.policy, &batch, twins->brought.row));
    for (int32_t i = 0; i < live * each; i++)
        check_output(twins, i, token[i]);
}

/* Some rows end, but never all. */
static void end_rows(struct twins *twins)
{
    for (int32_t i = 1; i < twins->row_count; i++) {
        if (!twins->is_live[i] || pick(twins, 8) > 0)
            continue;
        assert_ok(mpo_policy_truncate(&twins->left.policy, i, 0));
        assert_ok(mpo_policy_truncate(&twins->brought.policy, i, 0));
        twins->is_live[i] = false;
    }
}

static void begin_again(struct twins *twins)
{
    for (int32_t i = 0; i < twins->row_count; i++)
        if (!twins->is_live[i] && pick(twins, 2) == 0)
            begin_rows(twins, 1, i, 1);
}

static void walk_about(const struct settings *settings)
{
    struct twins twins;
    int32_t half = settings->row_count / 2;
    open_twins(&twins, settings);
    begin_rows(&twins, 0, 0, settings->row_count - half);
    if (half > 0)
        begin_rows(&twins, 1, settings->row_count - half, half);
    for (int32_t position = 0; position < POSITIONS; position++) {
        extend_rows(&twins, 1);
        end_rows(&twins);
        if (position % 6 == 5)
            begin_again(&twins);
        if (position == POSITIONS / 2 && settings->kv == MPO_KV_UNIFIED &&
            settings->row_count * GIVEN <= MPO_LLAMA_OUTPUTS_MIN)
            extend_rows(&twins, GIVEN);
    }
    close_twins(&twins);
}

/* ---- cases ---- */

static void walk_with(enum mpo_kv kv, enum mpo_device_rows device_rows)
{
    static const int32_t row_count[] = {1, 2, 16, 64};
    for (size_t i = 0; i < sizeof row_count / sizeof *row_count; i++)
        walk_about(&(struct settings){row_count[i], kv, device_rows});
}

static void rows_of_one_cache_are_those_brought(void **state)
{
    (void)state;
    walk_with(MPO_KV_UNIFIED, MPO_DEVICE_ROWS_COMPACT);
    walk_with(MPO_KV_UNIFIED, MPO_DEVICE_ROWS_FIXED);
}

static void rows_of_a_cache_each_are_those_brought(void **state)
{
    (void)state;
    walk_with(MPO_KV_SPLIT, MPO_DEVICE_ROWS_COMPACT);
    walk_with(MPO_KV_SPLIT, MPO_DEVICE_ROWS_FIXED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_one_cache_are_those_brought),
        cmocka_unit_test(rows_of_a_cache_each_are_those_brought),
    };
    if (!device_suite_has_device())
        return 77;
    if (mpo_llama_check_device("cuda") != MPO_OK ||
        mpo_device_cuda_ops.open(0, 1, &device) != MPO_OK) {
        printf("SKIP: %s\n", mpo_error_text());
        return 77;
    }
    return run_cases("capture_cuda", tests);
}
