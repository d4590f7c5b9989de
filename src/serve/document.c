/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What chats and completions, whole answers and streams have in common: the head of every
 * document, usage, what the tokens were drawn with, and how a choice ended.
 */
#include "answer_impl.h"

#include <string.h>

#include "models.h"

void answer_put_head(const struct mpo_answer *answer, const char *fingerprint,
                     struct mpo_serve_buffer *out)
{
    const struct mpo_serve_request *request = answer->request;
    const struct answer_form *form = answer->form;
    mpo_serve_buffer_put(out, "{\"id\":");
    mpo_serve_buffer_string(out, request->id, strlen(request->id));
    mpo_serve_buffer_print(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":",
                           request->stream ? form->chunk_object : form->object,
                           (long long)request->created);
    mpo_serve_buffer_string(out, request->model, strlen(request->model));
    mpo_serve_buffer_put(out, ",\"system_fingerprint\":");
    mpo_serve_buffer_string(out, fingerprint, strlen(fingerprint));
}

void answer_put_usage(const struct mpo_answer *answer, struct mpo_serve_buffer *out)
{
    struct mpo_answer_usage usage;
    mpo_answer_usage(answer, &usage);
    int64_t total = usage.prompt_tokens + usage.completion_tokens;
    mpo_serve_buffer_json(out,
                          json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens",
                                    (json_int_t)usage.prompt_tokens, "completion_tokens",
                                    (json_int_t)usage.completion_tokens, "total_tokens",
                                    (json_int_t)total, "prompt_tokens_details",
                                    "cached_tokens", (json_int_t)usage.cached_tokens));
}

/* {policy: figure, ...} */
static void put_figures(const struct mpo_answer *answer, const double *figure,
                        struct mpo_serve_buffer *out)
{
    mpo_serve_buffer_put(out, "{");
    for (int32_t h = 0; h < answer->catalog->policy_count; h++) {
        const char *policy = mpo_serve_hosted_name(answer->catalog, h);
        mpo_serve_buffer_put(out, h > 0 ? "," : "");
        mpo_serve_buffer_string(out, policy, strlen(policy));
        mpo_serve_buffer_put(out, ":");
        mpo_serve_buffer_number(out, figure[h]);
    }
    mpo_serve_buffer_put(out, "}");
}

void answer_put_mixture(const struct mpo_answer *answer, struct mpo_serve_buffer *out)
{
    const struct mpo_serve_request *request = answer->request;
    mpo_serve_buffer_print(
        out, "{\"seed\":%llu,\"end_bias\":", (unsigned long long)request->seed);
    mpo_serve_buffer_number(out, request->end_bias);
    mpo_serve_buffer_put(out, ",\"strength\":");
    mpo_serve_buffer_number(out, request->strength);
    mpo_serve_buffer_put(out, ",\"weights\":");
    mpo_serve_buffer_json(out, mpo_serve_weights_json(answer->catalog, request->weights));
    mpo_serve_buffer_put(out, ",\"prompt_tokens\":{");
    const char *comma = "";
    for (int32_t h = 0; h < answer->catalog->policy_count; h++) {
        const char *policy = mpo_serve_hosted_name(answer->catalog, h);
        if (answer->catalog->blend_name != NULL && request->mu[h] == 0.0)
            continue; /* another model */
        mpo_serve_buffer_put(out, comma);
        mpo_serve_buffer_string(out, policy, strlen(policy));
        mpo_serve_buffer_print(out, ":%lld", (long long)answer->prompt_tokens[h]);
        comma = ",";
    }
    mpo_serve_buffer_put(out, "}}");
}

/* ---- choices ---- */

