/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of the interface in OpenAPI 3.1. Requests come from fields.def, so that
 * what is described is what is parsed; answers are described as far as clients rely on them.
 *
 * A schema says what a value alone can be: what relates two fields, a name that is no model
 * or a text that is no token is refused with 400 or 404 all the same.
 */
#include "openapi.h"

#include <string.h>

#include "mpo/version.h"
#include "request_impl.h"
#include "tokens.h"

/* ---- schemas of fields ---- */

static json_t *bounded_schema(const char *type, double low, double high)
{
    json_t *schema = json_pack("{s:s, s:f}", "type", type, "minimum", low);
    if (high >= 0x1p63)
        json_object_set_new(schema, "maximum", json_integer(INT64_MAX));
    else
        json_object_set_new(schema, "maximum", json_real(high));
    return schema;
}

static json_t *texts_schema(int count_max)
{
    return json_pack("{s:[{s:s, s:i}, {s:s, s:i, s:{s:s, s:i}}]}", "anyOf", "type",
                     "string", "maxLength", 256, "type", "array", "maxItems", count_max,
                     "items", "type", "string", "maxLength", 256);
}

/* A table's start is a token above the others. */
static json_t *ids_schema(const struct mpo_serve_catalog *catalog)
{
    int32_t begin = mpo_serve_begin_token(catalog);
    int32_t last = begin >= catalog->vocab_size ? begin : catalog->vocab_size - 1;
    return json_pack("{s:s, s:i, s:o}", "type", "array", "maxItems",
                     (int)catalog->context_tokens, "items",
                     bounded_schema("integer", 0, last));
}

static json_t *prompts_schema(const struct mpo_serve_catalog *catalog, int count_max)
{
    return json_pack("{s:[{s:s}, {s:s, s:i, s:i, s:{s:s}}, o, {s:s, s:i, s:i, s:o}]}",
                     "anyOf", "type", "string", "type", "array", "minItems", 1, "maxItems",
                     count_max, "items", "type", "string", ids_schema(catalog), "type",
                     "array", "minItems", 1, "maxItems", count_max, "items",
                     ids_schema(catalog));
}

static json_t *messages_schema(int count_max)
{
    json_t *part = json_pack("{s:s, s:[s, s], s:{s:{s:s}, s:{s:s}}}", "type", "object",
                             "required", "type", "text", "properties", "type", "const",
                             "text", "text", "type", "string");
    json_t *content = json_pack("{s:[{s:s}, {s:s, s:i, s:o}]}", "anyOf", "type", "string",
                                "type", "array", "minItems", 1, "items", part);
    json_t *role =
        json_pack("{s:[s, s, s, s]}", "enum", "system", "developer", "user", "assistant");
    json_t *message =
        json_pack("{s:s, s:[s, s], s:{s:o, s:o}}", "type", "object", "required", "role",
                  "content", "properties", "role", role, "content", content);
    return json_pack("{s:s, s:i, s:i, s:o}", "type", "array", "minItems", 1, "maxItems",
                     count_max, "items", message);
}

static json_t *weights_schema(const struct mpo_serve_catalog *catalog)
{
    int count = catalog->objective_count;
    double low = catalog->allow_any_weights ? -MPO_EXPONENT_MAX : 0.0;
    json_t *named = json_object();
    for (int32_t k = 0; k < count; k++)
        json_object_set_new(named, catalog->policy_name[k],
                            bounded_schema("number", low, MPO_EXPONENT_MAX));
    return json_pack("{s:[{s:s, s:i, s:i, s:o}, {s:s, s:b, s:o}]}", "anyOf", "type",
                     "array", "minItems", count, "maxItems", count, "items",
                     bounded_schema("number", low, MPO_EXPONENT_MAX), "type", "object",
                     "additionalProperties", 0, "properties", named);
}

static json_t *biases_schema(const struct mpo_serve_field *field)
{
    return json_pack("{s:s, s:i, s:{s:s}, s:o}", "type", "object", "maxProperties",
                     MPO_SERVE_BIAS_COUNT_MAX, "propertyNames", "pattern",
                     "^(0|[1-9][0-9]*)$", "additionalProperties",
                     bounded_schema("number", field->low, field->high));
}

static json_t *numbered_schema(const struct mpo_serve_field *field, double high)
{
    if (field->type == MPO_SERVE_TYPE_INTEGER)
        return bounded_schema("integer", field->low, high);
    json_t *schema = bounded_schema("number", field->low, high);
    if (field->type == MPO_SERVE_TYPE_SHARE) {
        json_object_del(schema, "minimum");
        json_object_set_new(schema, "exclusiveMinimum", json_real(field->low));
    }
    return schema;
}

