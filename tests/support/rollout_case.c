/* SPDX-License-Identifier: Apache-2.0 */
#include "rollout_case.h"

#include <string.h>

#include "runner.h"

const double rollout_case_temperature[ROLLOUT_CASE_POLICIES] = {1.0, 0.7, 1.5};

static void open_bigram(struct rollout_case *loop)
{
    static const int32_t end_token = ROLLOUT_CASE_END;
    static const int32_t start[ROLLOUT_CASE_STARTS] = {0, 1, 2};
    bigram_random_logits(5, 1.5, sizeof loop->logits / sizeof(float),
                         &loop->logits[0][0][0]);
    struct bigram_spec spec = {
        .logits = &loop->logits[0][0][0],
        .end_token = &end_token,
        .start = start,
        .policy_count = ROLLOUT_CASE_POLICIES,
        .vocab_size = ROLLOUT_CASE_VOCAB,
        .state_count = ROLLOUT_CASE_VOCAB + 1,
        .end_count = 1,
        .start_count = ROLLOUT_CASE_STARTS,
        .max_tokens = ROLLOUT_CASE_MAX_TOKENS,
    };
    loop->bigram = bigram_open(&spec);
}

static void open_prompts(struct rollout_case *loop)
{
    const struct rollout_case_spec *spec = &loop->spec;
    char path[TABLE_PATH_BYTES];
    char text[2 * ROLLOUT_CASE_PROMPTS_MAX + 1] = "";
    for (int32_t i = 0; i < spec->prompt_count; i++) {
        text[2 * i] = (char)('a' + i % ROLLOUT_CASE_STARTS);
        text[2 * i + 1] = '\n';
    }
    table_write_text(loop->folder, "prompts.txt", spec->given != NULL ? spec->given : text,
                     path);
    struct mpo_prompts_spec prompts = {
        .path = path,
        .format = spec->given != NULL ? "jsonl" : "text",
        .prefill = "",
        .response_name = {"chosen", "rejected"},
        .response_count = spec->given != NULL ? spec->responses : 0,
        .ended = true,
    };
    assert_ok(mpo_prompts_open(&prompts, &loop->prompts));
}

static void make_room(struct rollout_case *loop)
{
    bool given = loop->spec.given != NULL;
    struct mpo_policies_room room = {
        .row_capacity = loop->spec.row_capacity + loop->spec.parked_rows,
        .position_capacity = loop->spec.row_capacity + loop->spec.given_positions,
        .held_prompts = loop->spec.unit_prompts,
        .response_tokens = ROLLOUT_CASE_MAX_TOKENS,
    };
    if (given) {
        assert_ok(mpo_policies_encode_responses(loop->policies, loop->comm, loop->prompts));
        room.response_tokens = mpo_policies_longest_response(loop->policies);
    }
    assert_ok(mpo_policies_encode_prompts(loop->policies, loop->comm, loop->prompts,
                                          room.response_tokens));
    assert_ok(mpo_policies_make_room(loop->policies, loop->comm, &room));
}

static void open_policies(struct rollout_case *loop)
{
    static const char *const names[ROLLOUT_CASE_POLICIES] = {"one", "two", "three"};
    char paths[ROLLOUT_CASE_POLICIES][TABLE_PATH_BYTES];
    struct mpo_policy_spec specs[ROLLOUT_CASE_POLICIES];
    double probability[(ROLLOUT_CASE_VOCAB + 1) * ROLLOUT_CASE_VOCAB];
    for (int32_t k = 0; k < ROLLOUT_CASE_POLICIES; k++) {
        table_probability(loop->bigram, k, ROLLOUT_CASE_VOCAB, probability);
        table_write(loop->folder, names[k], probability, ROLLOUT_CASE_VOCAB, paths[k]);
        specs[k] = (struct mpo_policy_spec){
            .name = names[k],
            .kind = "table",
            .model = paths[k],
            .lora = "",
            .lora_scale = 1.0,
            .system = "",
            .request = "",
            .chat_template = "auto",
            .temperature = rollout_case_temperature[k],
        };
    }
    struct mpo_policies_spec spec = {
        .policies = specs,
        .placement = mpo_placement_of(ROLLOUT_CASE_POLICIES, loop->comm),
        .thread_count = 1,
        .prompt_slots = ROLLOUT_CASE_PROMPTS_MAX,
    };
    assert_ok(mpo_policies_open(&spec, loop->comm, &loop->policies));
    make_room(loop);
}

