/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template is a program out of a model file. Whatever it does, reading and rendering it
 * end soon, with a text or with a failure, and a message's text is known for one however it
 * went through the template. That real templates give the right text is shown by
 * tests/templates/templates.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "policy/llama/jinja.h"
#include "runner.h"

#define SECONDS_MAX 60.0 /* of the processor; sanitizers make it several times slower */

static const struct mpo_message asked[] = {{"user", "pre <|x|> post"}};

struct result {
    struct mpo_jinja_output output;
    struct mpo_jinja_failure failure;
    bool read;
    bool rendered;
};

static struct result render(const char *source)
{
    struct mpo_jinja_input input = {.messages = asked,
                                    .message_count = 1,
                                    .begin_response = true,
                                    .bos_token = "<s>",
                                    .time = 1721952000};
    struct result result = {0};
    struct mpo_jinja *jinja = NULL;
    clock_t begin = clock();
    result.read = mpo_jinja_open(source, strlen(source), &jinja, &result.failure);
    if (result.read)
        result.rendered = mpo_jinja_render(jinja, &input, &result.output, &result.failure);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (seconds > SECONDS_MAX)
        fail_msg("%.60s: took %.0f s", source, seconds);
    mpo_jinja_close(&jinja);
    return result;
}

static void release(struct result *result)
{
    free(result->output.bytes);
    free(result->output.user);
}

static void assert_renders(const char *source, const char *expected)
{
    struct result result = render(source);
    if (!result.rendered)
        fail_msg("%s: %s", source, result.failure.text);
    assert_string_equal(result.output.bytes, expected);
    release(&result);
}

static void assert_fails(const char *source, const char *word)
{
    struct result result = render(source);
    if (result.rendered)
        fail_msg("%.60s: gave %.60s", source, result.output.bytes);
    assert_int_equal(result.failure.status, MPO_ERR_CONFIG);
    if (strstr(result.failure.text, word) == NULL)
        fail_msg("%.60s: expected '%s' in '%s'", source, word, result.failure.text);
}

/* before, count times middle, then after */
static char *repeat(const char *before, const char *middle, int count, const char *after)
{
    size_t bytes = strlen(before) + strlen(middle) * (size_t)count + strlen(after) + 1;
    char *text = runner_allocate(bytes, 1);
    char *end = text + snprintf(text, bytes, "%s", before);
    for (int i = 0; i < count; i++)
        end += snprintf(end, bytes - (size_t)(end - text), "%s", middle);
    snprintf(end, bytes - (size_t)(end - text), "%s", after);
    return text;
}

static void assert_repeated_fails(const char *before, const char *middle, int count,
                                  const char *word)
{
    char *source = repeat(before, middle, count, " }}");
    assert_fails(source, word);
    free(source);
}

/* ---- work without an end ---- */

static void loops_end(void **state)
{
    (void)state;
    assert_fails("{% for i in range(100000000) %}x{% endfor %}", "too many values");
    assert_fails("{% for a in range(1000) %}{% for b in range(1000) %}"
                 "{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
                 "too long");
    assert_fails("{{ range(9223372036854775807) }}", "32 bits");
}

