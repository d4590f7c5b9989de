/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The form of the older completions. Entries of log-probabilities are arrays side by side:
 *
 *     {"tokens": ["The", " sky"], "token_logprobs": [null, -0.1],
 *      "top_logprobs": [null, {" sky": -0.1, " sun": -2.5}], "text_offset": [0, 3],
 *      "mpo": [null, {"policy": {name: nat}, "log_z": nat}]}        with policy_scores
 *
 * The most probable tokens are keys, so of two with one name the more probable is listed.
 * The token itself is among them always.
 */
#include "answer_impl.h"

/* @return false without memory */
static bool add_top(json_t *tops, const struct answer_token *made, double log_probability)
{
    size_t bytes = (size_t)made->name_bytes;
    return json_object_getn(tops, made->name, bytes) != NULL ||
           json_object_setn_new(tops, made->name, bytes, answer_log(log_probability)) == 0;
}

static void put_tops(const struct mpo_answer *answer, const struct answer_token *own,
                     const struct mpo_serve_event *event, struct mpo_serve_buffer *out)
{
    struct answer_token made;
    bool has_own = false;
    bool is_whole = true;
    json_t *tops = json_object();
    for (int32_t i = 0; i < answer_top_count(answer, event); i++) {
        answer_token_make(answer, event->top_token[i], own->first, &made);
        is_whole = add_top(tops, &made, event->top_log_q[i]) && is_whole;
        has_own = has_own || event->top_token[i] == own->token;
    }
    if (!has_own)
        is_whole = add_top(tops, own, event->log_q) && is_whole;
    mpo_serve_buffer_json(out, tops);
    out->is_lost = out->is_lost || !is_whole;
}

static void add_entry(const struct mpo_answer *answer, struct answer_entries *entries,
                      const struct answer_token *made, const struct mpo_serve_event *event)
{
    struct mpo_serve_buffer *column = entries->column;
    for (int32_t i = 0; i < ANSWER_OFFSETS; i++)
        mpo_serve_buffer_put(&column[i], ",");
    mpo_serve_buffer_string(&column[ANSWER_TOKENS], made->name, (size_t)made->name_bytes);
    if (event == NULL) {
        for (int32_t i = ANSWER_TOKENS + 1; i < ANSWER_OFFSETS; i++)
            mpo_serve_buffer_put(&column[i], "null");
        return;
    }
    answer_put_log(&column[ANSWER_LOGPROBS], event->log_q);
    put_tops(answer, made, event, &column[ANSWER_TOPS]);
    if (answer->request->policy_scores)
        answer_put_scores(answer, event, &column[ANSWER_SCORES]);
}

static void put_logprobs(const struct mpo_answer *answer, const struct answer_parts *parts,
                         struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "{\"tokens\":");
    answer_put_column(parts, ANSWER_TOKENS, out);
    mpo_serve_buffer_put(out, ",\"token_logprobs\":");
    answer_put_column(parts, ANSWER_LOGPROBS, out);
    mpo_serve_buffer_put(out, ",\"top_logprobs\":");
    answer_put_column(parts, ANSWER_TOPS, out);
    mpo_serve_buffer_put(out, ",\"text_offset\":");
    answer_put_column(parts, ANSWER_OFFSETS, out);
    if (answer->request->policy_scores) {
        mpo_serve_buffer_put(out, ",\"mpo\":");
        answer_put_column(parts, ANSWER_SCORES, out);
    }
    mpo_serve_buffer_put(out, "}");
}

static void put_text(const char *text, size_t bytes, struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "\"text\":");
    mpo_serve_buffer_string(out, text, bytes);
}

const struct answer_form answer_completion = {
    .object = "text_completion",
    .chunk_object = "text_completion",
    .add_entry = add_entry,
    .put_logprobs = put_logprobs,
    .put_text = put_text,
    .put_piece = put_text,
};
