/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The configuration: defaults, then the YAML file, then flags, all from mpo/options.def.
 *
 * Every error names file, line, column and key, and what was expected there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mpo/choices.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MPO_AUTO_INTEGER       INT64_MIN
#define MPO_CONFIG_BYTES_MAX   ((size_t)1 << 22)
#define MPO_CONFIG_NUMBERS_MAX 1024

struct mpo_numbers {
    double *value; /* [count], owned by the configuration */
    int32_t count;
};

struct mpo_texts {
    char **text; /* [count], owned by the configuration */
    int32_t count;
};

#define MPO_CTYPE_INTEGER(list)      int64_t
#define MPO_CTYPE_NUMBER(list)       double
#define MPO_CTYPE_AUTO_INTEGER(list) int64_t
#define MPO_CTYPE_AUTO_NUMBER(list)  double
#define MPO_CTYPE_FLAG(list)         bool
#define MPO_CTYPE_TEXT(list)         char *
#define MPO_CTYPE_PATH(list)         char *
#define MPO_CTYPE_NAME_OR_PATH(list) char *
#define MPO_CTYPE_DATE(list)         char *
#define MPO_CTYPE_CHOICE(list)       enum mpo_##list
#define MPO_CTYPE_VARIANT(list)      char *
#define MPO_CTYPE_NUMBERS(list)      struct mpo_numbers
#define MPO_CTYPE_PATHS(list)        struct mpo_texts
#define MPO_CTYPE_FACTORS(list)      struct mpo_numbers

/* struct mpo_config_run, struct mpo_config_prompts, ... one per section */
#define MPO_SECTION_BEGIN(section, scope, sentence) struct mpo_config_##section {
#define MPO_OPTION_AS(section, member, name, type, initial, low, high, list, sentence)     \
    MPO_CTYPE_##type(list) member;
#define MPO_SECTION_END(section)                                                           \
    }                                                                                      \
    ;
#include "mpo/options.def"

#define MPO_MEMBER_SHARED(section)  struct mpo_config_##section section;
#define MPO_MEMBER_LIST(section)    struct mpo_config_##section *section;
#define MPO_MEMBER_COMMAND(section) struct mpo_config_##section section;
#define MPO_MEMBER_QUERY(section)   struct mpo_config_##section section;
#ifdef __cplusplus /* where export is a keyword */
#define MPO_MEMBER_FLAGS(section) struct mpo_config_##section flags_of_##section;
#else
#define MPO_MEMBER_FLAGS(section) struct mpo_config_##section section;
#endif

struct mpo_config_stored;

/** Everything that can be configured, one member a section. Strings are owned by it and
 *  never NULL. `policies` is [policy_count]: objectives, then the reference. */
struct mpo_config {
#define MPO_SECTION_BEGIN(section, scope, sentence) MPO_MEMBER_##scope(section)
#include "mpo/options.def"
    int32_t policy_count;             /* H */
    int32_t objective_count;          /* K: the first K policies */
    struct mpo_config_stored *stored; /* of a text that was read back, else NULL */
    bool *written;                    /* for mpo_config_is_written */
    bool *flagged;                    /* of each option, whether a flag gave it */
};

/**
 * Read `argv` of a command: one configuration file and flags, in any order.
 *
 * Local (every rank reads the same). An option of the section named `command` may be given
 * without the section's name. Checks what can be checked without opening any other file:
 * types, ranges, choices, unknown and duplicate keys, duplicate policy names, unit_prompts
 * times responses, length and sum of initial, bounds that some weights keep, at most one
 * reference, a reference where proposal: reference needs one.
 *
 * @param argv  [argc] what follows the command's name
 * @return MPO_ERR_USAGE wrong flags or no such command; MPO_ERR_INPUT no such file; MPO_ERR_PERMISSION;
 *         MPO_ERR_IO; MPO_ERR_CONFIG the rest
 */
enum mpo_status mpo_config_open(const char *command, int argc, char *const *argv,
                                struct mpo_config **out);

/** A configuration that a program has as a text. Borrowed while it is read. */
struct mpo_config_text {
    const char *text;   /* YAML, as in a file */
    const char *folder; /* where relative paths begin; NULL or "": the working directory */
};

/**
 * The same of a configuration that is a text. Messages call it "configuration text", with
 * line and column. Local.
 *
 * @param argv  [argc] flags alone
 */
enum mpo_status mpo_config_open_text(const char *command,
                                     const struct mpo_config_text *source, int argc,
                                     char *const *argv, struct mpo_config **out);

/** Whether a word is a command that takes a configuration. Local.
 *  @return MPO_ERR_USAGE with those that do */
enum mpo_status mpo_config_check_command(const char *command);

/** Arguments of a command line that are not flags; borrowed from argv. */
struct mpo_config_arguments {
    const char *text[2]; /* the first two */
    int count;
};

/**
 * Read `argv` of a command without a configuration: its own flags alone, in any order with
 * its arguments. Local.
 *
 * @return MPO_ERR_USAGE
 */
enum mpo_status mpo_config_open_flags(const char *command, int argc, char *const *argv,
                                      struct mpo_config_arguments *arguments,
                                      struct mpo_config **out);
void mpo_config_close(struct mpo_config **config);

/** A command line, owned. */
struct mpo_config_words {
    const char *command; /* "serve", or that which was given */
    char **text;         /* [count] and NULL */
    int count;
};

/**
 * The command line of doctor or launch, which with --serve is one of serve: flags of their own
 * get their full names, "--doctor.format=json". Local.
 *
 * @return MPO_ERR_MEMORY
 */
enum mpo_status mpo_config_as_serve(const char *command, int argc, char *const *argv,
                                    struct mpo_config_words *out);
