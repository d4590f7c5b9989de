/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration file: libyaml's document nodes, matched with the options list.
 *
 * Nodes have the place of every key, and a document is read completely before the first
 * option is assigned, so a broken file changes nothing. An unknown or repeated key is an
 * error: a run of many hours must not ignore a setting.
 */
#include "config_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/memory.h"
#include "base/reason.h"
#include "mpo/policy.h"

/* One mapping being read: the file as a whole, one section, or one policy. */
struct mapping {
    struct mpo_config_build *build;
    yaml_document_t *document;
    const char *name;     /* "" for the file, "rollout", "policies[1]" */
    int section;          /* index of the section; -1 for the file as a whole */
    int32_t policy_index; /* 0 for the other sections */
};

/* The names that may be keys of a mapping: the sections, or the options of one section. */
struct names {
    const char *text[MPO_OPTION_COUNT]; /* a section has an option at least */
    int index[MPO_OPTION_COUNT];        /* of each in the table of sections or of options */
    size_t count;
};

static enum mpo_status read_bytes(const char *path, char **text, size_t *bytes)
{
    enum mpo_status status = MPO_OK;
    FILE *stream = fopen(path, "rb");
    MPO_CHECK(stream != NULL, mpo_reason_of_input(errno),
              "%s: expected a configuration file: %s", path, strerror(errno));
    MPO_NEW(MPO_CONFIG_BYTES_MAX + 1, text);
    *bytes = fread(*text, 1, MPO_CONFIG_BYTES_MAX + 1, stream);
    MPO_CHECK(!ferror(stream), mpo_reason_of_input(errno),
              "%s: expected a configuration file: %s", path, strerror(errno));
    MPO_CHECK(*bytes <= MPO_CONFIG_BYTES_MAX, MPO_ERR_CONFIG,
              "%s: expected a configuration of at most %zu bytes, found more", path,
              MPO_CONFIG_BYTES_MAX);
cleanup:
    if (stream != NULL)
        fclose(stream);
    return status;
}

/* libyaml's own message. Its reader (bad UTF-8) gives an offset and no mark. */
static enum mpo_status refuse_yaml(const struct mpo_config_build *build,
                                   const yaml_parser_t *parser, const char *text,
                                   size_t bytes)
{
    enum mpo_status status = MPO_OK;
    size_t line = parser->problem_mark.line + 1;
    size_t column = parser->problem_mark.column + 1;
    const char *problem = parser->problem != NULL ? parser->problem : "not YAML";
    MPO_CHECK(parser->error != YAML_MEMORY_ERROR, MPO_ERR_MEMORY,
              "%s: no memory to parse it", build->path);
    if (parser->error == YAML_READER_ERROR) {
        line = 1;
        column = 1;
        for (size_t i = 0; i < parser->problem_offset && i < bytes; i++) {
            line += text[i] == '\n';
            column = text[i] == '\n' ? 1 : column + 1;
        }
    }
    MPO_FAIL(MPO_ERR_CONFIG, "%s:%zu:%zu: expected YAML: %s%s%s", build->path, line, column,
             problem, parser->context != NULL ? ", " : "",
             parser->context != NULL ? parser->context : "");
cleanup:
    return status;
}

static struct mpo_config_place position_of(const yaml_node_t *node)
{
    return (struct mpo_config_place){
        .line = node->start_mark.line + 1,
        .column = node->start_mark.column + 1,
    };
}

static const char *node_text(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* Whether a scalar is text without NUL. */
static bool is_text(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE &&
           strlen(node_text(node)) == node->data.scalar.length;
}

/* Nothing, ~ and null: a value that was left out, not an empty text. */
static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE &&
           node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (*node_text(node) == '\0' || strcmp(node_text(node), "~") == 0 ||
            strcmp(node_text(node), "null") == 0);
}

static const char *kind_of(const yaml_node_t *node)
{
    if (node->type == YAML_MAPPING_NODE)
        return "a mapping";
    if (node->type == YAML_SEQUENCE_NODE)
        return "a list";
    if (is_null(node))
        return "nothing";
    return is_text(node) ? "one value" : "a text with a NUL in it";
}

