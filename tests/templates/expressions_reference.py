#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write what the reference implementation makes of many small expressions:

    expressions_reference.py >tests/templates/expressions.json

Every filter, test, method and operator of Jinja with every kind of value, as
tests/templates/reference.py sets Jinja up. Needs jinja2 (written with 3.1.6). The result is a
list of [template, text], where the text is null for what the reference refuses.
"""
import itertools
import json
import sys

from reference import USER, make_environment

VALUES = ["'ab Cd'", "''", "\"it's\"", "'a\"b'", "'éÀ ß'", "'42'", "' x '", "'a-b (c)'", "3", "-7", "2.5",
          "1e20", "true", "none", "[]", "[3, 1, 2]", "['b', 'A', 'c']", "[1, 'x', none, 2.0, true]",
          "('a', 1)", "(1,)", "{'b': 1, 'A': 2}", "{}", "{'a': [1, {'x': 'é'}]}", "[{'k': 1}, {'k': 2}]",
          "nothing", "messages", "messages[0]", "messages[0].content", "range(3)"]
FILTERS = ["abs", "attr('k')", "batch(2)", "capitalize", "center(8)", "count", "d('z')", "default('z')",
           "default('z', true)", "dictsort", "dictsort(reverse=true)", "e", "escape", "filesizeformat",
           "first", "float", "float(1.5)", "forceescape", "format(1)", "format('x')", "groupby('k')", "indent",
           "indent(2, true)", "int", "int(5)", "items", "join", "join(', ')", "join('-', attribute='k')",
           "last", "length", "list", "lower", "map('upper')", "map(attribute='k')", "max", "min",
           "pprint", "random", "reject", "reject('odd')", "rejectattr('k')", "replace('a', 'x')",
           "replace('a', 'x', 1)", "reverse", "round", "round(1)", "round(method='floor')", "safe", "select",
           "select('odd')", "select('string')", "selectattr('k')", "selectattr('k', 'equalto', 1)", "slice(2)",
           "sort", "sort(reverse=true)", "sort(attribute='k')", "string", "striptags", "sum", "sum(attribute='k')",
           "title", "tojson", "tojson(indent=2)", "trim", "trim('a')", "truncate(3)", "unique", "upper",
           "urlencode", "urlize", "wordcount", "wordwrap(3)", "xmlattr"]
TESTS = ["boolean", "callable", "defined", "divisibleby(2)", "eq(3)", "equalto('42')", "escaped", "even",
         "false", "filter", "float", "ge(1)", "gt(1)", "in([3, 'x'])", "in('ab')", "integer", "iterable",
         "le(1)", "lessthan(5)", "lower", "lt(1)", "mapping", "ne(3)", "none", "number", "odd",
         "sameas(none)", "sequence", "string", "true", "undefined", "upper"]
METHODS = ["append(1)", "capitalize()", "clear()", "copy()", "count('a')", "endswith('d')",
           "endswith(('d', 'x'))", "extend([1])", "find('C')", "format(1)", "get('b')", "get('q')",
           "get('q', 5)", "index('A')", "insert(0, 1)", "isalpha()", "isdigit()", "islower()", "isspace()", "istitle()",
           "isupper()", "items()", "join(['x', 'y'])", "keys()", "lower()", "lstrip()", "lstrip('a')", "partition('-')",
           "pop()", "removeprefix('ab')", "replace('a', 'x')", "replace('a', 'x', 1)", "reverse()", "rsplit('-')", "rsplit('b', 1)",
           "rstrip()", "sort()", "split()", "split('b')", "split('b', 1)", "split(none, 1)", "splitlines()", "startswith('a')",
           "startswith(('a', 'b'))", "strip()", "strip('ad')", "swapcase()", "title()", "update({'z': 1})", "upper()", "values()",
           "zfill(5)", "k", "0", "length"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">", "<=", ">=", "in", "not in",
             "and", "or"]
OPERANDS = ["'ab'", "'%s!'", "'é'", "3", "-2", "2.5", "true", "none", "[1]", "('a',)", "{'a': 1}", "nothing", "messages[0]"]
SINGLE = ["{{ %s }}", "{{ %s | tojson }}", "{{ %s ~ '' }}", "{% if %s %}y{% else %}n{% endif %}",
          "{% for x in %s %}{{ loop.index }}{{ x }},{% else %}none{% endfor %}",
          "{% set a, b = %s %}{{ a }}{{ b }}", "{{ -(%s) }}", "{{ +(%s) }}", "{{ not %s }}",
          "{{ (%s)[0] }}", "{{ (%s)[-1] }}", "{{ (%s)[1:] }}", "{{ (%s)[::-1] }}", "{{ (%s)[:-1] }}", "{{ (%s)['k'] }}",
          "{{ [%s] }}", "{{ {'v': %s} }}", "{{ (%s, 1) }}", "{{ dict(a=%s) }}", "{{ (%s).k is defined }}"]
STATEMENTS = [
    "{{ 1_000 }}", "{{ 1e3 }}", "{{ 0.1 + 0.2 }}", "{{ 1/3 }}", "{{ 10000000000 * 10 }}", "{{ 2 ** 0.5 }}", "{{ 7 // 2 }}",
    "{{ -7 // 2 }}", "{{ 9007199254740993 + 0 }}", "{{ 1.0 }}", "{{ 100000.0 * 10 }}", "{{ 1.5e300 * 1 }}", "{{ 'a' 'b' }}",
    "{{ '\\n' }}", "{{ '\\t\\x41' }}", "{{ '\\u00e9' }}", "{{ \"a\\\"b\" }}", "{{ 'a\\\\b' | tojson }}", "{{ ['a\\nb', 'é', '\\''] }}",
    "{{ '%s and %s' % ('x', 'y') }}", "{{ '%d' % 3 }}", "{{ '%5.2f' % 2.5 }}", "{{ '%(a)s' % {'a': 1} }}", "{{ '%%' % () }}",
    "{{ '%s' | format('x') }}", "{{ '%s-%s' | format(1, 2) }}", "{{ '{} {}'.format('a', 1) }}", "{{ '{0}{0}'.format('a') }}",
    "{{ '{a}'.format(a=1) }}", "{{ '{{}}'.format() }}", "{{ '{}'.format([1, 'x']) }}", "{{ 1 if false }}", "{{ 'a' if 1 else 'b' }}",
    "{{ 1 < 2 < 3 }}", "{{ 3 > 2 == 2 }}", "{{ not true == false }}", "{{ 2 + 3 * 4 ** 2 }}", "{{ -2 ** 2 }}", "{{ 'a' ~ 1 ~ none }}",
    "{{ [1, 2] == [1, 2] }}", "{{ {'a': 1} == {'a': 1} }}", "{{ (1, 2) == [1, 2] }}", "{{ 1 == 1.0 }}", "{{ 1 == true }}", "{{ '1' == 1 }}",
    "{{ 'b' > 'a' }}", "{{ [1, 2] < [1, 3] }}", "{{ [] or 'e' }}", "{{ [1, [2, ['x']]] }}", "{{ loop is defined }}",
    "{% set l = [] %}{{ l.append(1) }}{{ l }}", "{% set l = [] %}{% set _ = l.append(1) %}{{ l | length }}",
    "{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "{% set x %}a{{ 1 }}b{% endset %}{{ x }}",
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}", "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, x=2) }}", "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{% endcall %}",
    "{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}", "{% for x in 'abc' %}{{ x }},{% endfor %}", "{% for x in {'a': 1} %}{{ x }}{% endfor %}",
    "{% for x in [1, 2, 3] if x > 1 %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% if x == 3 %}{% break %}{% endif %}{% endfor %}",
    "{% for x in [[1, [2]], [3]] recursive %}{{ x[0] }}{% if x[1] %}{{ loop([x[1]]) }}{% endif %}{% endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}",
    "{% raw %}{{ x }}{% endraw %}", "{# c #}a", "{%- if true -%} a {%- endif -%} b", "  {% if true %}\n  a\n  {% endif %}\nb", "{{ 'x' }}\n", "a\n\n", "{% if true %}\n\nx{% endif %}",
    "{% filter upper %}aé{% endfilter %}", "{% with a=1 %}{{ a }}{% endwith %}{{ a }}", "{% generation %}g{% endgeneration %}", "{{ cycler('a', 'b').next() }}", "{{ joiner(',')() }}", "{{ lipsum(1) | length > 0 }}",
    "{{ namespace(a=1) }}", "{{ range(3) }}", "{{ range(1, 10, 4) | list }}", "{{ range(3, 0, -1) | list }}", "{{ dict(a=1, b='x') }}", "{{ messages }}", "{{ messages[0] }}", "{{ messages | tojson }}",
    "{{ messages[0].items() | list }}", "{{ messages[0].keys() }}", "{{ messages[0].values() | list }}", "{{ (1, 'x') }}", "{{ true and 'x' }}", "{{ none | default('z') }}", "{{ none | string }}", "{{ undefined_thing.x }}", "{{ undefined_thing }}",
    "{{ undefined_thing + 'x' }}", "{{ 'x' ~ undefined_thing }}", "{{ undefined_thing | length }}", "{{ 'x' in undefined_thing }}", "{{ none + 1 }}", "{{ 'a' + 1 }}", "{{ 1 + 'a' }}", "{{ [1] + 'a' }}", "{{ 'a' * 3 }}", "{{ [1, 2] * 2 }}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S %j %A %B %e') }}", "{{ raise_exception('no') }}", "{{ 'a,b'.split(',') }}", "{{ 'a b'.split(' ')[0] }}", "{{ 'abc'[1] }}", "{{ 'abc'[5] }}", "{{ 'abc'[1:2] }}", "{{ [1, 2, 3][0:2] }}", "{{ {'a': 1}['b'] }}",
    "{{ {'a': 1}.b }}", "{{ {'a': {'b': 2}}.a.b }}", "{{ {1: 'x'}[1] }}", "{{ {1: 'x'} }}", "{{ {'a': 1, 'a': 2} }}", "{{ 'ÀÉ' | lower }}", "{{ 'straße' | upper }}", "{{ 'ΑΣ' | lower }}", "{{ 'ǆ' | title }}", "{{ 'éa bÉ' | title }}", "{{ 'éA' | capitalize }}", "{{ \"they're bill's\".title() }}", "{{ \"they're bill's\" | title }}",
    "{{ 'İ' | lower }}", "{{ 'ŉ' | upper }}", "{{ 'ﬁx' | capitalize }}", "{{ 'É' is upper }}", "{{ 'é' is upper }}", "{{ '1' is lower }}", "{{ ['É', 'a'] | sort }}", "{{ ['B', 'a'] | sort }}", "{{ {'B': 1, 'a': 2} | dictsort }}", "{{ 'É' == 'é' | upper }}", "{{ [none, true, 1.5] | join('|') }}", "{{ [1.0, 2] | sum }}", "{{ 2.5 | round }}",
    "{{ 3.7 | int }}", "{{ '3.7' | int }}", "{{ '0x1f' | int(base=16) }}", "{{ ' 12 ' | int }}", "{{ '12abc' | int }}", "{{ '1e3' | float }}", "{{ 'nan' | float }}", "{{ 'abc' | float }}", "{{ '99999999999' | int }}", "{{ [3] | first }}", "{{ [] | first }}", "{{ 'abc' | first }}", "{{ 'abc' | last }}", "{{ 'abc' | reverse }}", "{{ 'abc' | list }}", "{{ {'a': 1} | list }}", "{{ {'a': 1} | length }}",
    "{{ 'a\\nb\\n\\nc' | indent(2) }}", "{{ 'a\\r\\nb' | indent(2) }}", "{{ '<a>' | e }}", "{{ '<a>' | safe }}", "{{ 'a b' | urlencode }}", "{{ 1234567.891 }}", "{{ 1e16 }}", "{{ 1e-5 }}", "{{ 0.0001 }}", "{{ 123456789.0 }}", "{{ 1e22 | int }}", "{{ true + 1 }}", "{{ true | int }}", "{{ 5 % 3.5 }}", "{{ 'x' if nothing else 'y' }}", "{{ nothing is none }}",
]


def templates():
    for value in VALUES:
        yield from (single.replace("%s", value) for single in SINGLE)
        yield from ("{{ %s | %s }}" % (value, name) for name in FILTERS)
        yield from ("{{ %s is %s }}" % (value, name) for name in TESTS)
        yield from ("{{ (%s).%s }}" % (value, name) for name in METHODS)
    for one, operator, other in itertools.product(OPERANDS, OPERATORS, OPERANDS):
        yield "{{ %s %s %s }}" % (one, operator, other)
    yield from STATEMENTS


def render(environment, template):
    """A text; None: refused. What depends on chance or on an address is no text."""
    messages = [{"role": role, "content": content} for role, content in [USER]]
    try:
        text = environment.from_string(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True,
            bos_token="<s>", eos_token="</s>")
    except Exception:  # a program of the reference, of whatever kind
        return None
    return text


def main():
    environment = make_environment()
    rows = []
    for template in dict.fromkeys(templates()):
        text = render(environment, template)
        if "random" in template or (text is not None and " at 0x" in text):
            continue
        rows.append([template, text])
    print("[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]")
    print(len(rows), sum(text is None for _, text in rows), file=sys.stderr)


main()
