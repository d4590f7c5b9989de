/* SPDX-License-Identifier: Apache-2.0 */
#include "feed_words.h"

#include <math.h>

#include "runner.h"

enum { VOCAB = FEED_WORDS_VOCAB };

void feed_words_open(struct feed_case *test)
{
    char path[TABLE_PATH_BYTES];
    double probability[VOCAB + 1][VOCAB];
    test->states = VOCAB;
    test->table = runner_allocate((size_t)(VOCAB + 1) * VOCAB, sizeof *test->table);
    for (int state = 0; state <= VOCAB; state++) {
        double sum = 0.0;
        for (int id = 0; id < VOCAB; id++)
            sum += probability[state][id] =
                0.1 + runner_uniform(3, (uint64_t)(state * VOCAB + id));
        for (int id = 0; id < VOCAB; id++) {
            probability[state][id] /= sum;
            test->table[state * VOCAB + id] = (float)log(probability[state][id]);
        }
    }
    table_write(test->folder, "words.table", &probability[0][0], VOCAB, path);
    const struct mpo_policy_spec spec = {.name = "words",
                                         .model = path,
                                         .lora = "",
                                         .system = "",
                                         .request = "",
                                         .chat_template = "auto"};
    const struct mpo_policies_spec common = {.prompt_slots = FEED_CASE_SLOTS};
    assert_ok(mpo_policy_open(&spec, &common, &mpo_policy_table_ops, &test->library,
                              &test->policy));
}

static void row_of_last(const struct feed_case *test, const int32_t *token, int32_t count,
                        float *out)
{
    for (int32_t id = 0; id < VOCAB; id++)
        out[id] = test->table[token[count - 1] * VOCAB + id];
}

const struct feed_kind feed_words = {
    .first_token = 0,
    .token_count = VOCAB - 1,
    .open = feed_words_open,
    .expect = row_of_last,
};