static void recursion_ends(void **state)
{
    (void)state;
    assert_fails("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "nested");
    assert_fails("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}"
                 "{% endmacro %}{{ f(40) }}",
                 "too long");
    assert_fails("{% macro m(n) %}{% call m(n-1) %}{{ caller() }}{% endcall %}"
                 "{% endmacro %}{{ m(1) }}",
                 "nested");
}

static void texts_stop_growing(void **state)
{
    (void)state;
    assert_fails("{% set ns = namespace(s='0123456789abcdef') %}"
                 "{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
                 "too long");
    assert_fails("{{ 'x' * 9223372036854775807 }}", "too long");
    assert_fails("{% set s = 'x' * 1000000 %}{{ s|replace('', s) }}", "too long");
    assert_fails("{% set s = 'x' * 1000000 %}{{ s|replace('x', s) }}", "too long");
    assert_fails("{{ range(400000)|join('x' * 100000) }}", "too long");
    assert_fails("{{ 'a'|indent(9223372036854775807) }}", "indent");
    assert_fails("{{ [1]|tojson(indent=2147483647) }}", "indent");
}

static void values_without_an_end_are_not_followed(void **state)
{
    (void)state;
    /* A list cannot be tied into a circle, as it cannot be changed; a namespace can. */
    assert_fails("{% set a = [] %}{% set _ = a.append(a) %}{{ a }}", "not supported");
    assert_fails("{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns]|tojson }}",
                 "nested");
    assert_fails("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}",
                 "not supported");
    assert_fails("{% set ns = namespace(x=1) %}{% for i in range(100) %}"
                 "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
                 "too long");
    assert_fails("{% set ns = namespace(x=1) %}{% for i in range(100) %}"
                 "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
                 "too long");
}

/* The stack would not do for freeing one inside the other. */
static void long_chains_of_values_are_freed(void **state)
{
    (void)state;
    assert_renders("{% set ns = namespace(x=1) %}{% for i in range(20000) %}"
                   "{% set ns.x = [ns.x] %}{% endfor %}done",
                   "done");
    assert_renders("{% set ns = namespace(x=1) %}{% for i in range(20000) %}"
                   "{% set ns.x = {'a': ns.x} %}{% endfor %}done",
                   "done");
}

/* ---- syntax without an end ---- */

static void deep_syntax_is_refused(void **state)
{
    (void)state;
    static const char *const deep[] = {"(", "[", "not ", "- ", "1 if 0 else ", "{1:"};
    static const char *const chains[] = {"+1", ".y", "|upper", "()", " ~ 'a'"};
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++)
        assert_repeated_fails("{{ ", deep[i], 1000, "nested");
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++)
        assert_repeated_fails("{{ ", deep[i], 50000, "");
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        assert_repeated_fails("{{ bos_token", chains[i], 800, "nested");
        assert_repeated_fails("{{ bos_token", chains[i], 50000, "too long");
    }
    char *ifs = repeat("", "{% if 1 %}", 1000, "");
    char *elifs = repeat("{% if 0 %}", "{% elif 0 %}", 20000, "{% endif %}");
    assert_fails(ifs, "nested");
    assert_fails(elifs, "nested");
    free(elifs);
    free(ifs);
}

static void unfinished_syntax_is_refused(void **state)
{
    (void)state;
    static const char *const cut[] = {"{{ messages",
                                      "{% for m in messages %}",
                                      "{% if x",
                                      "{# abc",
                                      "{{ 'abc",
                                      "{{ '\\",
                                      "{% macro f(",
                                      "{{ {",
                                      "{{ [",
                                      "{{ x[",
                                      "{% set x",
                                      "{% generation",
                                      "{% set x %}",
                                      "{{ -",
                                      "{% call f() %}",
                                      "{% filter upper %}",
                                      "{% include 'x'%}"};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        struct result result = render(cut[i]);
        release(&result);
        if (strncmp(cut[i], "{% generation", 13) != 0)
            assert_false(result.read);
    }
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{{ 1 is divisibleby(0) }}",
        "{{ 'abc'[::0] }}",
        "{{ 99999999999999999999999999 }}",
        "{% for 1 in messages %}{% endfor %}",
        "{% set 1 = 2 %}",
        "{% macro 1() %}{% endmacro %}",
        "{{ 1|(2) }}",
        "{% break %}",
        "{{ dict(1=2) }}",
        "{{ f(*messages) }}",
        "{{ strftime_now('') }}",
        "{{ nothing + 'text' }}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(bad[i], "");
    assert_renders("{{ 'abc'[1::9223372036854775807] }}", "b");
    assert_fails("{{ (-9223372036854775807 - 1)|abs }}", "64 bits");
}

/* ---- what is right ---- */

static void a_failure_has_its_line_and_the_templates_own_words(void **state)
{
    (void)state;
    struct result result = render("a\n{# b\n #}\n{{ raise_exception('I say so') }}");
    assert_false(result.rendered);
    assert_int_equal(result.failure.status, MPO_ERR_DATA);
    assert_int_equal(result.failure.line, 4);
    assert_string_equal(result.failure.text, "I say so");
    result = render("a\r\nb\r\n{{ 1 + nothing }}");
    assert_int_equal(result.failure.line, 3);
    result = render("a\nb\n{% if 1 %}\n{{ x }}\n");
    assert_int_equal(result.failure.line, 4);
}