static void put_stop_reason(const struct mpo_answer *answer,
                            const struct answer_choice *choice,
                            struct mpo_serve_buffer *out)
{
    const struct mpo_serve_request *request = answer->request;
    mpo_serve_buffer_put(out, ",\"stop_reason\":");
    if (choice->finish == MPO_SERVE_FINISH_STOP && choice->stop >= 0 &&
        choice->stop < request->stop_count) {
        const char *stop = request->stop[choice->stop];
        mpo_serve_buffer_string(out, stop, strlen(stop));
    } else if (choice->finish == MPO_SERVE_FINISH_END) {
        mpo_serve_buffer_print(out, "%d", choice->last_token);
    } else {
        mpo_serve_buffer_put(out, "null");
    }
}

void answer_put_finish(const struct mpo_answer *answer, const struct answer_choice *choice,
                       struct mpo_serve_buffer *out)
{
    const char *reason = choice->finish == MPO_SERVE_FINISH_LENGTH ? "length" : "stop";
    mpo_serve_buffer_print(out, ",\"finish_reason\":\"%s\"", reason);
    put_stop_reason(answer, choice, out);
    if (!answer->request->policy_scores)
        return;
    mpo_serve_buffer_put(out, ",\"mpo\":{\"log_mixture\":");
    mpo_serve_buffer_number(out, choice->log_q);
    mpo_serve_buffer_put(out, ",\"log_z\":");
    mpo_serve_buffer_number(out, choice->log_z);
    mpo_serve_buffer_put(out, ",\"log_policy\":");
    put_figures(answer, choice->log_policy, out);
    mpo_serve_buffer_put(out, "}");
}

/* The text of a choice, after that of its prompt where it is echoed. */
static void put_text(const struct mpo_answer *answer, const struct answer_prompt *prompt,
                     const struct answer_choice *choice, struct mpo_serve_buffer *out)
{
    const struct mpo_decode_text *text = &choice->text;
    struct mpo_serve_buffer joined = {0};
    if (!answer->request->echo) {
        answer->form->put_text(text->bytes, text->count, out);
        return;
    }
    mpo_serve_buffer_put(&joined, prompt->given->text);
    mpo_serve_buffer_add(&joined, text->bytes, text->count);
    if (joined.is_lost)
        out->is_lost = true;
    else
        answer->form->put_text(joined.bytes, joined.count, out);
    mpo_serve_buffer_close(&joined);
}

static void put_choice(const struct mpo_answer *answer, int32_t index,
                       const struct answer_prompt *prompt,
                       const struct answer_choice *choice, struct mpo_serve_buffer *out)
{
    const struct mpo_serve_request *request = answer->request;
    struct answer_parts parts = {
        {request->echo ? &prompt->entries : NULL, &choice->entries}};
    mpo_serve_buffer_print(out, "%s{\"index\":%d,", index > 0 ? "," : "", index);
    put_text(answer, prompt, choice, out);
    mpo_serve_buffer_put(out, ",\"logprobs\":");
    if (request->logprobs)
        answer->form->put_logprobs(answer, &parts, out);
    else
        mpo_serve_buffer_put(out, "null");
    answer_put_finish(answer, choice, out);
    mpo_serve_buffer_put(out, "}");
}

void answer_put_whole(const struct mpo_answer *answer, struct mpo_serve_buffer *out)
{
    const struct mpo_serve_request *request = answer->request;
    mpo_serve_buffer_add(out, answer->head.bytes, answer->head.count);
    mpo_serve_buffer_put(out, ",\"choices\":[");
    for (int32_t i = 0; i < request->prompt_count * request->n; i++) {
        int32_t p = i / request->n;
        const struct answer_choice *choices = answer->choice + p * answer->choice_count;
        int32_t c = request->best_of > 1 ? answer_pick(answer, p) : i % request->n;
        put_choice(answer, i, &answer->prompt[p], &choices[c], out);
    }
    mpo_serve_buffer_put(out, "],\"usage\":");
    answer_put_usage(answer, out);
    mpo_serve_buffer_put(out, ",\"mpo\":");
    answer_put_mixture(answer, out);
    mpo_serve_buffer_put(out, "}");
}
