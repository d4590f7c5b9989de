/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The face of llama.cpp's Jinja engine (launch/setup.sh fetches it, launch/jinja.patch lets
 * it report to the limits below), and those limits. No exception leaves this file.
 *
 * The engine nests calls as deep as the template nests, so what it may nest is bounded by
 * what fits a stack of 8 MB: an expression of SYNTAX levels takes some 4 kB a level to read,
 * a call of EXECUTION levels about as much to execute.
 */
#include "jinja.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "jinja_limits.h"

/* ---- limits ---- */

namespace jinja::limits
{
namespace
{
struct counts {
    size_t steps = 0;
    size_t values = 0;
    int nested[KIND_COUNT] = {};
    bool place_known = false;
    size_t place = 0;
};

thread_local counts now;
} // namespace

void begin()
{
    now.steps = 0;
    now.values = 0; /* what an older template left in a circle is forgotten */
    now.place_known = false;
}

void work(size_t steps)
{
    now.steps = steps > STEPS_MAX - now.steps ? STEPS_MAX : now.steps + steps;
    if (now.steps >= STEPS_MAX)
        throw exceeded("it takes too long: a loop, a recursion or a text without an end");
}

void text_times(size_t bytes, size_t times)
{
    work(times > 0 && bytes > SIZE_MAX / times ? STEPS_MAX
                                               : bytes * times / BYTES_PER_STEP);
}

void value_made()
{
    work(1);
    if (now.values >= VALUES_MAX)
        throw exceeded("it makes too many values");
    now.values++;
}

void value_gone() noexcept
{
    now.values--;
}

nesting::nesting(kind what) : which(what)
{
    if (now.nested[which] >= NESTING_MAX[which])
        throw exceeded(which == VALUES ? "its lists or objects are nested too deeply"
                                       : "it is nested too deeply");
    now.nested[which]++;
}

nesting::~nesting()
{
    now.nested[which]--;
}

void place_error(size_t place) noexcept
{
    if (!now.place_known)
        now.place = place;
    now.place_known = true;
}

bool error_place(size_t *place) noexcept
{
    *place = now.place;
    return now.place_known;
}

} // namespace jinja::limits

/* ---- templates ---- */

/* Tokens between {{ and }}, or {% and %}, at most: a chain of operators is a tree as deep. */
#define TAG_TOKENS_MAX 4096

/* Bytes rendered at most. */
#define OUTPUT_BYTES_MAX ((size_t)1 << 26)

struct mpo_jinja {
    std::string source; /* as places count it: with plain ends of lines */
    jinja::program program;
};