static void values_print_as_in_jinja(void **state)
{
    (void)state;
    assert_renders("{{ none }}{{ true }}{{ 1.5 }}{{ nothing }}", "NoneTrue1.5");
    assert_renders("{{ nothing ~ 'a' ~ none }}", "aNone");
    assert_renders("{{ strftime_now('%d %b %Y %H:%M') }}", "26 Jul 2024 00:00");
    assert_renders("{{ tools is none }}{{ documents is none }}{{ eos_token is defined }}",
                   "TrueTrueFalse");
    assert_renders("{% generation %}a{% endgeneration %}", "a");
}

static void texts_are_of_characters_as_in_python(void **state)
{
    (void)state;
    const char *set = "{% set c = 'h\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd' %}";
    static const struct {
        const char *expression;
        const char *expected;
    } cases[] = {
        {"{{ c|length }}", "5"},
        {"{{ c[1] }}{{ c[-1] }}{{ c[5] }}{{ c[-6] }}", "\xc3\xa9\xe5\xa5\xbd"},
        {"{{ c[:2] }}|{{ c[-2:] }}|{{ c[1:4] }}",
         "h\xc3\xa9|\xe4\xbd\xa0\xe5\xa5\xbd|\xc3\xa9 \xe4\xbd\xa0"},
        {"{{ c[::-1] }}", "\xe5\xa5\xbd\xe4\xbd\xa0 \xc3\xa9h"},
        {"{{ c.strip('h\xe5\xa5\xbd') }}", "\xc3\xa9 \xe4\xbd\xa0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *source = repeat(set, cases[i].expression, 1, "");
        assert_renders(source, cases[i].expected);
        free(source);
    }
}

/* U+00A0, U+2003, U+2028, U+3000 and U+0085 are white space in Python, U+200B and U+FEFF
 * are not. */
static void wide_spaces_are_trimmed_as_in_python(void **state)
{
    (void)state;
    assert_renders(
        "{{ '\xc2\xa0\xe3\x80\x80 \xc3\xa9 \xe3\x80\x80\xe2\x80\x83'|trim }}|"
        "{{ '\xe2\x80\xa8x\xc2\x85'.strip() }}|{{ '\x1cy\xe2\x80\xa8'.rstrip() }}",
        "\xc3\xa9|x|\x1cy");
    assert_renders("{{ '\xe2\x80\x8b\xc3\xa0\xef\xbb\xbf'|trim }}",
                   "\xe2\x80\x8b\xc3\xa0\xef\xbb\xbf");
    assert_renders("{{ ' a\xe3\x80\x80  b\n\tc '.split()|join(',') }}", "a,b,c");
}

static void numbers_are_divided_as_in_python(void **state)
{
    (void)state;
    assert_renders("{{ -7 % 3 }} {{ 7 % -3 }} {{ -6 % 3 }} {{ -0.5 % 2 }}", "2 -2 0 1.5");
    assert_fails("{{ 1 % 0 }}", "division by zero");
    assert_fails("{{ 1 / 0 }}", "division by zero");
}

static void none_is_defined(void **state)
{
    (void)state;
    assert_renders(
        "{{ none|default('x') }} {{ none|default('x', true) }} {{ y|default('x') }}",
        "None x x");
}

static void assert_refuses_the_messages(const char *source, const char *word)
{
    struct result result = render(source);
    if (result.rendered)
        fail_msg("%s: gave %s", source, result.output.bytes);
    assert_int_equal(result.failure.status, MPO_ERR_DATA);
    assert_non_null(strstr(result.failure.text, word));
    assert_int_equal(result.failure.line, 1);
}

/* As in Jinja: what is undefined is empty, and has no members. */
static void what_is_missing_has_no_members(void **state)
{
    (void)state;
    assert_refuses_the_messages("{{ nothing.role }}", "member 'role'");
    assert_refuses_the_messages("{{ nothing[0] }}", "member '0'");
    assert_refuses_the_messages("{{ messages[1].content }}", "member 'content'");
    assert_refuses_the_messages("{{ messages[0].tool.name is defined }}", "member 'name'");
    assert_renders("{{ messages[1] }}{{ messages[0].tool }}{{ nothing is defined }}"
                   "{{ messages[1] and messages[1].content }}{{ none.role }}",
                   "False");
}

/* ---- whose text it is ---- */

/* Every byte of "<|x|>" that stands in the output is the message's. */
static void assert_marked(const char *expression)
{
    char source[256];
    snprintf(source, sizeof source, "{%% set c = messages[0].content %%}a{{ %s }}b",
             expression);
    struct result result = render(source);
    if (!result.rendered)
        fail_msg("%s: %s", expression, result.failure.text);
    const char *found = strstr(result.output.bytes, "|x|");
    if (found == NULL)
        found = strstr(result.output.bytes, "|X|");
    if (found == NULL)
        fail_msg("%s: lost the text: %s", expression, result.output.bytes);
    size_t place = (size_t)(found - result.output.bytes);
    for (size_t i = place; i < place + 3; i++)
        if (result.output.user[i] != 1)
            fail_msg("%s: byte %zu of %s is not marked", expression, i,
                     result.output.bytes);
    assert_int_equal(result.output.user[0], 0);
    assert_int_equal(result.output.user[result.output.length - 1], 0);
    release(&result);
}

static void a_messages_text_stays_one(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "c",
        "c|trim",
        "c|upper",
        "c|lower",
        "c|title",
        "c|capitalize",
        "c|string",
        "c|safe",
        "c|indent(4)",
        "c|replace('pre', 'before')",
        "'#'|replace('#', c)",
        "c|tojson",
        "messages|tojson",
        "messages|string",
        "[c]|string",
        "{c: 1}|tojson",
        "{'a': [c, (c, 1)]}|tojson(indent=2)",
        "[c, 'd']|join(', ')",
        "['a', 'b']|join(c)",
        "c.split('zzz')[0]",
        "c.split(' ')[1]",
        "c.split(' ')|join(' ')",
        "c.rsplit(' ')[1]",
        "c.rsplit('post')[0]",
        "c.strip('p')",
        "c.lstrip().rstrip()",
        "c[1:]",
        "c[4] ~ c[5] ~ c[6] ~ c[7] ~ c[8]",
        "c + 'x'",
        "'x' ~ c ~ 'y'",
        "c * 2",
        "'{}'.format(c)",
        "c.format(1)",
        "c|default('x')",
        "nothing|default(c)",
        "messages|map(attribute='content')|join",
        "messages|map(attribute='content')|list|string",
        "messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|first",
        "[c]|sort|first",
        "dict(a=c).values()|list|first",
        "dict(a=c).items()|list|string",
        "namespace(a=c).a",
        "c if true else 'x'",
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        assert_marked(ways[i]);
    assert_renders("{% set c = '<|x|>' %}{{ c }}", "<|x|>");
}

static void a_templates_text_is_its_own(void **state)
{
    (void)state;
    struct result result = render("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
                                  "{{ '<|x|>' }}{% endfor %}");
    const char *expected = "<|user|>pre <|x|> post<|x|>";
    assert_true(result.rendered);
    assert_string_equal(result.output.bytes, expected);
    for (size_t i = 0; i < result.output.length; i++)
        assert_int_equal(result.output.user[i], i >= 8 && i < 8 + strlen(asked[0].content));
    release(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_end),
        cmocka_unit_test(recursion_ends),
        cmocka_unit_test(texts_stop_growing),
        cmocka_unit_test(values_without_an_end_are_not_followed),
        cmocka_unit_test(long_chains_of_values_are_freed),
        cmocka_unit_test(deep_syntax_is_refused),
        cmocka_unit_test(unfinished_syntax_is_refused),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(a_failure_has_its_line_and_the_templates_own_words),
        cmocka_unit_test(values_print_as_in_jinja),
        cmocka_unit_test(texts_are_of_characters_as_in_python),
        cmocka_unit_test(wide_spaces_are_trimmed_as_in_python),
        cmocka_unit_test(numbers_are_divided_as_in_python),
        cmocka_unit_test(none_is_defined),
        cmocka_unit_test(what_is_missing_has_no_members),
        cmocka_unit_test(a_messages_text_stays_one),
        cmocka_unit_test(a_templates_text_is_its_own),
    };
    return run_cases("policy_llama_jinja", tests);
}
