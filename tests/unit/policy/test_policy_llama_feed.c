/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF: logits depend on all tokens of their row, through attention, so one cell too many,
 * too few or of another row shows. The model's weights are of 32 bits. Its cache is of 16,
 * or of 32 where the file says that it is in F32, which takes another way through attention.
 */
#include <stdio.h>

#include "bigram.h"
#include "bigram_gguf.h"
#include "feed_case.h"
#include "runner.h"

#define MEMORY 1.0f

static void open_model(struct feed_case *test, bool rows_on_device, bool says_f32)
{
    const size_t states = BIGRAM_GGUF_TOKENS;
    static char path[TABLE_PATH_BYTES];
    const struct bigram_gguf_options options = {
        .memory = MEMORY, .context_tokens = 4096, .says_f32 = says_f32};
    snprintf(path, sizeof path, "%.480s/model.gguf", test->folder);
    test->states = (int32_t)states;
    test->table = runner_allocate(states * states, sizeof *test->table);
    bigram_random_logits(7, 3.0, states * states, test->table);
    bigram_gguf_write(path, test->table, &options);
    const struct mpo_policy_spec spec = {.name = "bytes",
                                         .model = path,
                                         .lora = "",
                                         .lora_scale = 1.0,
                                         .system = "",
                                         .request = "",
                                         .chat_template = "raw"};
    const struct mpo_policies_spec common = {.prompt_slots = FEED_CASE_SLOTS,
                                             .thread_count = 1,
                                             .rows_on_device = rows_on_device};
    assert_ok(mpo_policy_open(&spec, &common, &mpo_policy_llama_ops, &test->library,
                              &test->policy));
}

static void open_brought(struct feed_case *test)
{
    open_model(test, false, false);
}

/* The host's own memory stands for a device's. */
static void open_left(struct feed_case *test)
{
    open_model(test, true, false);
}

static void open_in_full(struct feed_case *test)
{
    open_model(test, false, true);
}

static void mean_of_all(const struct feed_case *test, const int32_t *token, int32_t count,
                        float *out)
{
    bigram_gguf_logits(test->table, MEMORY, token, count, out);
}

int main(void)
{
    struct feed_kind bytes = {
        .first_token = 0,
        .token_count = BIGRAM_GGUF_TOKENS,
        .bound = 1e-5,
        .open = open_brought,
        .expect = mean_of_all,
    };
    int failures = feed_case_run("policy_llama_feed", &bytes);
    bytes.open = open_left;
    failures += feed_case_run("policy_llama_feed_left", &bytes);
    bytes.open = open_in_full;
    return failures + feed_case_run("policy_llama_feed_in_full", &bytes);
}