static json_t *allowed_schema(const struct mpo_serve_field *field)
{
    json_t *allowed = json_loads(field->initial, 0, NULL);
    json_array_append_new(allowed, json_false()); /* and whatever else is empty */
    json_array_append_new(allowed, json_string(""));
    json_array_append_new(allowed, json_array());
    json_array_append_new(allowed, json_object());
    return json_pack("{s:o}", "enum", allowed);
}

static json_t *type_schema(const struct mpo_serve_field *field,
                           const struct mpo_serve_catalog *catalog)
{
    double high = mpo_serve_field_high(field, catalog);
    switch (field->type) {
    case MPO_SERVE_TYPE_TEXT:
        return json_pack("{s:s, s:i, s:i}", "type", "string", "minLength", (int)field->low,
                         "maxLength", (int)high / 4);
    case MPO_SERVE_TYPE_FLAG:
        return json_pack("{s:s}", "type", "boolean");
    case MPO_SERVE_TYPE_TEXTS:
        return texts_schema((int)high);
    case MPO_SERVE_TYPE_WEIGHTS:
        return weights_schema(catalog);
    case MPO_SERVE_TYPE_MESSAGES:
        return messages_schema((int)high);
    case MPO_SERVE_TYPE_PROMPTS:
        return prompts_schema(catalog, (int)high);
    case MPO_SERVE_TYPE_LOGPROBS:
        return json_pack("{s:[{s:s}, o]}", "anyOf", "type", "boolean",
                         bounded_schema("integer", field->low, high));
    case MPO_SERVE_TYPE_BIASES:
        return biases_schema(field);
    case MPO_SERVE_TYPE_OPTIONS:
        return json_pack("{s:s, s:{s:{s:s}}}", "type", "object", "properties",
                         "include_usage", "type", "boolean");
    case MPO_SERVE_TYPE_TAKEN:
        return json_object();
    case MPO_SERVE_TYPE_REFUSED:
        return allowed_schema(field);
    default:
        return numbered_schema(field, high);
    }
}

/* null is absent in every field. */
static json_t *field_schema(const struct mpo_serve_field *field,
                            const struct mpo_serve_catalog *catalog)
{
    json_t *schema = json_pack("{s:[o, {s:s}], s:s}", "anyOf", type_schema(field, catalog),
                               "type", "null", "description", field->sentence);
    if (field->initial != NULL && field->type != MPO_SERVE_TYPE_REFUSED)
        json_object_set_new(schema, "default",
                            json_loads(field->initial, JSON_DECODE_ANY, NULL));
    return schema;
}

/* Fields that ask for what a model which is a policy does not have. */
static bool is_refused(const struct mpo_serve_catalog *catalog, int32_t index)
{
    return catalog->blend_name != NULL &&
           (index == MPO_SERVE_FIELD_weights || index == MPO_SERVE_FIELD_strength ||
            index == MPO_SERVE_FIELD_policy_scores || index == MPO_SERVE_FIELD_best_of);
}

static json_t *request_schema(const struct mpo_serve_catalog *catalog,
                              enum mpo_serve_kind kind)
{
    json_t *properties = json_object();
    for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++)
        if ((mpo_serve_fields[i].endpoints & (1U << kind)) != 0 && !is_refused(catalog, i))
            json_object_set_new(properties, mpo_serve_fields[i].name,
                                field_schema(&mpo_serve_fields[i], catalog));
    json_t *schema =
        json_pack("{s:s, s:[s], s:o}", "type", "object", "required",
                  kind == MPO_SERVE_CHAT ? "messages" : "prompt", "properties", properties);
    /* What is required cannot be null. */
    json_object_set_new(
        properties, kind == MPO_SERVE_CHAT ? "messages" : "prompt",
        type_schema(&mpo_serve_fields[kind == MPO_SERVE_CHAT ? MPO_SERVE_FIELD_messages
                                                             : MPO_SERVE_FIELD_prompt],
                    catalog));
    if (catalog->refuses_unknown)
        json_object_set_new(schema, "additionalProperties", json_false());
    return schema;
}

/* ---- other schemas, as texts ---- */

static const char error_schema[] =
    "{\"type\": \"object\", \"required\": [\"error\"], \"properties\": {\"error\": "
    "{\"type\": \"object\", \"required\": [\"message\", \"type\", \"param\", \"code\"], "
    "\"properties\": {\"message\": {\"type\": \"string\"}, \"type\": {\"type\": "
    "\"string\"}, "
    "\"param\": {\"type\": [\"string\", \"null\"]}, \"code\": {\"type\": \"string\"}}}}}";

static const char usage_schema[] =
    "{\"type\": \"object\", \"required\": [\"prompt_tokens\", \"completion_tokens\", "
    "\"total_tokens\"], \"properties\": {\"prompt_tokens\": {\"type\": \"integer\"}, "
    "\"completion_tokens\": {\"type\": \"integer\"}, "
    "\"total_tokens\": {\"type\": \"integer\"}}}";