static enum mpo_status refuse_kind(struct mpo_config_build *build,
                                   const struct mpo_config_place *place, const char *name,
                                   const char *expected, const yaml_node_t *found)
{
    enum mpo_status status = MPO_OK;
    MPO_FAIL(MPO_ERR_CONFIG, "%s:%zu:%zu: %s%sexpected %s, found %s", build->path,
             place->line, place->column, name, *name != '\0' ? ": " : "", expected,
             kind_of(found));
cleanup:
    return status;
}

static void add_name(struct names *names, const char *text, int index)
{
    names->index[names->count] = index;
    names->text[names->count++] = text;
}

static struct names names_of(int section)
{
    struct names names = {.count = 0};
    for (int i = 0; section < 0 && i < MPO_SECTION_COUNT; i++)
        if (mpo_config_is_in_files(i))
            add_name(&names, mpo_config_sections[i].name, i);
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if ((int)mpo_config_options[i].section == section)
            add_name(&names, mpo_config_options[i].name, i);
    return names;
}

/* The key of a policy as a flag has it, once its name is read. */
static const char *unread_section(const struct mapping *mapping, char text[96])
{
    const struct mpo_config *config = mapping->build->config;
    const char *policy = mapping->section == MPO_SECTION_policies
                             ? config->policies[mapping->policy_index].name
                             : NULL;
    snprintf(text, 96, "policies.%s", policy != NULL ? policy : "");
    return policy != NULL ? text : mapping->name;
}

static enum mpo_status keep_unread(const struct mapping *mapping, const char *key,
                                   const yaml_node_t *node)
{
    char section[96];
    char name[192];
    snprintf(name, sizeof name, "%s.%.90s", unread_section(mapping, section), key);
    return mpo_config_keep_unread(mapping->build->config, name,
                                  is_text(node) ? node_text(node) : kind_of(node));
}

/* A section that this version does not know, in a text that was read back. */
static enum mpo_status keep_section(const struct mapping *file, const yaml_node_t *key,
                                    const yaml_node_t *node)
{
    enum mpo_status status = MPO_OK;
    struct mapping mapping = {file->build, file->document, node_text(key), -1, 0};
    if (node->type != YAML_MAPPING_NODE)
        return keep_unread(&mapping, "", node);
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(file->document, pair->key);
        MPO_TRY(keep_unread(&mapping, is_text(name) ? node_text(name) : "",
                            yaml_document_get_node(file->document, pair->value)));
    }
cleanup:
    return status;
}

/* Which of the names a key is; seen[] has the line of each key met before in the mapping.
 * In a text that was read back a key may be none of them: then *index is names->count. */
static enum mpo_status match_key(const struct mapping *mapping, const struct names *names,
                                 const yaml_node_t *key, size_t *seen, size_t *index)
{
    enum mpo_status status = MPO_OK;
    const char *path = mapping->build->path;
    const char *dot = *mapping->name != '\0' ? "." : "";
    struct mpo_config_place place = position_of(key);
    char quoted[MPO_QUOTE_BYTES];
    char hint[MPO_CONFIG_HINT_BYTES];
    if (!is_text(key))
        MPO_TRY(
            refuse_kind(mapping->build, &place, mapping->name, "the name of a key", key));
    const char *name = node_text(key);
    *index = 0;
    while (*index < names->count && strcmp(names->text[*index], name) != 0)
        (*index)++;
    if (*index == names->count && mapping->build->config->stored != NULL)
        return MPO_OK;
    MPO_CHECK(*index < names->count, MPO_ERR_CONFIG, "%s:%zu:%zu: %s%s%s: unknown key%s",
              path, place.line, place.column, mapping->name, dot, mpo_quote(name, quoted),
              mpo_config_hint(name, names->text, names->count, hint));
    MPO_CHECK(seen[*index] == 0, MPO_ERR_CONFIG,
              "%s:%zu:%zu: %s%s%s: duplicate key; line %zu has it already", path,
              place.line, place.column, mapping->name, dot, name, seen[*index]);
    seen[*index] = place.line;
cleanup:
    return status;
}

