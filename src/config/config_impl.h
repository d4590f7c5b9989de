/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Inside the configuration: the options list as a table, and one assignment as a struct.
 *
 * File and flags only determine which text is assigned to which option; mpo_config_assign()
 * alone converts a text to a value. So a value means the same wherever it is written; only
 * the place in an error differs.
 */
#pragma once

#include "base/choices.h"
#include "base/spelling.h"
#include "mpo/config.h"

/* One enumerator per section and one per option, to index the tables of config.c. */
enum mpo_config_section_index {
#define MPO_SECTION_BEGIN(section, scope, sentence) MPO_SECTION_##section,
#include "mpo/options.def"
    MPO_SECTION_COUNT
};

enum mpo_config_option_index {
#define MPO_OPTION_AS(section, member, name, type, ...) MPO_OPTION_##section##_##member,
#include "mpo/options.def"
    MPO_OPTION_COUNT
};

enum mpo_config_type {
    MPO_TYPE_INTEGER,
    MPO_TYPE_NUMBER,
    MPO_TYPE_AUTO_INTEGER,
    MPO_TYPE_AUTO_NUMBER,
    MPO_TYPE_FLAG,
    MPO_TYPE_TEXT,
    MPO_TYPE_PATH,
    MPO_TYPE_NAME_OR_PATH,
    MPO_TYPE_DATE,
    MPO_TYPE_CHOICE,
    MPO_TYPE_VARIANT,
    MPO_TYPE_NUMBERS,
    MPO_TYPE_PATHS,
    MPO_TYPE_FACTORS
};

enum mpo_config_scope {
    MPO_SCOPE_SHARED,
    MPO_SCOPE_LIST,
    MPO_SCOPE_COMMAND,
    MPO_SCOPE_QUERY,
    MPO_SCOPE_FLAGS
};

struct mpo_config_section {
    const char *name;
    enum mpo_config_scope scope;
    const char *sentence;
    size_t offset; /* in struct mpo_config; of the pointer for a LIST */
};

struct mpo_config_option {
    enum mpo_config_section_index section;
    const char *name;
    const char *full_name; /* "section.name" */
    enum mpo_config_type type;
    size_t offset;       /* in the section's struct */
    const char *initial; /* the default as text; NULL: the option must be given */
    double low;
    double high;
    const char *choices; /* "a|b|c", or NULL */
    const char *sentence;
};

/** A section that a command without a configuration takes. */
struct mpo_config_taken {
    enum mpo_config_section_index command;
    enum mpo_config_section_index section;
};

/** A default for one command alone. */
struct mpo_config_default {
    enum mpo_config_section_index command;
    enum mpo_config_option_index option;
    const char *initial;
};

/** An option of a command's own that makes another needless. */
struct mpo_config_stand_in {
    enum mpo_config_option_index own;
    enum mpo_config_option_index option;
};

extern const struct mpo_config_section mpo_config_sections[MPO_SECTION_COUNT];
extern const struct mpo_config_option mpo_config_options[MPO_OPTION_COUNT];

/** Where a value was written; all zero for a default. */
struct mpo_config_place {
    size_t line;      /* from 1; 0 when it is not from the file */
    size_t column;    /* from 1 */
    const char *flag; /* borrowed from argv; NULL when it is not from a flag */
    int flag_bytes;   /* of flag without "=value" */
};

/** A key of a stored configuration that is not an option now, or not with this value. */
struct mpo_config_unread {
    char *key;
    char *text;
};

/** Further facts about a stored configuration that was read back. */
struct mpo_config_stored {
    bool is_given[MPO_OPTION_COUNT];  /* without those of policies */
    bool *policy_is_given;            /* [policy_count, MPO_OPTION_COUNT] */
    struct mpo_config_unread *unread; /* [unread_count] */
    size_t unread_count;
    size_t unread_capacity;
};

/** A configuration while it is made. */
struct mpo_config_build {
    struct mpo_config *config;
    const char *command; /* borrowed */
    const char *path;    /* of the configuration file, borrowed */
    char *folder;        /* of that file with its slash; "" for the working directory */
    struct mpo_config_place place[MPO_OPTION_COUNT]; /* without those of policies */
    struct mpo_config_place *policy_place;           /* [policy_count] of each entry */
    char where[1536];                                /* of the message in the making */
};

/** One value for one option of one section, or of one policy. */
struct mpo_config_assignment {
    const struct mpo_config_option *option;
    int32_t policy_index; /* 0 for the other sections */
    struct mpo_config_place place;
    const char *text;
};

#define MPO_CONFIG_PARTS_MAX  64 /* of a list of paths or of factors */
#define MPO_CONFIG_HINT_BYTES 512

/* ---- config.c ---- */

/** The member that an option is kept in. */
void *mpo_config_member(const struct mpo_config *config,
                        const struct mpo_config_option *option, int32_t policy_index);

/** Make room for the policies and give them their defaults; once. */
enum mpo_status mpo_config_take_policies(struct mpo_config_build *build, int32_t count);

/* ---- check.c ---- */

/** Check what needs more than one option, and put objectives before the reference.
 *  @return MPO_ERR_CONFIG, MPO_ERR_USAGE */
enum mpo_status mpo_config_check(struct mpo_config_build *build);

/** The place and the name of one option, for messages; in build->where.
 *  @param policy_index  in the order of the file; 0 where it is not of policies */
const char *mpo_config_where_of(struct mpo_config_build *build, int option_index,
                                int32_t policy_index);

/* ---- adapters.c ---- */

/** Check that policies differ in their adapters alone, where rollout.mixture adds these. Before
 *  policies are put in order. @return MPO_ERR_CONFIG */
enum mpo_status mpo_config_check_one_base(struct mpo_config_build *build);

/* ---- idle.c ---- */