static const char answer_schema[] =
    "{\"type\": \"object\", \"required\": [\"id\", \"object\", \"created\", \"model\", "
    "\"choices\", \"usage\"], \"properties\": {\"id\": {\"type\": \"string\"}, "
    "\"object\": {\"type\": \"string\"}, \"created\": {\"type\": \"integer\"}, "
    "\"model\": {\"type\": \"string\"}, \"system_fingerprint\": {\"type\": \"string\"}, "
    "\"choices\": {\"type\": \"array\", \"items\": {\"type\": \"object\", \"required\": "
    "[\"index\", \"finish_reason\"], \"properties\": {\"index\": {\"type\": \"integer\"}, "
    "\"finish_reason\": {\"enum\": [\"stop\", \"length\"]}}}}, "
    "\"usage\": {\"$ref\": \"#/components/schemas/Usage\"}}}";

static const char model_schema[] =
    "{\"type\": \"object\", \"required\": [\"id\", \"object\", \"created\", \"owned_by\", "
    "\"max_model_len\", \"mpo\"], \"properties\": {\"id\": {\"type\": \"string\"}, "
    "\"object\": {\"const\": \"model\"}, \"created\": {\"type\": \"integer\"}, "
    "\"owned_by\": {\"type\": \"string\"}, \"max_model_len\": {\"type\": \"integer\"}, "
    "\"mpo\": {\"type\": \"object\"}}}";

static const char models_schema[] =
    "{\"type\": \"object\", \"required\": [\"object\", \"data\"], \"properties\": "
    "{\"object\": {\"const\": \"list\"}, \"data\": {\"type\": \"array\", \"items\": "
    "{\"$ref\": \"#/components/schemas/Model\"}}}}";

static const char tokens_schema[] =
    "{\"type\": \"object\", \"required\": [\"tokens\", \"count\", \"max_model_len\"], "
    "\"properties\": {\"tokens\": {\"type\": \"array\", \"items\": {\"type\": "
    "\"integer\"}}, "
    "\"count\": {\"type\": \"integer\"}, \"max_model_len\": {\"type\": \"integer\"}, "
    "\"token_strs\": {\"type\": [\"array\", \"null\"]}}}";

static const char text_schema[] =
    "{\"type\": \"object\", \"required\": [\"prompt\", \"content\"], \"properties\": "
    "{\"prompt\": {\"type\": \"string\"}, \"content\": {\"type\": \"string\"}}}";

static const char object_schema[] = "{\"type\": \"object\"}";

static json_t *tokenize_schema(const struct mpo_serve_catalog *catalog)
{
    (void)catalog;
    return json_pack(
        "{s:s, s:[{s:[s], s:{s:{s:s}}}, {s:[s], s:{s:{s:s}}}, {s:[s], s:{s:o}}], "
        "s:{s:{s:[s, s]}, s:{s:[s, s]}, s:{s:[s, s]}}}",
        "type", "object", "anyOf", "required", "prompt", "properties", "prompt", "type",
        "string", "required", "content", "properties", "content", "type", "string",
        "required", "messages", "properties", "messages",
        messages_schema(MPO_SERVE_MESSAGE_COUNT_MAX), "properties", "add_special_tokens",
        "type", "boolean", "null", "return_token_strs", "type", "boolean", "null",
        "continue_final_message", "type", "boolean", "null");
}

static json_t *detokenize_schema(const struct mpo_serve_catalog *catalog)
{
    return json_pack("{s:s, s:[s], s:{s:o}}", "type", "object", "required", "tokens",
                     "properties", "tokens", ids_schema(catalog));
}

static json_t *all_schemas(const struct mpo_serve_catalog *catalog)
{
    static const struct {
        const char *name;
        const char *text;
    } fixed[] = {
        {"Error", error_schema}, {"Usage", usage_schema},   {"Answer", answer_schema},
        {"Model", model_schema}, {"Models", models_schema}, {"Tokens", tokens_schema},
        {"Text", text_schema},   {"Object", object_schema},
    };
    json_t *all = json_pack("{s:o, s:o, s:o, s:o}", "ChatRequest",
                            request_schema(catalog, MPO_SERVE_CHAT), "CompletionRequest",
                            request_schema(catalog, MPO_SERVE_COMPLETION),
                            "TokenizeRequest", tokenize_schema(catalog),
                            "DetokenizeRequest", detokenize_schema(catalog));
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        json_object_set_new(all, fixed[i].name, json_loads(fixed[i].text, 0, NULL));
    return all;
}

/* ---- endpoints ---- */

struct endpoint {
    const char *path;
    const char *summary;
    const char *request; /* name of its schema; NULL: GET */
    const char *answer;  /* name of its schema; NULL: plain text */
    bool streams;        /* may answer with events */
    bool is_open;        /* without a key */
};

