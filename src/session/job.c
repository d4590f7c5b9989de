/*
 * What fit and generate open alike: ranks, prompts, policies, exchange, mixture, rollout.
 * Each phase ends in an agreement, so that one rank's failure is everybody's.
 */
#include "job.h"
#include "needs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

/* U+FFFD in place of a byte that is no character. */
#define REPLACEMENT       "\xef\xbf\xbd"
#define REPLACEMENT_BYTES 3

enum mpo_status job_read_prompts(struct job *job, const struct job_size *size)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = job->config;
    struct mpo_prompts_spec prompts = size->prompts;
    bool given = prompts.path != NULL; /* not those of the configuration */
    if (!given) {
        prompts.path = config->prompts.file;
        prompts.format = config->prompts.format;
        prompts.prefill = config->prompts.prefill;
    }
    MPO_CHECK(strcmp(prompts.path, "-") != 0 || size->prompt[0] != '\0' ||
                  mpo_comm_job_size() == 1,
              MPO_ERR_USAGE,
              "%s: expected a file, found -: only one of %d ranks has the standard input",
              given ? "--input" : "prompts.file", mpo_comm_job_size());
    if (size->prompt[0] != '\0')
        MPO_TRY(mpo_prompts_open_single(size->prompt, prompts.prefill, &job->prompts));
    else
        MPO_TRY(mpo_prompts_open(&prompts, &job->prompts));
    MPO_CHECK(
        !size->distinct_prompts || size->prompts_max <= mpo_prompts_count(job->prompts),
        MPO_ERR_CONFIG,
        "rollout.prompts_per_step: expected at most %lld, the number of prompts, found %d",
        (long long)mpo_prompts_count(job->prompts), size->prompts_max);
cleanup:
    return status;
}

enum mpo_status job_open_groups(struct job *job, int32_t ranks_per_group)
{
    int32_t policy_count = job->config->policy_count;
    enum mpo_status status =
        mpo_placement_open_comm(policy_count, ranks_per_group, &job->comm);
    if (status == MPO_OK)
        job->placement = mpo_placement_of(policy_count, job->comm);
    return status;
}

enum mpo_status job_open_ranks(struct job *job)
{
    int64_t ranks = job->config->exchange.ranks_per_group;
    return job_open_groups(job, ranks == MPO_AUTO_INTEGER ? 0 : (int32_t)ranks);
}

enum mpo_status job_describe_policies(struct job *job)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = job->config;
    MPO_NEW(config->policy_count, &job->policy_specs);
    MPO_NEW(config->policy_count, &job->temperature);
    for (int32_t h = 0; h < config->policy_count; h++) {
        const struct mpo_config_policies *policy = &config->policies[h];
        job->temperature[h] = policy->temperature;
        job->policy_specs[h] = (struct mpo_policy_spec){
            .name = policy->name,
            .kind = policy->kind,
            .model = policy->model,
            .lora = policy->lora,
            .lora_scale = policy->lora_scale,
            .system = policy->system,
            .request = policy->request,
            .chat_template = policy->template,
            .temperature = policy->temperature,
            .devices = (int32_t)policy->devices,
        };
    }
cleanup:
    return status;
}

static enum mpo_status check_policies(const void *asker, const char *kind)
{
    const struct job *job = asker;
    return mpo_policies_check_device(job->policy_specs, job->config->policy_count, kind);
}

int32_t job_devices(const struct mpo_config *config, int32_t first, int32_t count)
{
    int64_t devices = 1;
    for (int32_t h = first; h < first + count; h++)
        if (config->policies[h].devices > devices)
            devices = config->policies[h].devices;
    return (int32_t)devices;
}

enum mpo_status job_open_device(struct job *job)
{
    enum mpo_status status = MPO_OK;
    int32_t first = 0;
    int32_t count = 0;
    struct mpo_device_wish wish = {
        .choice = job->config->run.device, .check = check_policies, .asker = job};
    mpo_placement_block(&job->placement, mpo_comm_group_rank(job->comm), &first, &count);
    wish.count = job_devices(job->config, first, count);
    MPO_TRY(mpo_comm_local_before(job->comm, wish.count, &wish.before));
    MPO_TRY(mpo_device_open(&wish, job->comm, &job->device));
cleanup:
    return status;
}

/* The cores that this rank may run on, over the ranks that may run on the same ones, unless
 * the user says otherwise: launchers bind ranks to cores of their own, or to none. */
