/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Table policies: bigram probabilities pi(v | last token) in a small readable file, so that
 * the whole program runs with no model and everything is known in closed form.
 *
 *     mpo-table 1
 *     tokens good fine </s>
 *     row <s>  0.5 0.3 0.2        the state before the first token
 *     row good 0.2 0.3 0.5        one line a token; a row for </s> is not needed
 *     row fine 0.6 0.2 0.2
 *
 * Tokens are separated by spaces, in prompts and in responses alike; the last token is the
 * state, so what follows a token is known from it alone and a row needs no memory. Where
 * there is a row of `<s>`, every prompt begins with it, as with a model's beginning of
 * sequence: its id is V, which no response can hold. `</s>` ends a response. Probabilities
 * are positive and sum to 1: a zero would make the mixture of some weights undefined.
 */
#include "policy_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/reason.h"

#define TABLE_TOKEN_COUNT_MAX 4096
#define TABLE_TOKEN_BYTES_MAX 250
#define TABLE_LINE_BYTES_MAX  ((size_t)1 << 20)
#define END_TOKEN_TEXT        "</s>"
#define START_STATE_TEXT      "<s>"
#define RULE                  "a table's tokens"

struct table {
    int32_t vocab_size;
    char **token;   /* [V] */
    uint8_t *flags; /* [V] */
    float *logit;   /* [V + 1, V] log-probabilities, the start state last */
    bool *has_row;  /* [V + 1] */
    char sha256[65];
};

/* A file being read, for messages. */
struct reader {
    FILE *file;
    const char *path;
    char *line;
    size_t capacity;
    int64_t line_number;
};

static void table_close(void *self)
{
    struct table *table = self;
    if (table == NULL)
        return;
    for (int32_t id = 0; table->token != NULL && id < table->vocab_size; id++)
        free(table->token[id]);
    free(table->has_row);
    free(table->logit);
    free(table->flags);
    free(table->token);
    free(table);
}

/* ---- reading ---- */

/* The next line that is neither empty nor a comment; *line is NULL at the end. */
static enum mpo_status next_line(struct reader *reader, char **line)
{
    enum mpo_status status = MPO_OK;
    *line = NULL;
    for (;;) {
        ssize_t bytes = getline(&reader->line, &reader->capacity, reader->file);
        MPO_CHECK(bytes >= 0 || !ferror(reader->file), mpo_reason_of_input(errno), "%s: %s",
                  reader->path, strerror(errno));
        if (bytes < 0)
            return MPO_OK;
        reader->line_number++;
        MPO_CHECK((size_t)bytes <= TABLE_LINE_BYTES_MAX, MPO_ERR_DATA,
                  "%s:%lld: a line of %zd bytes, expected at most %zu", reader->path,
                  (long long)reader->line_number, bytes, TABLE_LINE_BYTES_MAX);
        MPO_CHECK(strlen(reader->line) == (size_t)bytes, MPO_ERR_DATA,
                  "%s:%lld: a NUL byte; expected a text file", reader->path,
                  (long long)reader->line_number);
        char *start = reader->line + strspn(reader->line, " \t\r\n");
        if (*start == '\0' || *start == '#')
            continue;
        *line = start;
        return MPO_OK;
    }
cleanup:
    return status;
}

static const char *token_text(const struct table *table, int32_t id)
{
    return id < table->vocab_size ? table->token[id] : START_STATE_TEXT;
}

static int32_t find_token(const struct table *table, const char *text)
{
    for (int32_t id = 0; id < table->vocab_size; id++)
        if (strcmp(table->token[id], text) == 0)
            return id;
    return -1;
}