/** Refuse a flag of the command's own that has no effect beside the others.
 *  @return MPO_ERR_USAGE */
enum mpo_status mpo_config_refuse_idle(struct mpo_config_build *build);

/* ---- stored.c ---- */

/** What a stored configuration that does not name an option was made with. */
const char *mpo_config_initial_before(const struct mpo_config_option *option);

/** Keep what a stored configuration has beyond this version's options. */
enum mpo_status mpo_config_keep_unread(struct mpo_config *config, const char *key,
                                       const char *text);

void mpo_config_close_stored(struct mpo_config *config);

/* ---- value.c ---- */

/** Parse, check and keep one value. MPO_ERR_CONFIG, or MPO_ERR_USAGE for a flag. */
enum mpo_status mpo_config_assign(struct mpo_config_build *build,
                                  const struct mpo_config_assignment *assignment);

/** The same for a list that is already split, such as a YAML sequence; text is not used. */
enum mpo_status mpo_config_assign_numbers(struct mpo_config_build *build,
                                          const struct mpo_config_assignment *assignment,
                                          const double *value, int32_t count);

/** One path, relative to the file's folder unless it is a flag's. @param member  replaced */
enum mpo_status mpo_config_assign_path(struct mpo_config_build *build,
                                       const struct mpo_config_assignment *assignment,
                                       char **member);

/** Keep where a value was written, for checks of several options. */
void mpo_config_note_place(struct mpo_config_build *build,
                           const struct mpo_config_assignment *assignment);

/** Raise what was expected in place of the text. */
enum mpo_status mpo_config_refuse(struct mpo_config_build *build,
                                  const struct mpo_config_assignment *assignment,
                                  const char *expected);

/* ---- lists.c ---- */

enum mpo_status mpo_config_assign_path_list(struct mpo_config_build *build,
                                            const struct mpo_config_assignment *assignment);
enum mpo_status mpo_config_assign_factors(struct mpo_config_build *build,
                                          const struct mpo_config_assignment *assignment);

/** The same for a list that is already split; text is not used. */
enum mpo_status mpo_config_assign_paths(struct mpo_config_build *build,
                                        const struct mpo_config_assignment *assignment,
                                        const char *const *text, int32_t count);
void mpo_config_free_texts(struct mpo_texts *texts);

/* ---- value.c ---- */

/** One finite decimal number and nothing else. */
bool mpo_config_read_number(const char *text, double *value);

/** Which of "a|b|c" the text is, from 0; -1 when it is none. */
int mpo_config_find_choice(const char *choices, const char *text);

/** "file:line:column: key", "--flag", or "file: key" for a default; in build->where. */
const char *mpo_config_where(struct mpo_config_build *build,
                             const struct mpo_config_assignment *assignment);

/** "; did you mean 'x'?" or, when no name is near, "; known: a, b, c". */
const char *mpo_config_hint(const char *name, const char *const *known, size_t known_count,
                            char hint[MPO_CONFIG_HINT_BYTES]);

/* ---- file.c ---- */

/** Assign everything in the file at build->path. */
enum mpo_status mpo_config_read_file(struct mpo_config_build *build);

/** The same of a text; messages call it build->path. */
enum mpo_status mpo_config_read_yaml(struct mpo_config_build *build, const char *text,
                                     size_t bytes);

/* ---- flags.c ---- */

/** Spell a flag as it is shown: a command's own with hyphens, a dotted key as in YAML. The
 *  other spelling is understood too. */
void mpo_config_spell_flag(char *flag);

/* ---- unknown.c ---- */

/** Whether the first bytes of what was typed are the name of an option, with _ or with -. The
 *  one rule for keys of flags and of --get; a file has them as they are. */
bool mpo_config_is_spelt(const char *name, const char *typed, size_t bytes);

/** Refuse a flag that the command does not have. @return MPO_ERR_USAGE */
enum mpo_status mpo_config_refuse_unknown(const char *command, const char *argument);

/* ---- flags.c, list.c ---- */

struct mpo_config_flags;

/** Take argv apart into flags and arguments. */
enum mpo_status mpo_config_flags_open(const char *command, int argc, char *const *argv,
                                      struct mpo_config_arguments *arguments,
                                      struct mpo_config_flags **out);

/** Assign the flags, in the order in which they were given. */
enum mpo_status mpo_config_flags_apply(const struct mpo_config_flags *flags,
                                       struct mpo_config_build *build);
void mpo_config_flags_close(struct mpo_config_flags **flags);

/** "--best-of", "--rollout.responses" or "--policies.NAME.min", as a command shows it. */
void mpo_config_name_flag(const struct mpo_config_option *option, const char *command,
                          char name[MPO_CONFIG_FLAG_BYTES]);

/** What --json stands for at this option: "json" or "jsonl"; NULL when it is no format. */
const char *mpo_config_json_choice(const struct mpo_config_option *option);

/** Whether the option is of the command's own section. */
bool mpo_config_is_own(const struct mpo_config_option *option, const char *command);

/** Whether the command takes the options of a shared section. */
bool mpo_config_takes(const char *command, int section);

/** Whether the command asks about a configuration (QUERY of mpo/options.def). */
bool mpo_config_is_query(const char *command);

/** Whether the command takes a configuration. */
bool mpo_config_is_configured(const char *command);

/** The default of an option for a command, as text; NULL: the option must be given. */
const char *mpo_config_initial(const struct mpo_config_option *option, const char *command);

/** Whether a file may hold the section. */
bool mpo_config_is_in_files(int section);

/* ---- print.c ---- */

/** One value as YAML, or as a flag takes it: texts bare, numbers without brackets. */
void mpo_config_print_value(FILE *stream, const struct mpo_config_option *option,
                            const void *member, bool as_flag);
