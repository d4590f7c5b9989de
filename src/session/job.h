/**
 * A decoding job: everything that fit and generate open alike, in flow order.
 */
#pragma once

#include "mpo/mpo.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/stop.h"
#include "base/text.h"
#include "base/timing.h"
#include "device/host.h"

struct job {
    const struct mpo_config *config; /* borrowed */
    struct mpo_comm *comm;
    struct mpo_placement placement;
    struct mpo_prompts *prompts;
    struct mpo_policies *policies;
    struct mpo_exchange *exchange;
    struct mpo_mixture *mixture;
    struct mpo_rollout *rollout;
    struct mpo_policy_spec *policy_specs; /* [H] */
    double *temperature;                  /* [H] */
    struct mpo_device device;
    struct mpo_timing timing;
    int32_t thread_count;
    int32_t prompts_max; /* prompts of a rollout at most */
    const char *command; /* a literal */
    bool has_stepped;
};

/** What differs between the commands. */
struct job_size {
    int32_t prompts_max; /* prompts of a rollout at most; 0: a unit for each group */
    int32_t unit_prompts;
    int32_t responses;
    int32_t row_capacity;    /* rows decoded at once; 0: all of a unit's */
    const char *prompt;      /* one prompt instead of the file, "" for none */
    const char *const *stop; /* [stop_count] texts that end a response, borrowed */
    int32_t stop_count;
    const char *advice;    /* what makes rows fewer or shorter: "lower ..."; a literal */
    bool distinct_prompts; /* a step never asks a prompt twice: prompts_max are needed */
    struct mpo_prompts_spec prompts; /* path NULL: those of the configuration */
};

/** Read the configuration and see that all ranks have the same. Collective over all ranks;
 *  failures are agreed on and printed. */
enum mpo_status job_configure(const char *command, int argc, char *const *argv,
                              struct mpo_config **config);

/** Collective over all ranks; failures are agreed on and printed.
 *  @param command  what messages call the job, a literal */
enum mpo_status job_open(const char *command, const struct mpo_config *config,
                         const struct job_size *size, struct job *job);
void job_close(struct job *job);

/** How far a command's loop has come. */
struct job_progress {
    int64_t step; /* the step that begins */
    int64_t done; /* of `total` units */
    int64_t total;
    const char *unit; /* "steps", "prompts" */
};

/**
 * Begin a step of the command's loop: waits in it have their deadline from here on (the
 * first step of a process has that of the set-up). Collective over all ranks.
 *
 * @return MPO_REQUEUE when a signal asked this or any other rank to stop: no step begins
 */
enum mpo_status job_begin_step(struct job *job, const struct job_progress *progress);

/** How a loop ended: a stop (MPO_REQUEUE), of which all ranks know, is told once and
 *  returned; any other failure ends the whole job, for the ranks are not in step any more.
 *  Collective over all ranks. */
enum mpo_status job_end_loop(enum mpo_status status);

/** Hash of a policy's adapter as a record stores it: "none" without one, "" when hashes
 * were not asked for. */
const char *job_adapter_sha256(const struct mpo_policy_info *info);

/* Phases of job_open, for doctor; statuses are this rank's own. */

/** The prompts of the file, of the input or of the command line. Local. */
enum mpo_status job_read_prompts(struct job *job, const struct job_size *size);

/** Form groups of so many ranks, 0: as many as the policies ask for. Failures are agreed
 *  on. Collective over all ranks. */
enum mpo_status job_open_groups(struct job *job, int32_t ranks_per_group);

/** Form the groups of the configuration. Failures are agreed on. Collective over all ranks. */
enum mpo_status job_open_ranks(struct job *job);

/** The policies of the configuration as the policy stage wants them. Local. */
enum mpo_status job_describe_policies(struct job *job);

/** The device of this rank, on which all policies can compute; needs their description.
 *  Collective over all ranks. */
enum mpo_status job_open_device(struct job *job);

/** Devices that a rank with these policies asks for: as many as the one that is spread over
 *  most. Local. */
int32_t job_devices(const struct mpo_config *config, int32_t first, int32_t count);

/** Settle on the threads of this rank. Collective over all ranks. */
enum mpo_status job_choose_threads(struct job *job);

/** Whether rows stay in the devices' memory on their way. Local. */
bool job_rows_on_device(const struct job *job);

/** Bytes of the host's memory that rows take in the mixture and the exchange, after a
 * survey; `exchange_bytes` is the exchange's figure. Local. */
uint64_t job_host_rows(const struct job *job, const struct job_size *size,
                       const struct mpo_policies_survey *survey, uint64_t exchange_bytes);

/** Bytes of the device's memory that the mixture and the exchange take, after a survey with
 *  a common vocabulary; `exchange_bytes` is the exchange's figure. Local. */
uint64_t job_device_rows(const struct job *job, const struct job_size *size,
                         const struct mpo_policies_survey *survey, uint64_t exchange_bytes);

struct mpo_policies_spec job_policies_spec(const struct job *job,
                                           const struct job_size *size);
struct mpo_exchange_spec job_exchange_spec(const struct mpo_config *config,
                                           const struct mpo_placement *placement,
                                           const struct job_size *size, int32_t vocab_size);

/** A text that grows between steps; zero is an empty one, `text` is freed by the caller. */
struct job_text {
    char *text; /* NUL-terminated */
    size_t capacity;
    int32_t bytes;
};

/** The bytes of some tokens, which may end inside a character, with room to repair them. */
enum mpo_status job_token_text(const struct job *job, const int32_t *tokens,
                               int32_t token_count, struct job_text *out);

/** Replace what is not UTF-8 by U+FFFD, in the room that job_token_text left. */
void job_text_repair(struct job_text *text);

/** Text of one response, valid UTF-8: what a cut character left behind is replaced. */
enum mpo_status job_response_text(const struct job *job,
                                  const struct mpo_responses *responses, int32_t index,
                                  struct job_text *out);