static enum mpo_status read_tokens(struct reader *reader, struct table *table, char *line)
{
    enum mpo_status status = MPO_OK;
    char *rest = NULL;
    char *word = strtok_r(line, " \t\r\n", &rest);
    MPO_CHECK(word != NULL && strcmp(word, "tokens") == 0, MPO_ERR_DATA,
              "%s:%lld: expected 'tokens NAME ... %s'", reader->path,
              (long long)reader->line_number, END_TOKEN_TEXT);
    MPO_NEW(TABLE_TOKEN_COUNT_MAX, &table->token);
    while ((word = strtok_r(NULL, " \t\r\n", &rest)) != NULL) {
        MPO_CHECK(table->vocab_size < TABLE_TOKEN_COUNT_MAX, MPO_ERR_DATA,
                  "%s:%lld: more than %d tokens", reader->path,
                  (long long)reader->line_number, TABLE_TOKEN_COUNT_MAX);
        MPO_CHECK(strlen(word) <= TABLE_TOKEN_BYTES_MAX, MPO_ERR_DATA,
                  "%s:%lld: a token of %zu bytes, expected at most %d", reader->path,
                  (long long)reader->line_number, strlen(word), TABLE_TOKEN_BYTES_MAX);
        MPO_CHECK(find_token(table, word) < 0 && strcmp(word, START_STATE_TEXT) != 0,
                  MPO_ERR_DATA, "%s:%lld: token '%s' is named twice or reserved",
                  reader->path, (long long)reader->line_number, word);
        MPO_TRY(mpo_memory_copy_text(word, &table->token[table->vocab_size]));
        table->vocab_size++;
    }
    MPO_CHECK(find_token(table, END_TOKEN_TEXT) >= 0, MPO_ERR_DATA,
              "%s:%lld: no token '%s' among %d tokens; it is needed to end a response",
              reader->path, (long long)reader->line_number, END_TOKEN_TEXT,
              table->vocab_size);
    size_t states = (size_t)table->vocab_size + 1;
    MPO_NEW(table->vocab_size, &table->flags);
    MPO_NEW(states * (size_t)table->vocab_size, &table->logit);
    MPO_NEW(states, &table->has_row);
    table->flags[find_token(table, END_TOKEN_TEXT)] = MPO_TOKEN_END;
cleanup:
    return status;
}

static enum mpo_status read_probabilities(struct reader *reader, const struct table *table,
                                          char **rest, float *logit)
{
    enum mpo_status status = MPO_OK;
    double sum = 0.0;
    for (int32_t id = 0; id < table->vocab_size; id++) {
        char *word = strtok_r(NULL, " \t\r\n", rest);
        char *end = NULL;
        double probability = word != NULL ? strtod(word, &end) : 0.0;
        MPO_CHECK(word != NULL && end != word && *end == '\0', MPO_ERR_DATA,
                  "%s:%lld: probability %d of %d is %s, expected a number", reader->path,
                  (long long)reader->line_number, id + 1, table->vocab_size,
                  word != NULL ? word : "missing");
        MPO_CHECK(probability > 0.0 && probability <= 1.0, MPO_ERR_DATA,
                  "%s:%lld: probability of '%s' is %s, expected one above 0 and at most 1; "
                  "every policy needs full support",
                  reader->path, (long long)reader->line_number, table->token[id], word);
        sum += probability;
        logit[id] = (float)log(probability);
    }
    MPO_CHECK(strtok_r(NULL, " \t\r\n", rest) == NULL, MPO_ERR_DATA,
              "%s:%lld: more than %d probabilities", reader->path,
              (long long)reader->line_number, table->vocab_size);
    MPO_CHECK(fabs(sum - 1.0) <= 1e-6, MPO_ERR_DATA,
              "%s:%lld: probabilities sum to %.9g, expected 1 within 1e-6", reader->path,
              (long long)reader->line_number, sum);
cleanup:
    return status;
}

