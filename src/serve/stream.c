/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of server-sent events: a chunk has what is certain of one choice and was not sent.
 *
 * The choices of a prompt that is echoed begin with it, so nothing of them is sent before
 * its last entry has come.
 */
#include "answer_impl.h"

#include <string.h>

static void begin_chunk(struct mpo_answer *answer)
{
    mpo_serve_buffer_put(&answer->out, "data: ");
    mpo_serve_buffer_add(&answer->out, answer->head.bytes, answer->head.count);
    mpo_serve_buffer_put(&answer->out, ",\"choices\":[");
}

/* The last chunk of all has what the tokens were drawn with. */
static void end_chunk(struct mpo_answer *answer, bool has_usage, bool is_last)
{
    struct mpo_serve_buffer *out = &answer->out;
    mpo_serve_buffer_put(out, "]");
    if (has_usage) {
        mpo_serve_buffer_put(out, ",\"usage\":");
        answer_put_usage(answer, out);
    } else if (answer->request->include_usage) {
        mpo_serve_buffer_put(out, ",\"usage\":null");
    }
    if (is_last) {
        mpo_serve_buffer_put(out, ",\"mpo\":");
        answer_put_mixture(answer, out);
    }
    mpo_serve_buffer_put(out, "}\n\n");
}

static int32_t index_of(const struct mpo_answer *answer, int32_t prompt, int32_t choice)
{
    return prompt * answer->choice_count + choice;
}

static void put_index(struct mpo_answer *answer, int32_t prompt, int32_t choice)
{
    mpo_serve_buffer_print(&answer->out, "{\"index\":%d,",
                           index_of(answer, prompt, choice));
}

/* The entries that were released, null where there are none. */
static void put_logprobs(struct mpo_answer *answer, const struct answer_entries *entries)
{
    const struct answer_parts parts = {{entries, NULL}};
    mpo_serve_buffer_put(&answer->out, ",\"logprobs\":");
    if (entries != NULL && entries->released[ANSWER_TOKENS] > 0)
        answer->form->put_logprobs(answer, &parts, &answer->out);
    else
        mpo_serve_buffer_put(&answer->out, "null");
}

static void send_role(struct mpo_answer *answer, int32_t prompt, int32_t choice)
{
    begin_chunk(answer);
    put_index(answer, prompt, choice);
    mpo_serve_buffer_put(&answer->out, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"
                                       ",\"logprobs\":null,\"finish_reason\":null}");
    end_chunk(answer, false, false);
}

static void send_echo(struct mpo_answer *answer, int32_t prompt, int32_t choice)
{
    const struct answer_prompt *echoed = &answer->prompt[prompt];
    const char *text = echoed->given->text;
    begin_chunk(answer);
    put_index(answer, prompt, choice);
    answer->form->put_piece(text, strlen(text), &answer->out);
    put_logprobs(answer, &echoed->entries);
    mpo_serve_buffer_put(&answer->out, ",\"finish_reason\":null}");
    end_chunk(answer, false, false);
}

void answer_stream_choice(struct mpo_answer *answer, int32_t prompt, int32_t choice)
{
    struct answer_choice *one = &answer->choice[index_of(answer, prompt, choice)];
    bool is_complete = one->finish != MPO_SERVE_FINISH_NONE;
    if (!answer->prompt[prompt].is_shown || (one->certain == one->sent && !is_complete))
        return;
    begin_chunk(answer);
    put_index(answer, prompt, choice);
    answer->form->put_piece(one->text.bytes + one->sent, one->certain - one->sent,
                            &answer->out);
    put_logprobs(answer, &one->entries);
    if (is_complete)
        answer_put_finish(answer, one, &answer->out);
    else
        mpo_serve_buffer_put(&answer->out, ",\"finish_reason\":null");
    mpo_serve_buffer_put(&answer->out, "}");
    answer->open_count -= is_complete;
    end_chunk(answer, false, answer->open_count == 0 && !answer->request->include_usage);
    one->sent = one->certain;
    answer_entries_drop(&one->entries);
}

void answer_stream_prompt(struct mpo_answer *answer, int32_t prompt)
{
    struct answer_prompt *seated = &answer->prompt[prompt];
    const struct mpo_serve_request *request = answer->request;
    if (seated->is_shown || (request->echo && request->logprobs &&
                             seated->token_count < seated->given->token_count))
        return;
    seated->is_shown = true;
    for (int32_t c = 0; c < answer->choice_count; c++) {
        if (answer->form->has_role)
            send_role(answer, prompt, c);
        else if (request->echo)
            send_echo(answer, prompt, c);
        answer_stream_choice(answer, prompt, c);
    }
    answer_entries_close(&seated->entries);
}

void answer_stream_end(struct mpo_answer *answer)
{
    if (answer->request->include_usage) {
        begin_chunk(answer);
        end_chunk(answer, true, true);
    }
    mpo_serve_buffer_put(&answer->out, "data: [DONE]\n\n");
}
