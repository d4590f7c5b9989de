/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prompt: a prompt as each policy gets it, after system text, request and chat template.
 *
 * One process without MPI reads all policies as doctor does, without their weights.
 */
#include <stdio.h>
#include <stdlib.h>

#include "commands/commands.h"
#include "commands/report/output.h"
#include "commands/report/prompt.h"
#include "session/plan.h"

struct viewer {
    struct mpo_config *config;
    struct mpo_session *session;
    struct mpo_policies_survey survey;
    const struct mpo_prompt *prompt;
    struct mpo_remarks remarks;
    json_t *list;           /* NULL: text is wanted */
    enum mpo_status status; /* of the first policy that failed */
    struct mpo_error error;
};

static enum mpo_status print_text(const struct viewer *viewer, int32_t index,
                                  const struct prompt_view *view)
{
    const struct mpo_config_policies *policy = &viewer->config->policies[index];
    printf("%s%s: %d tokens, %d of them special\n", index > 0 ? "\n" : "", policy->name,
           view->token_count, view->special_count);
    prompt_view_print(view->text);
    return MPO_OK;
}

static enum mpo_status add_json(struct viewer *viewer, int32_t index,
                                const struct mpo_policy *policy,
                                const struct prompt_view *view)
{
    const struct mpo_config_policies *configured = &viewer->config->policies[index];
    json_t *object = json_object();
    json_object_set_new(object, "name", output_text(configured->name));
    json_object_set_new(object, "model", output_text(configured->model));
    json_object_set_new(object, "template", output_text(configured->chat_template));
    json_object_set_new(object, "token_count", json_integer(view->token_count));
    json_object_set_new(object, "special_count", json_integer(view->special_count));
    json_object_set_new(object, "text", output_text(view->text));
    json_object_set_new(object, "tokens", prompt_view_tokens(policy, 0));
    json_array_append_new(viewer->list, object);
    return MPO_OK;
}

/* Encode and print for one policy; the others are shown although one fails. */
static void view_policy(void *self, int32_t index, struct mpo_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct viewer *viewer = self;
    struct prompt_view view = {0};
    MPO_TRY(mpo_policy_encode(policy, 0, viewer->prompt, NULL));
    mpo_policy_remark(policy, viewer->prompt, &viewer->remarks);
    MPO_TRY(prompt_view_make(policy, 0, &view));
    MPO_TRY(viewer->list != NULL ? add_json(viewer, index, policy, &view)
                                 : print_text(viewer, index, &view));
cleanup:
    if (status != MPO_OK && viewer->status == MPO_OK) {
        viewer->status = status;
        mpo_error_keep(&viewer->error);
    }
    prompt_view_free(&view);
}

static enum mpo_status choose_prompt(struct viewer *viewer)
{
    enum mpo_status status = MPO_OK;
    int64_t index = viewer->config->prompt.index;
    MPO_TRY(mpo_session_read_prompts(viewer->session));
    const struct mpo_prompts *prompts = viewer->session->prompts;
    MPO_CHECK(index < mpo_prompts_count(prompts), MPO_ERR_USAGE,
              "--index: expected at most %lld, for %s has %lld prompts, found %lld",
              (long long)mpo_prompts_count(prompts) - 1, mpo_prompts_path(prompts),
              (long long)mpo_prompts_count(prompts), (long long)index);
    viewer->prompt = mpo_prompts_get(prompts, index);
cleanup:
    return status;
}

static enum mpo_status view_all(struct viewer *viewer)
{
    enum mpo_status status = MPO_OK;
    struct mpo_session *session = viewer->session;
    MPO_TRY(choose_prompt(viewer));
    MPO_TRY(mpo_session_open_groups(session, 1));
    MPO_TRY(mpo_session_describe_policies(session));
    session->thread_count = 1;
    struct mpo_policies_survey_spec spec = mpo_plan_survey(session);
    spec.prompts = NULL;
    spec.view = view_policy;
    spec.viewer = viewer;
    MPO_TRY(mpo_policies_survey(&spec, session->comm, &viewer->survey));
    for (int32_t i = 0; i < viewer->survey.local_count; i++)
        MPO_TRY(mpo_failure_raise(&viewer->survey.local[i].load));
    if (viewer->status != MPO_OK)
        mpo_error_restore(&viewer->error);
    MPO_TRY(viewer->status);
cleanup:
    return status;
}

static enum mpo_status print_json(struct viewer *viewer)
{
    json_t *root = json_object();
    json_object_set_new(root, "index", json_integer(viewer->config->prompt.index));
    json_object_set_new(root, "line", json_integer(viewer->prompt->line_number));
    json_object_set_new(root, "prompt", output_text(viewer->prompt->text));
    json_object_set(root, "policies", viewer->list);
    return output_json(root);
}

static void report_remarks(const struct mpo_remarks *remarks)
{
    char line[MPO_REMARK_BYTES];
    for (int32_t i = 0; mpo_remarks_line(remarks, i, line, sizeof line); i++)
        mpo_report(MPO_REPORT_WARNING, "%s", line);
}

enum mpo_status mpo_command_prompt(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct viewer viewer = {0};
    MPO_TRY(mpo_config_open("prompt", argc, argv, &viewer.config));
    mpo_command_tell_idle(viewer.config, "prompt", "");
    struct mpo_session_size size = mpo_plan_fit(viewer.config);
    MPO_TRY(mpo_session_make("prompt", viewer.config, &size, &viewer.session));
    if (viewer.config->prompt.format == MPO_REPORT_JSON)
        viewer.list = json_array();
    /* The program prints a failure when this returns. */
    struct mpo_reporter log = mpo_report_to((struct mpo_reporter){0});
    status = view_all(&viewer);
    mpo_report_to(log);
    report_remarks(&viewer.remarks);
    if (status == MPO_OK && viewer.list != NULL)
        status = print_json(&viewer);
cleanup:
    json_decref(viewer.list);
    mpo_policies_survey_release(&viewer.survey);
    mpo_session_close(&viewer.session);
    mpo_config_close(&viewer.config);
    return status;
}