static enum mpo_status read_row(struct reader *reader, struct table *table, char *line)
{
    enum mpo_status status = MPO_OK;
    char *rest = NULL;
    char *word = strtok_r(line, " \t\r\n", &rest);
    MPO_CHECK(word != NULL && strcmp(word, "row") == 0, MPO_ERR_DATA,
              "%s:%lld: found '%s', expected 'row TOKEN p1 ... p%d'", reader->path,
              (long long)reader->line_number, word != NULL ? word : "", table->vocab_size);
    char *name = strtok_r(NULL, " \t\r\n", &rest);
    MPO_CHECK(name != NULL, MPO_ERR_DATA, "%s:%lld: a row without a token", reader->path,
              (long long)reader->line_number);
    int32_t state =
        strcmp(name, START_STATE_TEXT) == 0 ? table->vocab_size : find_token(table, name);
    MPO_CHECK(state >= 0, MPO_ERR_DATA, "%s:%lld: row of unknown token '%s'", reader->path,
              (long long)reader->line_number, name);
    MPO_CHECK(!table->has_row[state], MPO_ERR_DATA, "%s:%lld: a second row of '%s'",
              reader->path, (long long)reader->line_number, name);
    table->has_row[state] = true;
    MPO_TRY(read_probabilities(reader, table, &rest,
                               table->logit + (size_t)state * (size_t)table->vocab_size));
cleanup:
    return status;
}

static enum mpo_status read_table(struct reader *reader, struct table *table)
{
    enum mpo_status status = MPO_OK;
    char *line = NULL;
    MPO_TRY(next_line(reader, &line));
    MPO_CHECK(line != NULL && strncmp(line, "mpo-table 1", 11) == 0 &&
                  line[11 + strspn(line + 11, " \t\r\n")] == '\0',
              MPO_ERR_DATA, "%s: expected a table policy, which begins 'mpo-table 1'",
              reader->path);
    MPO_TRY(next_line(reader, &line));
    MPO_CHECK(line != NULL, MPO_ERR_DATA, "%s: ends before the line of tokens",
              reader->path);
    MPO_TRY(read_tokens(reader, table, line));
    MPO_TRY(next_line(reader, &line));
    while (line != NULL) {
        MPO_TRY(read_row(reader, table, line));
        MPO_TRY(next_line(reader, &line));
    }
    for (int32_t state = 0; state < table->vocab_size; state++)
        MPO_CHECK(table->has_row[state] || table->flags[state] == MPO_TOKEN_END,
                  MPO_ERR_DATA, "%s: no row of token '%s'", reader->path,
                  table->token[state]);
cleanup:
    return status;
}

static enum mpo_status table_open(const struct mpo_policy_spec *spec,
                                  const struct mpo_policies_spec *common, void **library,
                                  void **self)
{
    enum mpo_status status = MPO_OK;
    struct table *table = NULL;
    struct reader reader = {.path = spec->model};
    struct stat about = {0};
    (void)library;
    MPO_CHECK(stat(spec->model, &about) != 0 || S_ISREG(about.st_mode), MPO_ERR_INPUT,
              "policy '%s': %s is not a file, expected a table", spec->name, spec->model);
    reader.file = fopen(spec->model, "r");
    MPO_CHECK(reader.file != NULL, mpo_reason_of_input(errno), "policy '%s': %s: %s",
              spec->name, spec->model, strerror(errno));
    MPO_NEW(1, &table);
    MPO_TRY(read_table(&reader, table));
    if (common->hash_models)
        MPO_TRY(mpo_policy_file_sha256(spec->model, table->sha256));
cleanup:
    free(reader.line);
    if (reader.file != NULL)
        fclose(reader.file);
    if (status != MPO_OK) {
        table_close(table);
        table = NULL;
    }
    *self = table;
    return status;
}

static void table_close_library(void *library)
{
    (void)library;
}

/* ---- vocabulary and prompts ---- */

