#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write what the reference implementation makes of many small programs:

    programs_reference.py >tests/templates/programs.json

Where expressions_reference.py takes one filter or operator at a time, these are put together:
blocks within blocks, variables that are set in them, macros, loops that are left, white space
around tags, and texts of which a message wrote a part. Some are written by hand, each for a
rule of Jinja that an engine is likely to miss; the others are drawn. Needs jinja2 (written with
3.1.6). The result is {"message": [role, content], "rows": [[template, text], ...]}, where the
text is null for what the reference refuses. The message alone has Cyrillic letters, so that a
text tells who wrote which of them; no template prints one of its own.
"""
import json
import random
import sys

import jinja2

from reference import make_environment

MESSAGE = ["user", "щи Щука, Ящ щи"]
DRAWN = 900

WRITTEN = [
    # what is undefined or none gives generators, which are true
    *("{{ %s | %s }}|{{ 'y' if %s | %s else 'n' }}" % (value, name, value, name)
      for value in ["nothing", "none"]
      for name in ["map('upper') | list", "select('odd') | list", "reject | list", "selectattr('k') | list",
                   "rejectattr('k') | list", "items | list", "reverse | list", "unique | list", "join", "sum", "sort", "list",
                   "first", "last", "min", "max", "length", "trim", "title", "replace('', 'x')", "default('z')", "string", "int"]),
    *("{%% if %s | %s %%}y{%% else %%}n{%% endif %%}" % (value, name)
      for value in ["nothing", "none", "[]", "[1]", "{}"]
      for name in ["map('upper')", "select", "reject", "selectattr('k')", "items", "reverse", "map(attribute='k') | reverse"]),
    "{% set g = [1, 2] | map('string') %}{{ g | list }}{{ g | list }}", "{{ [1, 2] | select | last }}", "{{ [1, 2] | map('abs') | length }}",
    # statements where they may not be
    "{% break %}", "{% continue %}a", "{% if true %}{% break %}{% endif %}", "{% for x in [1] %}{% endfor %}{% break %}",
    "{% for x in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% for x in [1] %}{% else %}{% continue %}{% endfor %}",
    *("{%% for y in [1, 2] %%}{%% for x in %s %%}T%s{%% else %%}E%s{%% endfor %%}C{%% else %%}Z{%% endfor %%}|{{ messages[0].content }}" % (items, inner, outer)
      for items in ["[]", "[3]", "[3, 4] if y == 2"]
      for inner in ["", "{% continue %}U"]
      for outer in ["{{ y }}{% break %}Q", "{{ y }}{% continue %}Q", "{% if y == 2 %}b{% break %}{% endif %}Q",
                    "{% set v %}s{% continue %}{% endset %}Q", "{% filter upper %}f{% break %}{% endfilter %}Q",
                    "{% for z in [] %}{% else %}{{ messages[0].content }}{% continue %}{% endfor %}Q"]),
    "{% for x in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% endgeneration %}", "{% else %}",
    "{% for x in [1, 2] %}a{% if true %}b{% break %}{% endif %}c{% endfor %}", "{% for x in [1, 2] %}{% if x == 1 %}b{% continue %}{% endif %}c{% else %}d{% endfor %}",
    "{% for x in [1, 2] %}a{% set y %}b{% break %}{% endset %}{{ y }}{% endfor %}", "{% for x in 1 if true else 2 %}{% endfor %}", "{% if 1 if true else 0 %}a{% endif %}",
    "{% if false %}{{ 1 | no_filter }}{% endif %}a", "{{ 1 | no_filter if false }}a", "{% if true %}{{ ' a' | strip }}{% endif %}", "{{ [' a'] | map('strip') | list }}", "{% if false %}{% for x in [] %}{{ x | no_filter }}{% endfor %}{% endif %}a",
    "{% for x in [] %}{{ x is no_test }}{% endfor %}a", "{% if false %}{% set true = 1 %}{% endif %}a", "{% filter length %}abc{% endfilter %}", "{% filter upper %}abc{% endfilter %}",
    # what is called
    "{% macro m(a) %}{{ a }}{% endmacro %}{% call m(1) %}b{% endcall %}", "{% macro m(a) %}{{ a }}{{ caller() }}{% endmacro %}{% call m(1) %}b{% endcall %}",
    "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(x) m() %}{{ x }}{% endcall %}", "{% macro m() %}{% if caller %}c{% else %}n{% endif %}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
    "{% macro m(a=1, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(b=3) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(4) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(c=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(a, a) %}{% endmacro %}",
    "{{ tojson([1]) }}", "{{ test_is_defined(1) }}", "{{ 'a'.upper(1) }}", "{{ 'a' | upper(1) }}", "{{ 'a' | trim(foo=1) }}", "{{ 'aNone' | trim(none) }}", "{{ ' aNone'.strip(none) }}", "{{ 'a'.strip(chars='a') }}",
    "{{ 'aa'.replace('a', 'b', 0) }}", "{{ 'aaa'.replace('a', 'b', 2) }}", "{{ 'ab'.startswith('b', 1) }}", "{{ 1 is defined(2) }}", "{{ [1, 2, 3] | slice(0, 2, 1) }}", "{{ [] | default(default_value=1, boolean=true) }}",
    # variables
    "{% for x in [1, 2] %}{{ y }}{% set y = x %}{% endfor %}", "{% macro m() %}{{ x }}{% endmacro %}{% for x in [1, 2] %}{{ m() }}{% endfor %}",
    "{% set x = 'o' %}{% macro m() %}{{ x }}{% endmacro %}{% for x in ['i'] %}{{ m() }}{% endfor %}{% set x = 'p' %}{{ m() }}", "{% set x %}{% set y = 1 %}a{% endset %}{{ x }}{{ y }}",
    "{% filter upper %}{% set y = 1 %}a{% endfilter %}{{ y }}", "{% generation %}{% set y = 1 %}a{% endgeneration %}{{ y }}", "{% for x in [] %}{% else %}{% set y = 1 %}{% endfor %}{{ y }}",
    "{% for x in [1] %}{{ tools }}{% endfor %}{% set tools = 2 %}{{ tools }}", "{% set ns = namespace(a=1) %}{% set d = {'a': 1} %}{% set d.a = 2 %}{{ d }}", "{% set messages[0].role = 'x' %}",
    "{% set ns = namespace() %}{% for x in [1, 2] %}{% if loop.first %}{% set ns.l = loop %}{% endif %}{{ ns.l.index }}{% endfor %}", "{% set ns = namespace() %}{% set ns._a = 1 %}", "{{ namespace() == namespace() }}",
    "{% set range = nothing %}{{ range(3) }}", "{% set loop = 1 %}{% for x in [1] %}{{ loop.index }}{% endfor %}", "{% for k, v in {'ab': 1} %}{{ k }}{{ v }}{% endfor %}", "{% for k, v in {'a': 1} %}{% endfor %}", "{% set a, b = {'x': 1, 'y': 2} %}{{ a }}{{ b }}",
    "{% for x in namespace(a=1) %}{{ x }}{% endfor %}", "{% for x in [1, 2] if loop %}{{ x }}{% endfor %}a", "{% for x in ([1, 2] if y) %}{{ x }}{% else %}e{% endfor %}", "{{ self }}", "{{ loop.index if loop is defined }}",
    "{% for x in [1, 2] %}{{ loop.depth }}{% endfor %}", "{{ 'y' if namespace() else 'n' }}", "{{ namespace(a=1) is mapping }}", "{{ 'a' in namespace(a=1) }}", "{{ dict(namespace(a=1)) }}", "{{ [nothing] | tojson }}",
    # operators and values
    "{{ 1 + 2 ~ 'a' }}", "{{ 'a' ~ 1 + 2 }}", "{{ 'a' ~ 1 ~ 2 * 3 }}", "{{ (1, 2) + [3] }}", "{{ (1, 2) + (3, 4) }}", "{{ [[1]] == [[1]] }}", "{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}", "{{ {'a': [1]} != {'a': [1]} }}",
    "{{ 9007199254740993 < 9007199254740994 }}", "{{ 9007199254740993 / 1 }}", "{{ 9007199254740993 % 10 }}", "{{ -4.0 % 2 }}", "{{ 'abc'[2:-1:-1] }}", "{{ 'abc'[-9:9:2] }}", "{{ [1, 2, 3][:none:-2] }}", "{{ (3, 1, 2) | sort }}", "{{ (3, 1)[1:] }}",
    "{{ nothing[nothing] }}", "{{ 'a' is sameas 'a' }}", "{{ range(3) == range(3) }}", "{{ {} in {'a': 1}.keys() }}", "{{ 'a' in {'a': 1}.keys() }}", "{{ [1][] }}", "{{ [1 2] }}", "{{ 007 }}", "{{ 1 is (defined) }}", "{{ 'a' | (upper) }}", "{{ {true: 1, none: 2, 1.5: 3} | tojson }}", "{{ [1] | tojson(indent=true) }}",
    "{{ [1] | tojson(indent='  ') }}", "{{ [1] | tojson(indent=-1) }}", "{{ [1] | tojson(indent=0) }}", "{{ '\\u007f' | tojson(ensure_ascii=true) }}", "{{ '<' | safe + '>' }}", "{{ '<' | safe ~ '>' }}", "{{ ['<' | safe] }}", "{{ {'copy': 1}.copy }}", "{{ {'items': 1}['items'] }}",
    "{{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }}", "{{ [[1, 2]] | map(attribute=1) | list }}", "{{ [{}, {'k': 1}] | map(attribute='k', default=5) | list }}", "{{ ['a', 'b'] | map('replace', 'a', 'c') | list }}", "{{ [1, 2, 3] | select('gt', 1) | list }}",
    "{{ [{'k': 1}] | selectattr('k', '==', 1) | list }}", "{{ {'a': 1} | dictsort(by='other') }}", "{{ {'b': 1, 'a': 2} | dictsort(false, 'value', true) }}", "{{ ['b', none] | join('-') }}", "{{ [nothing, 'a'] | join('-') }}", "{{ strftime_now('%Z') }}",
    # white space around tags
    "a{% if true %}b{% endif %}", "a {%- if true %}b{% endif %}", " {% if true %}\n b\n {% endif %}\n c", "\u00a0{% if true %}b{% endif %}", "a\n\u00a0{%- if true -%}\u00a0b{% endif %}", "{{ 'a' -}}\u2003\n b", "a{#- c -#} b", "{#-#} a", "{#+ c #}\n a",
    "{%+ if true %}a{% endif %}", "a\r\n{% if true %}\r\nb{% endif %}\r\n", "a\r", "a\n\n", "{{ 'a\r\nb' }}", "{{--1}}", "{{- -1 }}", "  {{ 1 }}\n  {% if true %} {{ 2 }}\n{% endif %}",
    # who wrote what
    *("{%% set c = messages[0].content %%}{{ %s }}" % text for text in [
        "c.replace('щ', 'a')", "c.replace('щи', 'abc', 1)", "c | replace(' ', bos_token)", "'a-b'.replace('-', c)", "(c ~ bos_token).replace('щ', 'x')", "('ab' ~ c).split('b')[0]", "('a b' ~ c).split()", "(c ~ 'a b').rsplit(' ', 1)",
        "('  a' ~ c ~ 'b ').strip()", "('a' ~ c)[0] ~ ('a' ~ c)[1]", "('ab' ~ c)[:4]", "('ab' ~ c)[::-1]", "'{}-{}'.format('a', c)", "'%s-%s' | format(c, 'a')", "[c, 'a'] | join('-')", "['a', 'b'] | join(c)", "'-'.join([c, 'a'])",
        "(c ~ 'ab') | upper", "('ab ' ~ c) | title", "('a' ~ c).capitalize()", "[c, 'a']", "{'a': c}", "{c: 'a'}", "{'a': c} | tojson", "[bos_token, c] | tojson(indent=2)", "messages", "messages | tojson", "('a' ~ '\\n' ~ c) | indent", "c | indent(bos_token, true)",
        "(c ~ 'a') * 2", "c | trim('щ') ~ 'a'", "('a' ~ c) | string", "[c ~ 'a', 'b'] | map('upper') | join(',')", "('a,' ~ c).split(',') | sort | first", "c or 'a'", "'a' if c else 'b'", "c | default('a')", "dict(a=c).a ~ 'b'", "(c ~ 'x') | safe"]),
    "{% set x %}a{{ messages[0].content }}b{% endset %}{{ x[0] }}{{ x[1] }}{{ x | upper }}", "{% macro m(a) %}a{{ a }}b{% endmacro %}{{ m(messages[0].content) }}", "{% filter replace('a', 'b') %}a{{ messages[0].content }}{% endfilter %}",
]


class Draw:
    """Programs that mostly mean something: each method draws a piece of at most some depth."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def one(self, *pieces):
        return self.random.choice(pieces)

    def within(self, text):
        return text if text.replace("_", "").isalnum() else "(" + text + ")"

    def text(self, depth):
        leaf = self.one("'ab Cd'", "''", "'it\\'s'", "' x '", "'a-b (c)'", "'b\\n\\n a '", "c", "c", "c", "bos_token", "s")
        if depth <= 0 or self.random.random() < 0.2:
            return leaf
        inner, other = self.within(self.text(depth - 1)), self.within(self.value(depth - 1))
        return self.one(
            inner + " | " + self.one("upper", "lower", "trim", "title", "capitalize", "replace('a', 'x')", "replace('щ', s)", "indent(2, true)",
                                     "default('q', true)", "tojson", "trim('ab')", "format", "safe", "indent(width='> ')"),
            other + " | " + self.one("string", "tojson", "upper", "trim", "replace(1, 2)", "default('x')", "tojson(indent=2)"),
            inner + self.one(".strip()", ".lstrip('ащ')", ".replace('a', 'b')", ".replace('щ', '', 1)", ".split()[0]", ".split('щ') | join('a')",
                             ".rsplit('а', 1)[0]", ".title()", ".split(',')[-1]", "[0]", "[1:]", "[::-1]", "[-3:]", "[1:4:2]", "[5:1:-2]", "[i:]"),
            inner + self.one(" ~ ", " + ") + self.within(self.text(depth - 1)), other + " ~ " + inner, inner + " * i",
            "'{} {}'.format(%s, %s)" % (inner, other), "'%%s!' | format(%s)" % other, "%s | join(%s)" % (self.within(self.items(depth - 1)), self.one("", "', '", "c")),
            "%s if %s else %s" % (inner, self.within(self.truth(depth - 1)), inner), "m(%s%s)" % (other, self.one("", ", 1", ", b=" + other)))

    def items(self, depth):
        leaf = self.one("[]", "[3, 1, 2]", "['b', 'A', 'c']", "[1, 'x', none, 2.0, true]", "[{'k': 'b'}, {'k': 'A'}, {}]", "[{'a': {'b': 2}}, {'a': {'b': 1}}]",
                        "(1, 2)", "range(3)", "messages", "l", "l", "c.split(' ')", "d.keys()", "d.items()", "none", "nothing")
        if depth <= 0 or self.random.random() < 0.2:
            return leaf
        inner = self.within(self.items(depth - 1))
        return self.one(
            "[%s, %s]" % (self.value(depth - 1), self.value(depth - 1)), "(%s, %s)" % (self.value(depth - 1), self.value(depth - 1)),
            inner + " | " + self.one("list", "reverse | list", "sort", "sort(true)", "sort(attribute='k')", "map('upper') | list", "map(attribute='k') | list",
                                     "map(attribute='a.b', default='q') | list", "select | list", "select('odd') | list", "reject('none') | list", "select('string') | list",
                                     "selectattr('k', 'defined') | list", "selectattr('k', 'equalto', 'b') | list", "rejectattr('k', 'in', [1]) | list", "map('string') | list"),
            inner + self.one("[1:]", "[::-1]", "[:1]", "[:-1]"), inner + " + " + self.within(self.items(depth - 1)), "d | dictsort", "d | items | list", "{'k': %s} | list" % inner)

    def number(self, depth):
        if depth <= 0:
            return self.one("0", "1", "3", "-7", "i", "2.5", "-0.5", "loop.index", "l | length", "c | length")
        one, other = self.within(self.number(depth - 1)), self.within(self.number(depth - 1))
        return self.one(one + self.one(" + ", " - ", " * ", " / ", " % ") + other, "-" + one, one + " | " + self.one("abs", "int", "float"),
                        self.within(self.items(depth - 1)) + " | " + self.one("length", "max", "first"), self.within(self.text(depth - 1)) + " | " + self.one("length", "int", "float"))

    def truth(self, depth):
        one, other = self.within(self.value(depth - 1)), self.within(self.value(depth - 1))
        return self.one(
            "true", "loop.first", "not " + one, one + self.one(" == ", " != ", " and ", " or ") + other, self.within(self.number(0)) + self.one(" < ", " >= ") + self.within(self.number(0)),
            one + self.one(" in ", " not in ") + self.within(self.items(depth - 1)), "'щ' in c", "s.startswith('a')",
            one + self.one(" is ", " is not ") + self.one("defined", "none", "string", "number", "integer", "mapping", "sequence", "iterable", "true", "callable", "odd", "upper", "eq 1", "in [1, 'a']"))

    def value(self, depth):
        if depth <= 0:
            return self.one("none", "nothing", "ns.a", "ns.b", "loop.previtem", "caller", "d.k", "l[0]", "w", self.text(0), self.items(0), self.number(0))
        return self.one(self.text, self.text, self.text, self.items, self.number, self.truth,
                        lambda depth: "{%s: %s}" % (self.one("'k'", "1", "c"), self.value(depth - 1)),
                        lambda depth: self.within(self.value(depth - 1)) + self.one(" | default('q')", " | default(1, true)", " or 'e'"),
                        lambda depth: "d" + self.one(".k", "['a']", ".get('k')", ".get('q', 1)", "[c]"))(depth)

    def tag(self, text):
        return self.one("{%", "{%", "{%-") + " " + text + " " + self.one("%}", "%}", "-%}")

    def statement(self, depth, in_loop):
        body = lambda loop: self.block(depth - 1, loop)
        if depth <= 0 or self.random.random() < 0.4:
            return self.one("{{ ", "{{ ", "{{- ") + self.value(self.one(1, 2, 2)) + self.one(" }}", " }}", " -}}")
        name = self.one("w", "s", "i", "ns.a", "ns.b", "w, s")
        kinds = [
            lambda: self.tag("set %s = %s" % (name, self.value(1))), lambda: self.tag("set w") + body(in_loop) + self.tag("endset"),
            lambda: self.tag("if " + self.truth(1)) + body(in_loop) + self.one("", self.tag("else") + body(in_loop)) + self.tag("endif"),
            lambda: self.tag("for %s in %s%s" % (self.one("x", "s", "w"), self.within(self.items(0)), self.one("", "", " if " + self.truth(1)))) + body(True)
            + self.one("", self.tag("else") + body(in_loop)) + self.tag("endfor"),
            lambda: self.tag("for s, w in d.items()") + body(True) + self.tag("endfor"),
            lambda: self.tag("macro m(%s)" % self.one("", "a", "a, b=2", "a=1, b=a", "x, s=w")) + body(False) + self.one("", "{{ a }}", "{{ caller() }}", "{{ b }}{{ x }}") + self.tag("endmacro"),
            lambda: self.tag("call m(%s)" % self.one("", self.value(0))) + body(False) + self.tag("endcall"),
            lambda: self.tag("filter " + self.one("upper", "trim", "indent(2)", "tojson")) + body(in_loop) + self.tag("endfilter"),
            lambda: self.tag("generation") + body(False) + self.tag("endgeneration")]
        if in_loop:
            kinds.append(lambda: self.tag("if " + self.truth(0)) + "a" + self.tag(self.one("break", "continue")) + self.tag("endif"))
        return self.one(*kinds)()

    def block(self, depth, in_loop):
        space = lambda: self.one("", "", "", "\n", " ", "  \n  ", "a\n", "\n\n", "x ")
        return space() + "".join(self.statement(depth, in_loop) + space() for _ in range(self.one(1, 2, 2)))

    def program(self):
        begin = ("{% set c = messages[0].content %}{% set ns = namespace(a=1, b='x') %}{% set l = " + self.items(1) + " %}{% set d = {'k': "
                 + self.value(0) + ", 'a': 'b'} %}{% set s = " + self.text(0) + " %}{% set i = 2 %}{% macro m(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}")
        return begin + (self.block(2, False) if self.random.random() < 0.6 else "{{ " + self.value(3) + " }}")


def render(environment, template):
    """A text; None: refused. What shows an address is no text."""
    messages = [{"role": MESSAGE[0], "content": MESSAGE[1]}]
    try:
        text = environment.from_string(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    except Exception:  # a program of the reference, of whatever kind
        return None
    return None if " at 0x" in text else text


class Namespace(jinja2.utils.Namespace):
    """As transformers has it: without names that begin with _."""

    def __setitem__(self, name, value):
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)
        super().__setitem__(name, value)


def main():
    environment = make_environment()
    environment.globals["namespace"] = Namespace
    drawn, seed = [], 0
    while len(drawn) < DRAWN:  # of those that the reference refuses, every eighth
        template = Draw(seed).program()
        if seed % 8 == 0 or render(environment, template) is not None:
            drawn.append(template)
        seed += 1
    rows = [[template, render(environment, template)] for template in dict.fromkeys(WRITTEN + drawn)]
    print(json.dumps(MESSAGE, ensure_ascii=False).join(['{"message": ', ', "rows": [']))
    print(",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]}")
    print(len(rows), sum(text is None for _, text in rows), file=sys.stderr)


main()