enum mpo_status job_choose_threads(struct job *job)
{
    enum mpo_status status = MPO_OK;
    int64_t wanted = job->config->run.threads;
    int32_t sharing = 0;
    struct mpo_host host;
    mpo_host_describe(&host);
    MPO_TRY(mpo_comm_local_same(job->comm, host.core_set_hash, &sharing));
    int32_t each = host.usable_core_count / sharing;
    job->thread_count = wanted != MPO_AUTO_INTEGER ? (int32_t)wanted : each > 0 ? each : 1;
cleanup:
    return status;
}

static int32_t rows_at_once(const struct job_size *size)
{
    return size->row_capacity > 0 ? size->row_capacity
                                  : size->unit_prompts * size->responses;
}

bool job_rows_on_device(const struct job *job)
{
    return job->device.total_bytes > 0 && /* memory of its own */
           mpo_exchange_carries_device_rows(job->config->exchange.transport, job->comm);
}

struct mpo_policies_spec job_policies_spec(const struct job *job,
                                           const struct job_size *size)
{
    return (struct mpo_policies_spec){
        .policies = job->policy_specs,
        .placement = job->placement,
        .thread_count = job->thread_count,
        .unit_prompts = size->unit_prompts,
        .responses = size->responses,
        .row_capacity = rows_at_once(size),
        .max_tokens = (int32_t)job->config->rollout.max_tokens,
        .scores_answers = size->prompts.answer_count > 0,
        .device = &job->device,
        .rows_on_device = job_rows_on_device(job),
        .hash_models = job->config->record.hash_models,
    };
}

static enum mpo_status open_policies(struct job *job, const struct job_size *size)
{
    struct mpo_policies_spec spec = job_policies_spec(job, size);
    return mpo_policies_open(&spec, job->comm, job->prompts, &job->policies);
}

/* Policies that leave their rows on the host, if any, are among these of the rank; rounded
 * rows are those of all of them. */
static void place_policies(const struct job *job, struct mpo_mixture_spec *spec)
{
    int32_t first = 0;
    int32_t count = 0;
    mpo_placement_block(&job->placement, mpo_comm_group_rank(job->comm), &first, &count);
    spec->placed_first = first;
    for (int32_t k = 0; k < count; k++)
        if (spec->bf16_rows ||
            !mpo_policy_rows_on_device(mpo_policies_local(job->policies, k)))
            spec->placed_count = count;
}

/* Rows of one position at most. */
static int32_t position_rows(const struct job_size *size)
{
    return mpo_rollout_positions(rows_at_once(size), size->prompts.answer_count > 0);
}

static bool rounds_rows(const struct mpo_config *config)
{
    return strcmp(config->exchange.rows, "bf16") == 0;
}

static struct mpo_mixture_spec mixture_spec(const struct job *job,
                                            const struct job_size *size, int32_t vocab_size)
{
    return (struct mpo_mixture_spec){
        .device = job->device.kind,
        .temperature = job->temperature,
        .policy_count = job->config->policy_count,
        .vocab_size = vocab_size,
        .row_capacity = position_rows(size),
        .rows_on_device = job_rows_on_device(job),
        .bf16_rows = rounds_rows(job->config),
    };
}

static enum mpo_status open_mixture(struct job *job, const struct job_size *size)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture_spec spec =
        mixture_spec(job, size, mpo_policies_vocab_size(job->policies));
    spec.exchange = job->exchange;
    place_policies(job, &spec);
    spec.end_count = mpo_policies_end_tokens(job->policies, &spec.end_token);
    spec.masked_count = mpo_policies_masked_tokens(job->policies, &spec.masked);
    MPO_TRY(mpo_mixture_open(&spec, &job->mixture));
cleanup:
    return status;
}

struct mpo_exchange_spec job_exchange_spec(const struct mpo_config *config,
                                           const struct mpo_placement *placement,
                                           const struct job_size *size, int32_t vocab_size)
{
    return (struct mpo_exchange_spec){
        .transport = config->exchange.transport,
        .pattern = config->exchange.pattern,
        .placement = *placement,
        .row_capacity = position_rows(size),
        .vocab_size = vocab_size,
        .bf16_rows = rounds_rows(config),
    };
}

static enum mpo_status open_exchange(struct job *job, const struct job_size *size)
{
    struct mpo_exchange_spec spec = job_exchange_spec(
        job->config, &job->placement, size, mpo_policies_vocab_size(job->policies));
    spec.rows_on_device = job_rows_on_device(job);
    return mpo_exchange_open(&spec, job->comm, &job->exchange);
}

