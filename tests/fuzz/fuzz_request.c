/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing what clients send: bodies of chats and completions, and of the tokenizer's
 * endpoints, over a table of four tokens.
 *
 * The argument of an input is the endpoint: chat, completion, tokenize or detokenize. What
 * is accepted keeps the promises of src/serve/serve_impl.h; what is refused is one of the
 * table of errors, in JSON.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_case.h"
#include "serve/request_impl.h"
#include "serve/tokens.h"

#define OBJECTIVES 2
#define VOCAB      4
#define CONTEXT    256
#define ROWS       8

static const char table[] = "mpo-table 1\n"
                            "tokens a b c </s>\n"
                            "row a 0.25 0.25 0.25 0.25\n"
                            "row b 0.25 0.25 0.25 0.25\n"
                            "row c 0.25 0.25 0.25 0.25\n"
                            "row <s> 0.25 0.25 0.25 0.25\n";

static const double weights[OBJECTIVES] = {0.25, 0.75};
static const double alone[OBJECTIVES] = {1.0, 0.0};
static const double scale[OBJECTIVES] = {1.0, 1.0};
static const bool has_system[OBJECTIVES] = {false, false};
static const char *const names[OBJECTIVES] = {"up", "down"};
static struct mpo_serve_model models[] = {
    {.name = (char *)"mpo",
     .mu = weights,
     .weights = weights,
     .strength = 1.0,
     .scale = scale,
     .end_bias = 0.5,
     .policy = -1},
    {.name = (char *)"policy/up", .mu = alone, .strength = 1.0, .policy = 0},
};
static struct mpo_serve_catalog catalog = {
    .policy_name = names,
    .scale = scale,
    .has_system = has_system,
    .objective_count = OBJECTIVES,
    .policy_count = OBJECTIVES,
    .strength = 1.0,
    .vocab_size = VOCAB,
    .context_tokens = CONTEXT,
    .max_tokens = 16,
    .row_capacity = ROWS,
    .model = models,
    .model_count = 2,
};

/* ---- promises ---- */

static void check_texts(const struct mpo_serve_request *request)
{
    const struct mpo_prompt *chat = &request->chat;
    for (int32_t i = 0; i < chat->message_count; i++) {
        bool is_system = strcmp(chat->messages[i].role, "system") == 0;
        fuzz_check(!is_system || i == 0, "a system message that is not the first");
        fuzz_touch(chat->messages[i].content, strlen(chat->messages[i].content));
    }
    for (int32_t i = 0; i < request->prompt_count && request->prompt != NULL; i++) {
        const struct mpo_serve_prompt *prompt = &request->prompt[i];
        fuzz_check(prompt->token_count >= 1 && prompt->token_count <= CONTEXT, "a length");
        for (int32_t t = 0; t < prompt->token_count; t++)
            fuzz_check(mpo_serve_is_token(&catalog, prompt->token[t], t), "a token");
        fuzz_touch(prompt->text, strlen(prompt->text));
        fuzz_check(!request->gave_max_tokens ||
                       prompt->token_count + request->max_tokens <= CONTEXT,
                   "more tokens than fit");
    }
    for (int32_t i = 0; i < request->stop_count; i++)
        fuzz_check(request->stop[i][0] != '\0', "an empty stop text");
    fuzz_touch(request->ignored, strlen(request->ignored));
}

static void check_request(const struct mpo_serve_request *request)
{
    double sum = 0.0;
    for (int32_t k = 0; k < OBJECTIVES; k++)
        sum += request->mu[k];
    fuzz_check(fabs(sum - 1.0) < 1e-9, "exponents that do not sum to 1");
    fuzz_check(request->n >= 1 && request->n <= ROWS && request->best_of >= 1 &&
                   request->best_of <= ROWS,
               "more choices than rows");
    fuzz_check(request->n == 1 || request->best_of == 1, "choices and candidates");
    fuzz_check(request->max_tokens >= (request->echo ? 0 : 1), "no tokens");
    fuzz_check(request->filter.temperature > 0.0 && request->filter.top_p > 0.0 &&
                   isfinite(1.0 / request->filter.temperature),
               "a filter");
    fuzz_check(request->top_logprobs >= 0 && request->top_logprobs <= MPO_SERVE_TOP_MAX,
               "top log-probabilities");
    fuzz_check(request->seed <= INT64_MAX, "a seed");
    for (int32_t i = 0; i < request->bias_count; i++)
        fuzz_check(request->bias[i].token >= 0 && request->bias[i].token < VOCAB &&
                       fabs(request->bias[i].value) <= 100.0,
                   "a bias");
    check_texts(request);
}

static enum mpo_status check_refusal(const struct mpo_serve_refusal *refusal)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_http_error error = mpo_serve_refusal_error(refusal);
    char *text = mpo_http_error_body(&error);
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    fuzz_check(root != NULL, "a refusal that is no JSON");
    fuzz_check(refusal->http_status == 400 || refusal->http_status == 404, "a status");
    fuzz_check(refusal->message[0] != '\0', "no message");
    json_decref(root);
    free(text);
    MPO_FAIL(MPO_ERR_DATA, "%s", refusal->message);
cleanup:
    return status;
}

/* ---- endpoints ---- */

static enum mpo_status check_body(const struct fuzz_input *input)
{
    struct mpo_serve_refusal refusal = {0};
    struct mpo_serve_request *request = NULL;
    char *text = NULL;
    const char *endpoint = fuzz_argument(input, 0, "chat");
    bool is_text = strcmp(endpoint, "tokenize") == 0;
    if (is_text)
        text = mpo_serve_tokenize_json(&catalog, input->body, input->body_bytes, &refusal);
    else if (strcmp(endpoint, "detokenize") == 0)
        text =
            mpo_serve_detokenize_json(&catalog, input->body, input->body_bytes, &refusal);
    else
        mpo_serve_request_parse(&catalog,
                                &(struct mpo_serve_body){strcmp(endpoint, "completion") == 0
                                                             ? MPO_SERVE_COMPLETION
                                                             : MPO_SERVE_CHAT,
                                                         input->body, input->body_bytes, 0},
                                &request, &refusal);
    fuzz_check((text == NULL && request == NULL) == (refusal.http_status != 0),
               "neither an answer nor a refusal");
    if (request != NULL)
        check_request(request);
    if (text != NULL)
        fuzz_touch(text, strlen(text));
    free(text);
    mpo_serve_request_close(&request);
    return refusal.http_status != 0 ? check_refusal(&refusal) : MPO_OK;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct mpo_comm *comm; /* like the policies, for the life of the process */
    static struct mpo_policies *policies;
    struct mpo_policy_spec policy = {
        .name = "up",
        .kind = "table",
        .model = fuzz_file(table, sizeof table - 1),
        .lora = "",
        .system = "",
        .request = "",
        .chat_template = "auto",
        .temperature = 1.0,
    };
    const struct mpo_policies_spec spec = {
        .policies = &policy,
        .placement = {.policy_count = 1, .group_size = 1},
        .thread_count = 1,
        .prompt_slots = 1,
    };
    (void)argc;
    (void)argv;
    fuzz_check(mpo_placement_open_comm(1, 0, &comm) == MPO_OK &&
                   mpo_policies_open(&spec, comm, &policies) == MPO_OK,
               "the table does not open");
    catalog.policies = policies;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input;
    fuzz_input_open(data, bytes, &input);
    fuzz_verdict(check_body(&input));
    fuzz_input_close(&input);
    return 0;
}
