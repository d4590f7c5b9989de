/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reward program beside a session. It runs on rank zero's host, and rank zero waits for it
 * while the others wait for rank zero; so their deadlines are longer by that of the program.
 */
#include "rewards.h"

#include <stdlib.h>
#include <string.h>

/* ---- texts ---- */

enum mpo_status mpo_session_texts_open(const struct mpo_session *session, size_t count,
                                       struct mpo_session_texts *texts)
{
    enum mpo_status status = MPO_OK;
    mpo_decode_text_open(&texts->one, session->policies, &(struct mpo_decode_stops){0});
    MPO_NEW(count, &texts->bytes);
cleanup:
    return status;
}

void mpo_session_texts_close(struct mpo_session_texts *texts)
{
    mpo_decode_text_close(&texts->one);
    free(texts->text);
    free(texts->bytes);
    *texts = (struct mpo_session_texts){0};
}

enum mpo_status mpo_session_collect_texts(const struct mpo_responses *responses,
                                          struct mpo_session_texts *texts)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode_text *one = &texts->one;
    size_t used = 0;
    for (int32_t i = 0; i < responses->prompt_count * responses->responses; i++) {
        const int32_t *token = responses->token + (ptrdiff_t)i * responses->max_tokens;
        MPO_TRY(mpo_decode_text_set(one, token, responses->token_count[i]));
        MPO_TRY(mpo_memory_grow((void **)&texts->text, &texts->capacity,
                                used + one->count + 1, 1, "texts of a step"));
        memcpy(texts->text + used, one->bytes, one->count);
        used += one->count;
        texts->bytes[i] = (int64_t)one->count;
    }
cleanup:
    return status;
}

/* ---- the program ---- */

bool mpo_session_has_rewards(const struct mpo_session *session)
{
    return session->config->rewards.command[0] != '\0';
}

enum mpo_status mpo_session_rewards_open(const struct mpo_session *session, size_t count,
                                         struct mpo_session_rewards *rewards)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = session->config;
    size_t objectives = (size_t)config->objective_count;
    MPO_NEW(2 * objectives, &rewards->name);
    rewards->policy = rewards->name + objectives;
    MPO_NEW(2 * count, &rewards->given);
    MPO_NEW(count * objectives, &rewards->reward);
    for (size_t k = 0; k < objectives; k++) {
        rewards->name[k] = mpo_config_reward_name(&config->policies[k]);
        rewards->policy[k] = config->policies[k].name;
    }
    MPO_TRY(mpo_rewards_open(
        &(struct mpo_rewards_spec){.command = config->rewards.command,
                                   .name = rewards->name,
                                   .name_count = config->objective_count,
                                   .deadline_seconds = config->rewards.deadline},
        &rewards->program));
cleanup:
    return status;
}

void mpo_session_rewards_close(struct mpo_session_rewards *rewards)
{
    mpo_rewards_close(&rewards->program);
    free(rewards->reward);
    free(rewards->given);
    free(rewards->name);
    *rewards = (struct mpo_session_rewards){0};
}

void mpo_session_expect_rewards(const struct mpo_session *session, const char *doing,
                                int64_t step, double deadline)
{
    double own = session->config->rewards.deadline;
    mpo_comm_expect(doing, step, deadline > 0.0 && own > 0.0 ? deadline + own : 0.0);
}

enum mpo_status mpo_session_measure(const struct mpo_session *session,
                                    const struct mpo_responses *responses,
                                    const struct mpo_session_texts *texts, int64_t first_id,
                                    struct mpo_session_rewards *rewards)
{
    enum mpo_status status = MPO_OK;
    int32_t count = responses->prompt_count * responses->responses;
    for (int32_t i = 0; i < count; i++) {
        const struct mpo_prompt *prompt =
            mpo_prompts_get(session->prompts, responses->prompt[i / responses->responses]);
        rewards->given[i] = prompt->text;
        rewards->given[count + i] = prompt->prefill;
    }
    const struct mpo_rewards_batch batch = {
        .first_id = first_id,
        .count = count,
        .prompt = rewards->given,
        .prefill = rewards->given + count,
        .text = texts->text != NULL ? texts->text : "",
        .text_bytes = texts->bytes,
        .token_count = responses->token_count,
    };
    MPO_TRY(mpo_rewards_measure(rewards->program, &batch, rewards->reward));
    MPO_TRY(mpo_rewards_check_size(rewards->reward, count, rewards->policy,
                                   session->config->objective_count));
cleanup:
    return status;
}
