/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form of chat completions. An entry of log-probabilities is one object of `content`:
 *
 *     {"token": " is", "logprob": -0.1, "bytes": [32, 105, 115],
 *      "top_logprobs": [{"token", "logprob", "bytes"}, ...],
 *      "mpo": {"policy": {name: nat}, "log_z": nat}}                with policy_scores
 *
 * A token without text, such as the end token, has its own name and no bytes, so that the
 * bytes of all tokens are the text.
 */
#include "answer_impl.h"

static void put_token(const struct answer_token *made, double log_probability,
                      struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "{\"token\":");
    mpo_serve_buffer_string(out, made->name, (size_t)made->name_bytes);
    mpo_serve_buffer_put(out, ",\"logprob\":");
    answer_put_log(out, log_probability);
    mpo_serve_buffer_put(out, ",\"bytes\":[");
    for (int32_t i = 0; i < made->text_bytes; i++)
        mpo_serve_buffer_print(out, i > 0 ? ",%u" : "%u", (unsigned char)made->text[i]);
    mpo_serve_buffer_put(out, "]");
}

static void put_tops(const struct mpo_answer *answer, bool first,
                     const struct mpo_serve_event *event, struct mpo_serve_buffer *out)
{
    struct answer_token made;
    mpo_serve_buffer_put(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < answer_top_count(answer, event); i++) {
        answer_token_make(answer, event->top_token[i], first, &made);
        mpo_serve_buffer_put(out, i > 0 ? "," : "");
        put_token(&made, event->top_log_q[i], out);
        mpo_serve_buffer_put(out, "}");
    }
    mpo_serve_buffer_put(out, "]");
}

static void add_entry(const struct mpo_answer *answer, struct answer_entries *entries,
                      const struct answer_token *made, const struct mpo_serve_event *event)
{
    struct mpo_serve_buffer *out = &entries->column[ANSWER_TOKENS];
    mpo_serve_buffer_put(out, ",");
    put_token(made, event->log_q, out);
    put_tops(answer, made->first, event, out);
    if (answer->request->policy_scores) {
        mpo_serve_buffer_put(out, ",\"mpo\":");
        answer_put_scores(answer, event, out);
    }
    mpo_serve_buffer_put(out, "}");
}

static void put_logprobs(const struct mpo_answer *answer, const struct answer_parts *parts,
                         struct mpo_serve_buffer *out)
{
    (void)answer;
    mpo_serve_buffer_put(out, "{\"content\":");
    answer_put_column(parts, ANSWER_TOKENS, out);
    mpo_serve_buffer_put(out, ",\"refusal\":null}");
}

static void put_text(const char *text, size_t bytes, struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    mpo_serve_buffer_string(out, text, bytes);
    mpo_serve_buffer_put(out, ",\"refusal\":null}");
}

static void put_piece(const char *text, size_t bytes, struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "\"delta\":{");
    if (bytes > 0) {
        mpo_serve_buffer_put(out, "\"content\":");
        mpo_serve_buffer_string(out, text, bytes);
    }
    mpo_serve_buffer_put(out, "}");
}

const struct answer_form answer_chat = {
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .has_role = true,
    .add_entry = add_entry,
    .put_logprobs = put_logprobs,
    .put_text = put_text,
    .put_piece = put_piece,
};