void mpo_config_words_release(struct mpo_config_words *words);

/**
 * The flags of a command line outside the section of launch, spelt in full, to pass to the
 * job: "--run.seed=3", "--policies.up.min=0.1". Local.
 *
 * @param command   whose command line it is
 * @param arguments arguments that are not flags; borrowed from argv
 * @param flags     in the order of argv; the caller frees each and the array
 * @return MPO_ERR_USAGE
 */
enum mpo_status mpo_config_pass_on(const char *command, int argc, char *const *argv,
                                   struct mpo_config_arguments *arguments,
                                   struct mpo_texts *flags);

/** Whether --quiet was given to this command. Local. */
bool mpo_config_is_quiet(const struct mpo_config *config, const char *command);

/** The whole configuration as YAML, defaults included; reading it again gives the same
 *  (paths are the resolved ones). The caller frees *text. Local. */
enum mpo_status mpo_config_print(const struct mpo_config *config, char **text);

/**
 * Read back what mpo_config_print wrote, in this version or in another. Local.
 *
 * Nothing is checked across options. An option that the text lacks has its default, or what
 * happened before there was the option (estimator.target: whole, descent.average: uniform); keys
 * that this version does not know, and values that it refuses, are kept as texts, for
 * mpo_config_compare. Paths stay as they are.
 *
 * @param name  what messages call the text
 * @return MPO_ERR_DATA when it is not YAML, or no mapping of sections
 */
enum mpo_status mpo_config_read_text(const char *name, const char *text,
                                     struct mpo_config **out);

/** The name of a policy's reward: policies.NAME.reward, else the policy's own. Local. */
const char *mpo_config_reward_name(const struct mpo_config_policies *policy);

/** Whether lines of generate --format jsonl and requests of a reward program have a field of
 *  this name, which no reward can have then. Local. */
bool mpo_config_is_line_field(const char *name);

/** Whether a file or a flag gave this option, e.g. "estimator.target", which is then not left
 *  to its default; "policies.scale": of any policy. Local. */
bool mpo_config_is_written(const struct mpo_config *config, const char *key);

/** Whether a flag gave this option; "policies.scale": of any policy. Local. */
bool mpo_config_is_flagged(const struct mpo_config *config, const char *key);

/**
 * Visit every option that was given and changes nothing in a command: flags of shared sections
 * that it does not look at, or that mean something beside another option alone; of fit what a
 * file says too. Such flags of the command's own are refused when it is opened. Local.
 *
 * @param visit  with the key and the reason, both literals
 */
void mpo_config_visit_idle(const struct mpo_config *config, const char *command,
                           void (*visit)(void *context, const char *key, const char *why),
                           void *context);

/** Whether a text that was read back had this option, e.g. "descent.steps"; not for those of
 *  policies. Always true for a configuration that was not read back. Local. */
bool mpo_config_is_given(const struct mpo_config *config, const char *key);

/**
 * Visit every option whose values differ; policies are matched by name. Local.
 *
 * Values are as mpo_config_print writes them, and "-" where a configuration that was read
 * back does not say, or has no such policy: of a policy that only one has, the options
 * without a default are visited.
 *
 * @param visit  with the key, section.key or policies.NAME.key, and both values; borrowed
 */
enum mpo_status mpo_config_compare(const struct mpo_config *first,
                                   const struct mpo_config *second,
                                   void (*visit)(void *context, const char *key,
                                                 const char *first, const char *second),
                                   void *context);

/** The seconds since 1970 at which a date begins in UTC: YYYY-MM-DD, or today. Local.
 *  @return false when it is neither */
bool mpo_config_read_date(const char *text, int64_t *seconds);

/** Whether a key, e.g. "generate.n", is in the section of a command, which no other command
 *  heeds. Local. */
bool mpo_config_is_of_a_command(const char *key);

/**
 * The value of one key, as a flag takes it: "rollout.responses", "policies.NAME.model", or
 * "policies" for the names of all policies, one per line. Local.
 *
 * @param text  ends with a line feed; the caller frees it
 * @return MPO_ERR_USAGE when there is no such key
 */
enum mpo_status mpo_config_get(const struct mpo_config *config, const char *key,
                               char **text);

/** configs/reference.yaml: every option with its default and sentence. Local. */
enum mpo_status mpo_config_print_reference(FILE *stream);

#define MPO_CONFIG_FLAG_BYTES 96

/** One flag of a command, as shown by help, the manual page and completion. */
struct mpo_config_flag {
    char name[MPO_CONFIG_FLAG_BYTES]; /* "--rollout.responses", "--policies.NAME.min" */
    const char *section;
    const char *section_sentence;
    const char *value;   /* text after the name: "=N", "=", "[=true|false]", or "" */
    const char *choices; /* "a|b|c", or NULL */
    const char *initial; /* the default; NULL when the option must be given */
    const char *sentence;
    bool is_path;
};

/** The flags of a command in order: its own, then the shared ones when it takes a
 *  configuration. Local. @return false when there are not that many */
bool mpo_config_flag(const char *command, int index, struct mpo_config_flag *flag);

/** Parse "0.4,0.6" into at most capacity numbers. Local.
 *  @return MPO_ERR_USAGE when it is not such a list */
enum mpo_status mpo_config_parse_numbers(const char *text, double *value, int32_t capacity,
                                         int32_t *count);

/** Bounds per objective, policies.NAME.min and .max: [2, K] lower and upper, owned by the
 *  caller; NULL where nothing is bounded. Local. */
enum mpo_status mpo_config_bounds(const struct mpo_config *config, double **bounds);

#ifdef __cplusplus
}
#endif