static void table_vocabulary(const void *self, struct mpo_vocabulary *out)
{
    const struct table *table = self;
    *out = (struct mpo_vocabulary){
        .summary = RULE,
        .flags = table->flags,
        .size = table->vocab_size,
        .used = table->vocab_size,
        .end_token = find_token(table, END_TOKEN_TEXT),
        .begin_token = table->has_row[table->vocab_size] ? table->vocab_size : -1,
        .rule_count = 1,
    };
}

static const char *table_rule(const void *self, int32_t index)
{
    (void)self;
    (void)index;
    return RULE;
}

static void table_token(const void *self, int32_t id, struct mpo_token *out)
{
    const struct table *table = self;
    *out = (struct mpo_token){table->token[id], table->flags[id]};
}

/* The token of a word, -1: none. The start state and the end are special. */
static int32_t find_word(const struct table *table, const char *word, bool special)
{
    if (special && table->has_row[table->vocab_size] && strcmp(word, START_STATE_TEXT) == 0)
        return table->vocab_size;
    return find_token(table, word);
}

static enum mpo_status table_parse(const void *self, const char *text, bool special,
                                   struct mpo_policy_tokens *out)
{
    enum mpo_status status = MPO_OK;
    const struct table *table = self;
    char *copy = NULL;
    char *rest = NULL;
    MPO_TRY(mpo_memory_copy_text(text, &copy));
    for (char *word = strtok_r(copy, " \t\r\n", &rest); word != NULL;
         word = strtok_r(NULL, " \t\r\n", &rest)) {
        int32_t id = find_word(table, word, special);
        MPO_CHECK(id >= 0, MPO_ERR_DATA, "'%.80s' is not a token of the table", word);
        MPO_CHECK(special || table->flags[id] != MPO_TOKEN_END, MPO_ERR_DATA,
                  "the text contains the end token");
        MPO_TRY(mpo_policy_tokens_reserve(out, 1));
        out->token[out->count++] = id;
    }
cleanup:
    free(copy);
    return status;
}

static enum mpo_status table_tokenise(const void *self, const char *text, int32_t *tokens,
                                      int32_t capacity, int32_t *count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_tokens made = {0};
    *count = 0;
    MPO_TRY(table_parse(self, text, false, &made));
    MPO_CHECK(made.count <= capacity, MPO_ERR_INTERNAL, "more than %d tokens in a text",
              capacity);
    if (made.count > 0)
        memcpy(tokens, made.token, (size_t)made.count * sizeof *tokens);
    *count = made.count;
cleanup:
    free(made.token);
    return status;
}

static enum mpo_status table_encode(const void *self, const struct mpo_prompt *prompt,
                                    struct mpo_policy_tokens *out)
{
    enum mpo_status status = MPO_OK;
    const struct table *table = self;
    int32_t start = table->vocab_size;
    if (table->has_row[start]) {
        MPO_TRY(mpo_policy_tokens_reserve(out, 1));
        out->token[out->count++] = start;
    }
    for (int32_t message = 0; message < prompt->message_count; message++)
        MPO_TRY(table_parse(table, prompt->messages[message].content, false, out));
    MPO_TRY(table_parse(table, prompt->prefill, false, out));
    MPO_CHECK(out->count > 0, MPO_ERR_DATA,
              "the prompt has no token, and the table has no row of '%s'",
              START_STATE_TEXT);
cleanup:
    return status;
}

static enum mpo_status table_check_tokens(const void *self, const int32_t *token,
                                          int32_t token_count)
{
    enum mpo_status status = MPO_OK;
    const struct table *table = self;
    int32_t last = token[token_count - 1];
    MPO_CHECK(table->has_row[last], MPO_ERR_DATA,
              "the prompt ends with '%s', of which the table has no row",
              token_text(table, last));
cleanup:
    return status;
}

/* What its rows hold is counted before it is asked, in as many cells. */
static void table_need(const void *self, const struct mpo_policy_setup *setup,
                       struct mpo_policy_need *out)
{
    (void)self;
    out->cache_bytes = (uint64_t)setup->cell_count * sizeof(struct mpo_cell);
}