namespace
{
/* What the template itself says with raise_exception. */
struct refusal : std::exception {
    std::string words;
    explicit refusal(std::string text) : words(std::move(text))
    {
    }
    const char *what() const noexcept override
    {
        return words.c_str();
    }
};

/* One line, without what only a programmer needs. */
void set_text(mpo_jinja_failure *failure, const char *text)
{
    size_t length = 0;
    for (; *text != '\0' && length + 1 < sizeof failure->text; text++) {
        bool plain = static_cast<unsigned char>(*text) >= ' ';
        failure->text[length++] = plain ? *text : ' ';
    }
    failure->text[length] = '\0';
}

int64_t line_of(const std::string &source)
{
    size_t place = 0;
    if (!jinja::limits::error_place(&place))
        return 0;
    int64_t line = 1;
    for (size_t i = 0; i < place && i < source.size(); i++)
        line += source[i] == '\n';
    return line;
}

/* Raise a failure of what is being handled. */
void explain(const std::string &source, mpo_jinja_failure *failure)
{
    failure->status = MPO_ERR_CONFIG;
    failure->line = line_of(source);
    try {
        throw;
    } catch (const refusal &raised) {
        failure->status = MPO_ERR_DATA;
        set_text(failure, raised.what());
    } catch (const jinja::limits::missing &lack) {
        failure->status = MPO_ERR_DATA;
        set_text(failure, lack.what());
    } catch (const std::bad_alloc &) {
        failure->status = MPO_ERR_MEMORY;
        set_text(failure, "out of memory");
    } catch (const std::exception &problem) {
        set_text(failure, problem.what());
    } catch (...) {
        set_text(failure, "unknown failure");
    }
}

void check_tags(const jinja::lexer_result &lexed)
{
    size_t first = 0;
    for (size_t i = 0; i < lexed.tokens.size(); i++) {
        auto type = lexed.tokens[i].t;
        if (type == jinja::token::open_statement || type == jinja::token::open_expression)
            first = i;
        if (i - first > TAG_TOKENS_MAX && type != jinja::token::text) {
            jinja::limits::place_error(lexed.tokens[first].pos);
            throw jinja::limits::exceeded("an expression of it is too long");
        }
        if (type == jinja::token::text || type == jinja::token::comment)
            first = i;
    }
}

jinja::value special_token(const char *text)
{
    return jinja::mk_val<jinja::value_string>(std::string(text));
}

jinja::value list_messages(const mpo_jinja_input *input)
{
    auto list = jinja::mk_val<jinja::value_array>();
    for (int32_t i = 0; i < input->message_count; i++) {
        auto message = jinja::mk_val<jinja::value_object>();
        auto content =
            jinja::mk_val<jinja::value_string>(std::string(input->messages[i].content));
        content->mark_input();
        message->insert("role", special_token(input->messages[i].role));
        message->insert("content", content);
        list->push_back(message);
    }
    return list;
}

/* What transformers gives a template. */
void set_variables(jinja::context &context, const mpo_jinja_input *input)
{
    context.set_val("messages", list_messages(input));
    context.set_val("tools", jinja::mk_val<jinja::value_none>());
    context.set_val("documents", jinja::mk_val<jinja::value_none>());
    context.set_val("add_generation_prompt",
                    jinja::mk_val<jinja::value_bool>(input->begin_response));
    const struct {
        const char *name;
        const char *text;
    } tokens[] = {{"bos_token", input->bos_token},  {"eos_token", input->eos_token},
                  {"pad_token", input->pad_token},  {"unk_token", input->unk_token},
                  {"sep_token", input->sep_token},  {"cls_token", input->cls_token},
                  {"mask_token", input->mask_token}};
    for (const auto &token : tokens)
        if (token.text != nullptr)
            context.set_val(token.name, special_token(token.text));
    context.set_val(
        "raise_exception",
        jinja::mk_val<jinja::value_func>(
            "raise_exception", [](const jinja::func_args &args) -> jinja::value {
                throw refusal(args.get_pos(0)->as_string().str());
            }));
}

jinja::value_string execute(const mpo_jinja *jinja, const mpo_jinja_input *input,
                            bool *asked_for_time)
{
    jinja::context context(jinja->source);
    context.current_time = static_cast<std::time_t>(input->time);
    set_variables(context, input);
    jinja::func_handler format = jinja::global_builtins().at("strftime_now");
    context.set_val("strftime_now", jinja::mk_val<jinja::value_func>(
                                        "strftime_now",
                                        [format, asked_for_time](
                                            const jinja::func_args &args) -> jinja::value {
                                            *asked_for_time = true;
                                            return format(args);
                                        }));
    jinja::runtime runtime(context);
    return jinja::runtime::gather_string_parts(runtime.execute(jinja->program));
}

void copy_output(const jinja::value_string &text, mpo_jinja_output *out)
{
    size_t length = text->val_str.length();
    if (length > OUTPUT_BYTES_MAX)
        throw jinja::limits::exceeded("it writes more than 64 MB");
    out->bytes = static_cast<char *>(std::malloc(length + 1));
    out->user = static_cast<uint8_t *>(std::malloc(length + 1));
    if (out->bytes == nullptr || out->user == nullptr)
        throw std::bad_alloc();
    for (const auto &part : text->val_str.parts) {
        std::memcpy(out->bytes + out->length, part.val.data(), part.val.size());
        std::memset(out->user + out->length, part.is_input, part.val.size());
        out->length += part.val.size();
    }
    out->bytes[length] = '\0';
}
} // namespace

bool mpo_jinja_open(const char *source, size_t bytes, struct mpo_jinja **out,
                    struct mpo_jinja_failure *failure)
{
    mpo_jinja *jinja = nullptr;
    *out = nullptr;
    *failure = {};
    jinja::limits::begin();
    try {
        jinja = new mpo_jinja;
        jinja->source.assign(source, bytes);
        if (bytes > MPO_JINJA_SOURCE_BYTES_MAX)
            throw jinja::limits::exceeded("it has more than 1 MB");
        jinja::lexer lexer;
        jinja::lexer_result lexed = lexer.tokenize(jinja->source);
        jinja->source = lexed.source;
        check_tags(lexed);
        jinja->program = jinja::parse_from_tokens(lexed);
    } catch (...) {
        explain(jinja != nullptr ? jinja->source : std::string(), failure);
        delete jinja;
        return false;
    }
    *out = jinja;
    return true;
}

void mpo_jinja_close(struct mpo_jinja **jinja)
{
    delete *jinja;
    *jinja = nullptr;
}

bool mpo_jinja_render(const struct mpo_jinja *jinja, const struct mpo_jinja_input *input,
                      struct mpo_jinja_output *out, struct mpo_jinja_failure *failure)
{
    *out = {};
    *failure = {};
    jinja::limits::begin();
    try {
        bool asked_for_time = false;
        copy_output(execute(jinja, input, &asked_for_time), out);
        out->asked_for_time = asked_for_time;
    } catch (...) {
        explain(jinja->source, failure);
        std::free(out->bytes);
        std::free(out->user);
        *out = {};
        return false;
    }
    return true;
}