/* A YAML list of numbers. */
static enum mpo_status assign_sequence(const struct mapping *mapping,
                                       const struct mpo_config_assignment *assignment,
                                       const yaml_node_t *node)
{
    enum mpo_status status = MPO_OK;
    double value[MPO_CONFIG_NUMBERS_MAX];
    int32_t count = 0;
    const char *where = mpo_config_where(mapping->build, assignment);
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *number = yaml_document_get_node(mapping->document, *item);
        MPO_CHECK(count < MPO_CONFIG_NUMBERS_MAX, MPO_ERR_CONFIG,
                  "%s: expected at most %d numbers, found more", where,
                  MPO_CONFIG_NUMBERS_MAX);
        MPO_CHECK(is_text(number) &&
                      mpo_config_read_number(node_text(number), &value[count]),
                  MPO_ERR_CONFIG, "%s: expected numbers, found something else on line %zu",
                  where, number->start_mark.line + 1);
        count++;
    }
    MPO_TRY(mpo_config_assign_numbers(mapping->build, assignment, value, count));
cleanup:
    return status;
}

/* A YAML list of paths. */
static enum mpo_status assign_path_sequence(const struct mapping *mapping,
                                            const struct mpo_config_assignment *assignment,
                                            const yaml_node_t *node)
{
    enum mpo_status status = MPO_OK;
    const char *text[MPO_CONFIG_PARTS_MAX];
    struct mpo_config_assignment all = *assignment;
    int32_t count = 0;
    const char *where = mpo_config_where(mapping->build, assignment);
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *path = yaml_document_get_node(mapping->document, *item);
        MPO_CHECK(count < MPO_CONFIG_PARTS_MAX, MPO_ERR_CONFIG,
                  "%s: expected at most %d paths, found more", where, MPO_CONFIG_PARTS_MAX);
        MPO_CHECK(is_text(path) && !is_null(path), MPO_ERR_CONFIG,
                  "%s: expected paths, found something else on line %zu", where,
                  path->start_mark.line + 1);
        text[count++] = node_text(path);
    }
    all.text = "";
    MPO_TRY(mpo_config_assign_paths(mapping->build, &all, text, count));
cleanup:
    return status;
}

static enum mpo_status assign_node(const struct mapping *mapping,
                                   const struct mpo_config_option *option,
                                   const yaml_node_t *key, const yaml_node_t *node)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_assignment assignment = {
        .option = option,
        .policy_index = mapping->policy_index,
        .place = position_of(key),
    };
    char name[96];
    bool list = option->type == MPO_TYPE_NUMBERS;
    bool may_be_list = list || option->type == MPO_TYPE_FACTORS;
    if (may_be_list && node->type == YAML_SEQUENCE_NODE)
        return assign_sequence(mapping, &assignment, node);
    if (option->type == MPO_TYPE_PATHS && node->type == YAML_SEQUENCE_NODE)
        return assign_path_sequence(mapping, &assignment, node);
    snprintf(name, sizeof name, "%s.%s", mapping->name, option->name);
    if (!is_text(node) || is_null(node))
        MPO_TRY(refuse_kind(
            mapping->build, &assignment.place, name,
            list ? "a list of numbers" : "one value (\"\" is an empty text)", node));
    assignment.text = node_text(node);
    MPO_TRY(mpo_config_assign(mapping->build, &assignment));
cleanup:
    return status;
}

static enum mpo_status read_option(const struct mapping *mapping,
                                   const struct mpo_config_option *option,
                                   const yaml_node_t *key, const yaml_node_t *node)
{
    enum mpo_status status = assign_node(mapping, option, key, node);
    if (status == MPO_ERR_CONFIG && mapping->build->config->stored != NULL)
        return keep_unread(mapping, option->name, node);
    return status;
}

/* The keys of one section or of one policy. */
static enum mpo_status read_options(const struct mapping *mapping, const yaml_node_t *node)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_place place = position_of(node);
    struct names names = names_of(mapping->section);
    size_t seen[MPO_OPTION_COUNT] = {0};
    if (is_null(node))
        return MPO_OK; /* a section whose keys are all commented out */
    if (node->type != YAML_MAPPING_NODE)
        MPO_TRY(refuse_kind(mapping->build, &place, mapping->name, "a mapping", node));
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(mapping->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(mapping->document, pair->value);
        size_t index = 0;
        MPO_TRY(match_key(mapping, &names, key, seen, &index));
        if (index < names.count)
            MPO_TRY(
                read_option(mapping, &mpo_config_options[names.index[index]], key, value));
        else
            MPO_TRY(keep_unread(mapping, node_text(key), value));
    }