static enum mpo_status open_rollout(struct job *job, const struct job_size *size)
{
    enum mpo_status status = MPO_OK;
    job->prompts_max = size->prompts_max > 0
                           ? size->prompts_max
                           : size->unit_prompts * mpo_comm_group_count(job->comm);
    MPO_TRY(open_mixture(job, size));
    struct mpo_rollout_spec rollout = {
        .comm = job->comm,
        .policies = job->policies,
        .exchange = job->exchange,
        .mixture = job->mixture,
        .timing = &job->timing,
        .seed = (uint64_t)job->config->run.seed,
        .policy_count = job->config->policy_count,
        .prompts_max = job->prompts_max,
        .unit_prompts = size->unit_prompts,
        .row_capacity = rows_at_once(size),
        .responses = size->responses,
        .max_tokens = (int32_t)job->config->rollout.max_tokens,
        .stop = size->stop,
        .stop_count = size->stop_count,
        .scores_answers = size->prompts.answer_count > 0,
    };
    MPO_TRY(mpo_rollout_open(&rollout, &job->rollout));
cleanup:
    return status;
}

/* ---- memory ---- */

uint64_t job_host_rows(const struct job *job, const struct job_size *size,
                       const struct mpo_policies_survey *survey, uint64_t exchange_bytes)
{
    struct mpo_mixture_spec spec = mixture_spec(job, size, survey->vocab_size);
    spec.placed_count = survey->local_count;
    return mpo_mixture_host_bytes(&spec) + (spec.rows_on_device ? 0 : exchange_bytes);
}

uint64_t job_device_rows(const struct job *job, const struct job_size *size,
                         const struct mpo_policies_survey *survey, uint64_t exchange_bytes)
{
    struct mpo_mixture_spec spec = mixture_spec(job, size, survey->vocab_size);
    for (int32_t i = 0; i < survey->local_count; i++)
        if (spec.bf16_rows || survey->local[i].need.devices == 0 ||
            !survey->local[i].need.keeps_rows)
            spec.placed_count = survey->local_count; /* as place_policies */
    return mpo_mixture_device_bytes(&spec) + (spec.rows_on_device ? exchange_bytes : 0);
}

/* True on all ranks when a survey found nothing that would keep a figure from being known.
 * What single policies failed in, opening will find again and report. Collective. */
static enum mpo_status is_known(const struct job *job,
                                const struct mpo_policies_survey *survey, bool *known)
{
    enum mpo_status status = MPO_OK;
    double all = survey->all_loaded && survey->vocab_size > 0 ? 1.0 : 0.0;
    for (int32_t i = 0; i < survey->local_count; i++)
        if (survey->local[i].prompts.status != MPO_OK)
            all = 0.0;
    MPO_TRY(mpo_comm_min(job->comm, &all, 1));
    *known = all > 0.0;
cleanup:
    return status;
}

/* Whether all that this rank will put on its device has room there, before weights are
 * read. */
static enum mpo_status check_device_memory(struct job *job, const struct job_size *size)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policies_survey survey = {0};
    struct mpo_exchange_plan plan = {0};
    struct mpo_host host = {0};
    bool known = false;
    if (job->device.total_bytes == 0)
        return MPO_OK;
    struct mpo_policies_spec spec = job_policies_spec(job, size);
    MPO_TRY(mpo_policies_survey(&spec, job->comm, job->prompts, &survey));
    MPO_TRY(mpo_failure_raise(&survey.vocabulary)); /* all ranks said so already */
    MPO_TRY(mpo_failure_raise(&survey.answers));
    MPO_TRY(is_known(job, &survey, &known));
    if (!known)
        goto cleanup;
    struct mpo_exchange_spec exchange =
        job_exchange_spec(job->config, &job->placement, size, survey.vocab_size);
    exchange.rows_on_device = job_rows_on_device(job);
    if (mpo_exchange_survey(&exchange, job->comm, &plan) != MPO_OK)
        plan.rank_bytes = 0; /* opening it will say what is wrong */
    mpo_host_describe(&host);
    struct needs_device device = {
        .device = &job->device,
        .host = host.name,
        .policies = survey.local,
        .specs = job->policy_specs,
        .policy_count = survey.local_count,
        .rows_bytes = job_device_rows(job, size, &survey, plan.rank_bytes),
        .advice = size->advice,
    };
    MPO_TRY(mpo_comm_agree(needs_check_device(&device)));
cleanup:
    mpo_policies_survey_release(&survey);
    return status;
}

enum mpo_status job_configure(const char *command, int argc, char *const *argv,
                              struct mpo_config **config)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    mpo_stop_catch();
    MPO_TRY(mpo_comm_agree(mpo_config_open(command, argc, argv, config)));
    if (mpo_config_is_quiet(*config, command))
        mpo_log_quiet();
    mpo_comm_expect("set-up", -1, (*config)->run.setup_deadline);
    MPO_TRY(mpo_comm_agree(mpo_config_print(*config, &text)));
    MPO_TRY(mpo_comm_agree(
        mpo_comm_same(XXH64(text, strlen(text), 0), "configuration and flags")));