static void open_decode(struct rollout_case *loop)
{
    const struct rollout_case_spec *spec = &loop->spec;
    struct mpo_decode_spec decode = {
        .comm = loop->comm,
        .policies = loop->policies,
        .exchange = loop->exchange,
        .mixture = loop->mixture,
        .placement = mpo_placement_of(ROLLOUT_CASE_POLICIES, loop->comm),
        .row_capacity = spec->row_capacity,
        .parked_rows = spec->parked_rows,
        .prompt_slots = ROLLOUT_CASE_PROMPTS_MAX,
        .given_positions = spec->given_positions,
        .response_tokens = spec->response_tokens,
        .top_max = spec->top_max,
        .bias_max = spec->bias_max,
        .prefill = spec->prefill,
        .prefill_tokens = spec->prefill_tokens,
        .prefill_step = spec->prefill_step,
        .prefill_stretch = spec->prefill_stretch,
        .prefill_idle = spec->prefill_idle,
    };
    assert_ok(mpo_decode_open(&decode, &loop->decode));
}

static void open_rollout(struct rollout_case *loop)
{
    struct mpo_rollout_spec rollout = {
        .comm = loop->comm,
        .policies = loop->policies,
        .decode = loop->decode,
        .seed = 3,
        .policy_count = ROLLOUT_CASE_POLICIES,
        .prompts_max = loop->spec.prompt_count,
        .unit_prompts = loop->spec.unit_prompts,
        .row_capacity = loop->spec.row_capacity,
        .responses = loop->spec.responses,
        .max_tokens = ROLLOUT_CASE_MAX_TOKENS,
        .stop = loop->spec.stop,
        .stop_count = loop->spec.stop_count,
        .purpose = loop->spec.given != NULL ? MPO_ROLLOUT_SCORES : MPO_ROLLOUT_DRAWS,
    };
    assert_ok(mpo_rollout_open(&rollout, &loop->rollout));
}

void rollout_case_open(struct rollout_case *loop, const struct rollout_case_spec *spec)
{
    static const int32_t end_token = ROLLOUT_CASE_END;
    *loop = (struct rollout_case){.spec = *spec};
    assert_in_range(spec->prompt_count, 1, ROLLOUT_CASE_PROMPTS_MAX);
    if (spec->row_capacity == 0)
        loop->spec.row_capacity = spec->unit_prompts * spec->responses;
    if (spec->given_positions == 0 && spec->given != NULL)
        loop->spec.given_positions = MPO_DECODE_GIVEN_POSITIONS;
    int32_t rows = loop->spec.row_capacity + loop->spec.given_positions;
    table_folder_make(loop->folder);
    open_bigram(loop);
    assert_ok(mpo_placement_open_comm(ROLLOUT_CASE_POLICIES, 0, &loop->comm));
    open_prompts(loop);
    open_policies(loop);
    struct mpo_exchange_spec exchange = {
        .transport = spec->transport != NULL ? spec->transport : "auto",
        .pattern = spec->pattern,
        .placement = mpo_placement_of(ROLLOUT_CASE_POLICIES, loop->comm),
        .row_capacity = rows,
        .vocab_size = ROLLOUT_CASE_VOCAB};
    struct mpo_mixture_spec mixture = {
        .device = "cpu",
        .temperature = rollout_case_temperature,
        .end_token = &end_token,
        .policy_count = ROLLOUT_CASE_POLICIES,
        .end_count = 1,
        .vocab_size = ROLLOUT_CASE_VOCAB,
        .row_capacity = rows,
    };
    assert_ok(mpo_exchange_open(&exchange, loop->comm, &loop->exchange));
    mixture.exchange = loop->exchange;
    assert_ok(mpo_mixture_open(&mixture, &loop->mixture));
    open_decode(loop);
    open_rollout(loop);
}

void rollout_case_close(struct rollout_case *loop)
{
    mpo_rollout_close(&loop->rollout);
    mpo_decode_close(&loop->decode);
    mpo_mixture_close(&loop->mixture);
    mpo_exchange_close(&loop->exchange);
    mpo_policies_close(&loop->policies);
    mpo_prompts_close(&loop->prompts);
    mpo_comm_close(&loop->comm);
    bigram_close(&loop->bigram);
    table_folder_remove(loop->folder);
}

struct mpo_rollout_step rollout_case_step(const struct rollout_case *loop, int64_t step)
{
    static const double mu[ROLLOUT_CASE_POLICIES] = {0.5, 0.2, 0.3};
    static const int64_t prompt[ROLLOUT_CASE_PROMPTS_MAX] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                             8, 9, 10, 11, 12, 13, 14, 15};
    return (struct mpo_rollout_step){
        .step = step,
        .prompt = prompt,
        .prompt_count = loop->spec.prompt_count,
        .mu = mu,
        .end_bias = 0.4,
    };
}