static enum mpo_status table_allocate(void *self, const struct mpo_policy_setup *setup)
{
    (void)self;
    (void)setup;
    return MPO_OK;
}

static void table_describe(const void *self, struct mpo_policy_info *out)
{
    const struct table *table = self;
    out->sha256 = table->sha256;
    out->vocab_size = table->vocab_size;
}

static int32_t table_piece(const void *self, int32_t token, bool first, char *text,
                           int32_t capacity)
{
    const struct table *table = self;
    const size_t space = first ? 0 : 1;
    if (table->flags[token] == MPO_TOKEN_END)
        return 0;
    const size_t bytes = strlen(table->token[token]);
    if (space + bytes >= (size_t)capacity)
        return -1;
    text[0] = ' ';
    memcpy(text + space, table->token[token], bytes + 1);
    return (int32_t)(space + bytes);
}

static int32_t table_show(const void *self, int32_t token, bool *special, char *text,
                          int32_t capacity)
{
    const struct table *table = self;
    *special = token == table->vocab_size || table->flags[token] == MPO_TOKEN_END;
    int bytes = snprintf(text, (size_t)capacity, "%s%s",
                         token == table->vocab_size ? "" : " ", token_text(table, token));
    return bytes < capacity ? bytes : -1;
}

static void table_texts(const void *self, struct mpo_policies_texts *out)
{
    const struct table *table = self;
    *out = (struct mpo_policies_texts){
        .begin_token = table->has_row[table->vocab_size] ? table->vocab_size : -1,
        .wants_begin = table->has_row[table->vocab_size],
        .end_token = find_token(table, END_TOKEN_TEXT),
        .adds_space = true,
    };
    for (int32_t id = 0; id <= table->vocab_size; id++) {
        size_t bytes = strlen(token_text(table, id)) + 1;
        out->piece_bytes = bytes > out->piece_bytes ? bytes : out->piece_bytes;
    }
}

/* ---- verbs ---- */

static void table_clear(void *self)
{
    (void)self;
}

static enum mpo_status table_feed(void *self, const struct mpo_policy_append *appends,
                                  int32_t append_count, const float **logits)
{
    const struct table *table = self;
    int32_t output = 0;
    for (int32_t i = 0; i < append_count; i++)
        for (int32_t j = 0; j < appends[i].count; j++)
            if (mpo_policy_wants(&appends[i], j))
                logits[output++] =
                    table->logit + (size_t)appends[i].token[j] * (size_t)table->vocab_size;
    return MPO_OK;
}

static enum mpo_status table_truncate(void *self, int32_t row, int32_t tokens)
{
    (void)self;
    (void)row;
    (void)tokens;
    return MPO_OK;
}

static enum mpo_status table_fork(void *self, int32_t from, int32_t to)
{
    (void)self;
    (void)from;
    (void)to;
    return MPO_OK;
}

static const char *const table_refuses[] = {"lora", "system", "request", "template", NULL};
static const char *const table_ignores[] = {
    "policies.devices", "run.threads", "run.batch_invariant",
    "run.device_rows",  "run.kv",      NULL};

const struct mpo_policy_ops mpo_policy_table_ops = {
    .kind = "table",
    .refuses = table_refuses,
    .ignores = table_ignores,
    .open = table_open,
    .close = table_close,
    .close_library = table_close_library,
    .vocabulary = table_vocabulary,
    .token = table_token,
    .rule = table_rule,
    .encode = table_encode,
    .check_tokens = table_check_tokens,
    .need = table_need,
    .allocate = table_allocate,
    .describe = table_describe,
    .piece = table_piece,
    .show = table_show,
    .tokenise = table_tokenise,
    .texts = table_texts,
    .parse = table_parse,
    .clear = table_clear,
    .feed = table_feed,
    .truncate = table_truncate,
    .fork = table_fork,
};