cleanup:
    free(text);
    return status;
}

enum mpo_status job_open(const char *command, const struct mpo_config *config,
                         const struct job_size *size, struct job *job)
{
    enum mpo_status status = MPO_OK;
    *job = (struct job){.config = config, .command = command};
    MPO_TRY(mpo_comm_agree(job_read_prompts(job, size)));
    MPO_TRY(mpo_comm_agree(mpo_comm_same(mpo_prompts_hash(job->prompts), "prompts")));
    MPO_TRY(job_open_ranks(job));
    MPO_TRY(mpo_comm_agree(job_describe_policies(job)));
    MPO_TRY(mpo_comm_agree(job_open_device(job)));
    MPO_TRY(job_choose_threads(job));
    MPO_TRY(check_device_memory(job, size));
    MPO_TRY(open_policies(job, size));
    MPO_TRY(open_exchange(job, size));
    MPO_TRY(mpo_comm_agree(open_rollout(job, size)));
cleanup:
    if (status != MPO_OK)
        job_close(job);
    return status;
}

void job_close(struct job *job)
{
    mpo_rollout_close(&job->rollout);
    mpo_mixture_close(&job->mixture);
    mpo_exchange_close(&job->exchange);
    mpo_policies_close(&job->policies);
    free(job->temperature);
    free(job->policy_specs);
    mpo_prompts_close(&job->prompts);
    mpo_comm_close(&job->comm);
    *job = (struct job){0};
}

enum mpo_status job_begin_step(struct job *job, const struct job_progress *progress)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_run *run = &job->config->run;
    double signal_number = mpo_stop_signal();
    MPO_TRY(mpo_comm_max(job->comm, &signal_number, 1));
    MPO_CHECK(signal_number == 0.0, MPO_REQUEUE, "stopped by %s after %lld of %lld %s",
              mpo_stop_name((int)signal_number), (long long)progress->done,
              (long long)progress->total, progress->unit);
    mpo_comm_expect(job->command, progress->step,
                    job->has_stepped ? run->step_deadline : run->setup_deadline);
    job->has_stepped = true;
cleanup:
    return status;
}

enum mpo_status job_end_loop(enum mpo_status status)
{
    if (status != MPO_OK && status != MPO_REQUEUE)
        mpo_comm_abort(status);
    return mpo_comm_agree(status);
}

const char *job_adapter_sha256(const struct mpo_policy_info *info)
{
    return info->lora[0] == '\0' && info->sha256[0] != '\0' ? "none" : info->lora_sha256;
}

void job_text_repair(struct job_text *text)
{
    for (int32_t at = 0; at < text->bytes;) {
        utf8proc_int32_t codepoint = 0;
        char *here = text->text + at;
        int32_t left = text->bytes - at;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)here, left, &codepoint);
        if (length > 0) {
            at += (int32_t)length;
            continue;
        }
        memmove(here + REPLACEMENT_BYTES, here + 1, (size_t)(left - 1));
        memcpy(here, REPLACEMENT, REPLACEMENT_BYTES);
        text->bytes += REPLACEMENT_BYTES - 1;
        at += REPLACEMENT_BYTES;
    }
    text->text[text->bytes] = '\0';
}

enum mpo_status job_token_text(const struct job *job, const int32_t *tokens,
                               int32_t token_count, struct job_text *out)
{
    enum mpo_status status = MPO_OK;
    static const char what[] = "the text of a response";
    size_t wanted = 1;
    do {
        MPO_TRY(mpo_memory_grow((void **)&out->text, &out->capacity, wanted, 1, what));
        MPO_CHECK(out->capacity <= INT32_MAX, MPO_ERR_MEMORY, "%s is over %d bytes long",
                  what, INT32_MAX / 2);
        out->bytes = mpo_policies_text(job->policies, tokens, token_count, out->text,
                                       (int32_t)out->capacity);
        wanted = out->capacity + 1; /* which at least doubles it */
    } while (out->bytes < 0);
    wanted = REPLACEMENT_BYTES * (size_t)out->bytes + 1;
    MPO_TRY(mpo_memory_grow((void **)&out->text, &out->capacity, wanted, 1, what));
cleanup:
    return status;
}

enum mpo_status job_response_text(const struct job *job,
                                  const struct mpo_responses *responses, int32_t index,
                                  struct job_text *out)
{
    enum mpo_status status = MPO_OK;
    const int32_t *tokens =
        responses->token + (size_t)index * (size_t)responses->max_tokens;
    MPO_TRY(job_token_text(job, tokens, responses->token_count[index], out));
    job_text_repair(out);
cleanup:
    return status;
}