static const struct endpoint endpoints[] = {
    {"/v1/chat/completions", "a chat through each policy's own template", "ChatRequest",
     "Answer", true, false},
    {"/v1/completions", "raw text or token ids, the same for all policies",
     "CompletionRequest", "Answer", true, false},
    {"/v1/models", "names of models", NULL, "Models", false, false},
    {"/v1/models/{id}", "one model", NULL, "Model", false, false},
    {"/tokenize", "text or a chat to tokens of the first policy", "TokenizeRequest",
     "Tokens", false, false},
    {"/detokenize", "tokens to text", "DetokenizeRequest", "Text", false, false},
    {"/tokenizer_info", "special tokens and chat template of the first policy", NULL,
     "Object", false, false},
    {"/v1/mpo", "policies, presets, rows in use (all, and of each group), versions", NULL,
     "Object", false, false},
    {"/metrics", "figures in Prometheus' text format", NULL, NULL, false, false},
    {"/health", "whether requests are answered", NULL, "Object", false, true},
    {"/version", "version of the program", NULL, "Object", false, true},
    {"/openapi.json", "this description", NULL, "Object", false, true},
};

static json_t *schema_reference(const char *name)
{
    return json_pack("{s:s+}", "$ref", "#/components/schemas/", name);
}

static json_t *json_content(const char *schema)
{
    return json_pack("{s:{s:o}}", "application/json", "schema", schema_reference(schema));
}

static json_t *endpoint_answers(const struct endpoint *endpoint)
{
    static const char *const refusals[][2] = {
        {"400", "a field or the request is wrong"},
        {"401", "no key, or an unknown one"},
        {"403", "host or origin not allowed"},
        {"404", "no such model or path"},
        {"408", "the request took too long"},
        {"413", "the body is too large"},
        {"414", "the path is too long"},
        {"429", "the queue is full"},
        {"431", "the header is too large"},
        {"500", "the request could not be computed"},
        {"503", "not ready, draining, or a peer was lost"},
        {"504", "the deadline passed"},
    };
    json_t *content = endpoint->answer != NULL ? json_content(endpoint->answer)
                                               : json_pack("{s:{s:{s:s}}}", "text/plain",
                                                           "schema", "type", "string");
    if (endpoint->streams)
        json_object_set_new(content, "text/event-stream", json_object());
    json_t *all =
        json_pack("{s:{s:s, s:o}}", "200", "description", "done", "content", content);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        json_object_set_new(all, refusals[i][0],
                            json_pack("{s:s, s:o}", "description", refusals[i][1],
                                      "content", json_content("Error")));
    if (strcmp(endpoint->path, "/health") == 0)
        json_object_set_new(all, "503",
                            json_pack("{s:s, s:o}", "description",
                                      "loading, draining or lost", "content",
                                      json_content("Object")));
    return all;
}

static json_t *endpoint_operation(const struct endpoint *endpoint)
{
    json_t *operation = json_pack("{s:s, s:o}", "summary", endpoint->summary, "responses",
                                  endpoint_answers(endpoint));
    if (endpoint->request != NULL)
        json_object_set_new(operation, "requestBody",
                            json_pack("{s:b, s:o}", "required", 1, "content",
                                      json_content(endpoint->request)));
    if (strchr(endpoint->path, '{') != NULL)
        json_object_set_new(operation, "parameters",
                            json_pack("[{s:s, s:s, s:b, s:{s:s, s:i}}]", "name", "id", "in",
                                      "path", "required", 1, "schema", "type", "string",
                                      "minLength", 1));
    if (endpoint->is_open)
        json_object_set_new(operation, "security", json_array());
    return operation;
}

static json_t *all_paths(void)
{
    json_t *all = json_object();
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++)
        json_object_set_new(all, endpoints[i].path,
                            json_pack("{s:o}",
                                      endpoints[i].request != NULL ? "post" : "get",
                                      endpoint_operation(&endpoints[i])));
    return all;
}

char *mpo_serve_openapi_json(const struct mpo_serve_catalog *catalog)
{
    json_t *key = json_pack("{s:{s:s, s:s}}", "key", "type", "http", "scheme", "bearer");
    json_t *all = json_pack(
        "{s:s, s:{s:s, s:s, s:s}, s:[{s:[]}, {}], s:o, s:{s:o, s:o}}", "openapi", "3.1.0",
        "info", "title", "mpo serve", "version", mpo_version(), "description",
        catalog->blend_name != NULL
            ? "Mixtures of the adapters of a language model, one for each name."
            : "A mixture of language models, whose weights come with each request.",
        "security", "key", "paths", all_paths(), "components", "schemas",
        all_schemas(catalog), "securitySchemes", key);
    char *text = all != NULL ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return text;
}