cleanup:
    return status;
}

static enum mpo_status read_policies(const struct mapping *file, const yaml_node_t *key,
                                     const yaml_node_t *node)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_build *build = file->build;
    struct mpo_config_place place = position_of(key);
    if (node->type != YAML_SEQUENCE_NODE)
        MPO_TRY(refuse_kind(build, &place, "policies", "a list of policies", node));
    const yaml_node_item_t *items = node->data.sequence.items.start;
    ptrdiff_t count = node->data.sequence.items.top - items;
    MPO_CHECK(count <= MPO_POLICY_COUNT_MAX, MPO_ERR_CONFIG,
              "%s:%zu:%zu: policies: expected at most %d policies, found %td", build->path,
              place.line, place.column, MPO_POLICY_COUNT_MAX, count);
    MPO_TRY(mpo_config_take_policies(build, (int32_t)count));
    for (int32_t i = 0; i < (int32_t)count; i++) {
        const yaml_node_t *entry = yaml_document_get_node(file->document, items[i]);
        char name[32];
        snprintf(name, sizeof name, "policies[%d]", i);
        build->policy_place[i] = position_of(entry);
        MPO_TRY(read_options(
            &(struct mapping){build, file->document, name, MPO_SECTION_policies, i},
            entry));
    }
cleanup:
    return status;
}

static enum mpo_status read_root(const struct mapping *file, const yaml_node_t *root)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config_place place = position_of(root);
    struct names names = names_of(-1);
    size_t seen[MPO_SECTION_COUNT] = {0};
    if (root->type != YAML_MAPPING_NODE)
        MPO_TRY(refuse_kind(file->build, &place, "", "a mapping of sections", root));
    const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
    for (; pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(file->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(file->document, pair->value);
        size_t index = 0;
        MPO_TRY(match_key(file, &names, key, seen, &index));
        if (index == names.count) {
            MPO_TRY(keep_section(file, key, value));
            continue;
        }
        int section = names.index[index];
        struct mapping mapping = {file->build, file->document, names.text[index], section,
                                  0};
        if (section == MPO_SECTION_policies)
            MPO_TRY(read_policies(file, key, value));
        else
            MPO_TRY(read_options(&mapping, value));
    }
cleanup:
    return status;
}

/* A second document would be ignored, so it is refused. */
static enum mpo_status refuse_more(const struct mpo_config_build *build,
                                   yaml_parser_t *parser, const char *text, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    yaml_document_t more;
    if (!yaml_parser_load(parser, &more))
        return refuse_yaml(build, parser, text, bytes);
    const yaml_node_t *root = yaml_document_get_root_node(&more);
    bool is_last = root == NULL;
    struct mpo_config_place place = {0};
    if (!is_last)
        place = position_of(root);
    yaml_document_delete(&more);
    MPO_CHECK(is_last, MPO_ERR_CONFIG,
              "%s:%zu:%zu: expected one YAML document, found a second one", build->path,
              place.line, place.column);
cleanup:
    return status;
}

enum mpo_status mpo_config_read_yaml(struct mpo_config_build *build, const char *text,
                                     size_t bytes)
{
    enum mpo_status status = MPO_OK;
    yaml_parser_t parser;
    yaml_document_t document;
    bool loaded = false;
    MPO_CHECK(yaml_parser_initialize(&parser), MPO_ERR_MEMORY,
              "no memory for a YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    loaded = yaml_parser_load(&parser, &document);
    if (!loaded)
        MPO_TRY(refuse_yaml(build, &parser, text, bytes));
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    MPO_CHECK(root != NULL, MPO_ERR_CONFIG,
              "%s: expected sections and their keys, found an empty file", build->path);
    MPO_TRY(read_root(&(struct mapping){build, &document, "", -1, 0}, root));
    MPO_TRY(refuse_more(build, &parser, text, bytes));
cleanup:
    if (loaded)
        yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return status;
}

enum mpo_status mpo_config_read_file(struct mpo_config_build *build)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    size_t bytes = 0;
    MPO_TRY(read_bytes(build->path, &text, &bytes));
    MPO_TRY(mpo_config_read_yaml(build, text, bytes));
cleanup:
    free(text);
    return status;
}
