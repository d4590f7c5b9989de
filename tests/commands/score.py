#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `mpo score` says of given responses: exact sums, on any number of ranks.

    score.py MPO MPIRUN WORK [BIGRAM_GGUF_TOOL]

Truth is the bigram tables themselves: log pi(y|x) is a sum of table entries, and log Z and
the mixture follow from them position by position. With the tool the same holds through
libllama, to the accuracy of its floats.
"""

import json
import os
import shutil
import sys

import numpy as np

import tables
from gguf_file import Gguf, U32

VOCAB = 6
END = VOCAB - 1
START = {"a": 0, "b": 1}
WEIGHTS = np.array([0.5, 0.2, 0.3])
FLAG = "--weights=0.5,0.2,0.3"
TABLE_BOUND = 1e-10
EXACT_BOUND = 1e-12
# Of the engine: 1e-5 a token at most, whatever the order of its sums.
ENGINE_BOUND = 1e-4

BYTES = 260
BYTES_END = 2
LETTERS = "abcde"


class Case:
    """Policies in a folder, and the ways to run mpo on them."""

    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work, self.tool = mpo, mpirun, work, tool
        self.table = tables.random_tables(11, 4, VOCAB, 1.0)
        self.log_policy = tables.log_policies(self.table)
        options = {"rollout": {"max_tokens": 9}, "record": {"hash_models": "true"},
                   "descent": {"steps": 3}}
        self.config = tables.write_config(
            os.path.join(work, "tables"), self.table[:3], list(START), options)
        self.with_reference = tables.write_config(
            os.path.join(work, "reference"), self.table, list(START), options,
            roles=["objective"] * 3 + ["reference"])

    def write(self, name, lines):
        path = os.path.join(self.work, name)
        with open(path, "w", encoding="utf-8") as stream:
            for line in lines:
                stream.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        return path

    def score(self, config, path, *flags, ranks=1):
        out, _ = tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "score", config, "--input=" + path, FLAG, *flags])
        return out

    def refused(self, code, named, path, *flags, ranks=1):
        _, said = tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "score", self.config, "--input=" + path, *flags], expect=code)
        for text in named:
            tables.check(text in said, "expected '%s' in: %s" % (text, said))


def read(out):
    return [json.loads(line) for line in out.splitlines()]


def tokens_of(text, ended=True):
    names = tables.token_names(VOCAB)
    tokens = [names.index(name) for name in text.split()]
    return np.array(tokens + [END] if ended else tokens)


def truth(log_policy, start, tokens):
    """(log pi_k, log q, log Z), sums over the tokens."""
    states = np.concatenate(([start], tokens[:-1])).astype(int)
    rows = np.tensordot(WEIGHTS, log_policy[:3][:, states], 1)
    top = rows.max(axis=1)
    log_z = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    each = log_policy[:, states, tokens].sum(axis=1)
    mixture = (rows[np.arange(len(tokens)), tokens] - log_z).sum()
    return each, mixture, log_z.sum()


def check_line(line, expected, bound):
    each, mixture, log_z = expected
    off = max(abs(mixture - line["log_mixture"]), abs(log_z - line["log_z"]),
              np.abs(np.array(list(line["log_policy"].values())) - each).max())
    tables.check(off <= bound, "off by %g: %s" % (off, line))


def long_text(seed, count, letters):
    generator = np.random.Generator(np.random.Philox(seed))
    return [letters[i] for i in generator.integers(0, len(letters), count)]


RESPONSES = [{"prompt": "a", "response": "c"}, {"prompt": "b", "response": ""},
             {"prompt": "a", "response": "b c d e", "ended": False},
             {"messages": [{"role": "user", "content": "d"},
                           {"role": "assistant", "content": "b"}], "response": "e e"},
             {"prompt": "c", "prefill": "a", "response": "b", "ended": True, "more": [1]}]
# Lengths at and around the 64 positions that are decoded at once.
RESPONSES += [{"prompt": "ab"[n % 2], "response": " ".join(long_text(n, n, LETTERS))}
              for n in (63, 64, 65, 128, 300)]
STARTS = [0, 1, 0, 1, 0] + [n % 2 for n in (63, 64, 65, 128, 300)]


def sums_are_those_of_the_tables(case):
    lines = read(case.score(case.config, case.write("in.jsonl", RESPONSES)))
    tables.check(len(lines) == len(RESPONSES), "%d lines" % len(lines))
    for line, given, start in zip(lines, RESPONSES, STARTS):
        tokens = tokens_of(given["response"], given.get("ended", True))
        tables.check(line["tokens"] == len(tokens), "tokens: %s" % line)
        check_line(line, truth(case.log_policy[:3], start, tokens), TABLE_BOUND)


def flag_says_that_lines_hold_cut_responses(case):
    path = case.write("cut.jsonl", [RESPONSES[0], RESPONSES[4]])
    cut, whole = read(case.score(case.config, path, "--ended=false"))
    check_line(cut, truth(case.log_policy[:3], 0, tokens_of("c", False)), TABLE_BOUND)
    check_line(whole, truth(case.log_policy[:3], 0, tokens_of("b")), TABLE_BOUND)


def scores_of_generated_responses_are_those_of_generate(case):
    out, _ = tables.run([case.mpo, "generate", case.config, FLAG, "--format=jsonl",
                         "--n=40", "--run.seed=2"])
    made = read(out)
    tables.check(not all(line["ended"] for line in made), "no response was cut")
    given = read(case.score(case.config, case.write("made.jsonl", out.splitlines())))
    for one, other in zip(made, given, strict=True):
        off = max([abs(one["log_mixture"] - other["log_mixture"])] + [
            abs(one["log_policy"][name] - other["log_policy"][name])
            for name in one["log_policy"]])
        tables.check(off <= TABLE_BOUND and one["tokens"] == other["tokens"],
                     "off by %g: %s" % (off, other))


def same_scores(made, scored, bound):
    """Each line of score says what generate said when it drew the response."""
    for one, other in zip(made, scored, strict=True):
        off = max([abs(one["log_mixture"] - other["log_mixture"])] + [
            abs(one["log_policy"][name] - other["log_policy"][name])
            for name in one["log_policy"]])
        tables.check(off <= bound, "off by %g: %s" % (off, other))
        tables.check(one["tokens"] == other["tokens"] and one["ended"] == other["ended"]
                     and one["response"] == other.get("response", one["response"]),
                     "another response: %s" % other)


CONVERSATIONS = [[("system", "c d"), ("user", "a")],
                 [("user", "a"), ("assistant", "c"), ("user", "b"), ("assistant", "d e")]]


def drawn_tokens_score_as_they_were_drawn(case):
    talks = case.write("talks.jsonl", [{"messages": [
        {"role": role, "content": text} for role, text in talk]} for talk in CONVERSATIONS])
    for flags in (["--n=40"], ["--n=20", "--best-of=3"], ["--n=40", "--stop=c d"],
                  ["--n=40", "--temperature=0.5"], ["--n=40", "--prompts.file=" + talks]):
        out, _ = tables.run([case.mpo, "generate", case.config, FLAG, "--format=jsonl",
                             "--run.seed=2", *flags])
        made = read(out)
        for line in made:
            ids = line["token_ids"]
            tables.check(len(ids) == line["tokens"] and (ids[-1] == END) == line["ended"],
                         "token ids: %s" % line)
        if "--stop=c d" in flags:
            stopped = [line for line in made if line["finish"] == "stop"]
            tables.check(len(stopped) > 2, "nothing stopped")
        path = case.write("drawn.jsonl", out.splitlines())
        expected = case.score(case.config, path)
        same_scores(made, read(expected), EXACT_BOUND)
        tables.check(case.score(case.config, path, ranks=3) == expected, "3 ranks differ")
        for line in made:
            del line["response"], line["ended"]
        bare = read(case.score(case.config, case.write("bare.jsonl", made)))
        for one, other in zip(bare, read(expected), strict=True):
            del other["response"]
            tables.check(one == other, "without a text: %s and %s" % (one, other))


def pairs_take_tokens_in_place_of_texts(case):
    names = tables.token_names(VOCAB)
    texts, ids = [], []
    for prompt, chosen, rejected in (("a", "b c", "c"), ("b", "", "e e a"), ("a", "d", "d")):
        texts.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        ids.append({"prompt": prompt, "chosen_token_ids": tokens_of(chosen).tolist(),
                    "rejected": rejected,
                    "rejected_token_ids": tokens_of(rejected).tolist()})
    by_text = case.score(case.with_reference, case.write("texts.jsonl", texts), "--pairs")
    by_ids = case.score(case.with_reference, case.write("ids.jsonl", ids), "--pairs")
    tables.check(by_text == by_ids, "other scores: %s" % by_ids)
    ids[1]["rejected_token_ids"].pop()
    ids[1]["rejected"] = "e e a"
    cut = read(case.score(case.with_reference, case.write("ids.jsonl", ids), "--pairs"))[1]
    tables.check(cut["rejected"]["tokens"] == 3 and cut["chosen"]["tokens"] == 1
                 and names[END] == "</s>", "a cut one: %s" % cut)


def bad_token_ids_are_named(case):
    good = {"prompt": "a", "token_ids": [2, 5]}
    for ranks in (1, 3):
        for bad, named in (
                ({"token_ids": []}, ['"token_ids"', "an empty one"]),
                ({"token_ids": 3}, ['"token_ids"', "a number"]),
                ({"token_ids": None}, ['"token_ids"', "null"]),
                ({"token_ids": [2, "5"]}, ["token_ids[1]", "a string"]),
                ({"token_ids": [2.0]}, ["token_ids[0]", "a fraction"]),
                ({"token_ids": [-1]}, ["token_ids[0]", "found -1"]),
                ({"token_ids": [2 ** 31]}, ["token_ids[0]", "2147483648"]),
                ({"token_ids": [2, 6]}, ["token id 2", "is 6", "0 to 5"]),
                ({"token_ids": [2, 5, 5]}, ["token id 2", "end token", "last of the 3"]),
                ({"token_ids": [2], "ended": True}, ['"ended": true', "no end token"]),
                ({"token_ids": [2, 5], "ended": False}, ['"ended": false', "an end token"]),
                ({"token_ids": [2, 5], "response": "d"}, ["'d'", "'c'"]),
                ({"token_ids": [2, 3], "response": "c"}, ["'c'", "'c d'"]),
                ({"token_ids": [2, 3], "response": "d", "finish": "stop"}, ["'d'", "'c d'"]),
                ({"token_ids": [2, 5], "response": 1}, ['"response"', "a number"])):
            path = case.write("bad.jsonl", [good, {"prompt": "a", **bad}])
            case.refused(65, ["bad.jsonl:2:"] + named, path, ranks=ranks)
    both = {"messages": [{"role": "user", "content": "a"}], "token_ids": [2, 5]}
    for more, named in (({"prompt": "b"}, ["both"]), ({"prefill": "b"}, ["prefill"])):
        case.refused(65, ["one.jsonl:1:"] + named, case.write("one.jsonl", [{**both, **more}]))
    case.score(case.config, case.write("one.jsonl", [{**both, "prompt": "a", "prefill": ""}]))


def any_number_of_ranks_gives_the_same_bytes(case):
    path = case.write("ranks.jsonl", RESPONSES * 15)
    expected = case.score(case.config, path)
    for ranks in (2, 3, 6):
        tables.check(case.score(case.config, path, ranks=ranks) == expected,
                     "%d ranks score otherwise" % ranks)


def pairs_count_who_prefers_the_chosen_one(case):
    generator = np.random.Generator(np.random.Philox(8))
    pairs = []
    for i in range(50):
        first, second = ["".join(generator.choice(list(LETTERS), generator.integers(0, 5)))
                         for _ in range(2)]
        pairs.append({"prompt": "ab"[i % 2], "chosen": " ".join(first),
                      "rejected": " ".join(second)})
    path = case.write("pairs.jsonl", pairs)
    lines = read(case.score(case.with_reference, path, "--pairs"))
    margins = []
    for line, pair in zip(lines[:-1], pairs, strict=True):
        rows = []
        for name in ("chosen", "rejected"):
            each, mixture, log_z = truth(case.log_policy, START[pair["prompt"]],
                                         tokens_of(pair[name]))
            check_line(line[name], (each, mixture, log_z), TABLE_BOUND)
            reward = line[name]["reward"]["policy1"]
            tables.check(abs(reward - each[1] + each[3]) <= TABLE_BOUND, "reward: %s" % line)
            rows.append(np.append(each, [mixture, mixture + log_z]))
        margins.append(rows[0] - rows[1])
    margins = np.array(margins)
    summary = lines[-1]["summary"]
    for key, values in (("accuracy", margins),
                        ("reward_accuracy", margins - margins[:, 3:4])):
        found = summary[key]
        found = [*found["policy"].values(), found["mixture"], found["sequence_mixture"]]
        expected = (values > 0).mean(axis=0)
        expected = expected if key == "accuracy" else np.delete(expected, 3)
        tables.check(np.array_equal(found, expected), "%s: %s" % (key, summary))


def weights_come_from_a_record_of_the_same_models(case):
    record = os.path.join(case.work, "run.h5")
    path = case.write("one.jsonl", [RESPONSES[0]])
    tables.run([case.mpo, "fit", case.config, "--record.file=" + record, "--quiet"])
    last, average, first = [
        read(tables.run([case.mpo, "score", case.config, "--input=" + path,
                         "--weights=" + record, *flags])[0])[0]["log_mixture"]
        for flags in ([], ["--iterate=last"], ["--step=0"])]
    uniform = read(tables.run([case.mpo, "score", case.config, "--input=" + path])[0])
    tables.check(len({last, average, first}) == 3, "iterate or step makes no difference")
    tables.check(first == uniform[0]["log_mixture"], "step 0 is not uniform")
    case.refused(64, ["0 to 2", "found 7"], path, "--weights=" + record, "--step=7")
    other = os.path.join(case.work, "other.table")
    tables.write_table(other, case.table[3])
    changed = "--policies.policy1.model=" + other
    for ranks in (1, 3):
        case.refused(65, ["policy1", "SHA-256"], path, "--weights=" + record, changed,
                     ranks=ranks)
    tables.run([case.mpo, "score", case.config, "--input=" + path, "--weights=" + record,
                changed, "--record.hash_models=false"])


def bad_lines_are_named(case):
    good = RESPONSES[0]
    for ranks in (1, 3):
        for bad, named in (("{", ["expected a JSON object"]),
                           ({"prompt": "a"}, ['"response"', "nothing"]),
                           ({"prompt": "a", "response": 3}, ['"response"', "a number"]),
                           ({"prompt": "a", "response": "c z"}, ["'z'"]),
                           ({"prompt": "a", "response": "</s>"}, ["end token"]),
                           ({"prompt": "z", "response": "c"}, ["'z'"]),
                           ({"prompt": "a", "response": "c", "ended": 1}, ['"ended"']),
                           ({"prompt": "a", "response": "", "ended": False}, ["none"]),
                           ({"response": "c"}, ['"prompt"'])):
            path = case.write("bad.jsonl", [good, "", bad])
            case.refused(65, ["bad.jsonl:3:"] + named, path, ranks=ranks)
    case.refused(65, ['"chosen"', ":1:"], case.write("one.jsonl", [good]),
                 "--pairs")
    case.refused(66, ["none.jsonl"], os.path.join(case.work, "none.jsonl"))
    tables.run([case.mpo, "score", case.config], expect=64)


def engine_gives_the_sums_of_its_table(case):
    generator = np.random.Generator(np.random.Philox(4))
    likely = [3 + ord(letter) for letter in LETTERS] + [BYTES_END]
    logits = np.full((3, BYTES, BYTES), -9.0)
    logits[:, :, likely] = generator.standard_normal((3, BYTES, len(likely)))
    logits = logits.astype(np.float32)
    log_policy = tables.log_softmax(logits.astype(np.float64))
    folder = os.path.join(case.work, "gguf")
    os.makedirs(folder)
    config = ["prompts: {file: prompts.txt}", "rollout: {max_tokens: 12}", "policies:"]
    for k in range(3):
        raw = os.path.join(folder, "p%d.f32" % k)
        logits[k].tofile(raw)
        tables.run([case.tool, os.path.join(folder, "p%d.gguf" % k), raw])
        config.append("  - {name: p%d, model: p%d.gguf, template: raw}" % (k, k))
    config = case.write("gguf/config.yaml", config)
    case.write("gguf/prompts.txt", ["a", "b"])
    given = [{"prompt": "a", "response": "b"}, {"prompt": "b", "response": ""},
             {"prompt": "cb", "response": "".join(long_text(1, 12, LETTERS))},
             {"prompt": "a", "response": "".join(long_text(3, 65, LETTERS))},
             {"prompt": "b", "response": "".join(long_text(2, 200, LETTERS))}]
    path = case.write("gguf/in.jsonl", given)
    expected = case.score(config, path)
    for line, one in zip(read(expected), given, strict=True):
        tokens = np.array([3 + ord(letter) for letter in one["response"]] + [BYTES_END])
        start = 3 + ord(one["prompt"][-1])
        check_line(line, truth(log_policy, start, tokens),
                   ENGINE_BOUND * max(1, len(tokens) / 12))
    for ranks in (2, 3):
        tables.check(case.score(config, path, ranks=ranks) == expected,
                     "%d ranks score otherwise" % ranks)
    out, _ = tables.run([case.mpo, "generate", config, FLAG, "--format=jsonl", "--n=30"])
    # Improbable bytes that are no letters need not come back as the tokens they were.
    made = [line for line in read(out) if set(line["response"]) <= set(LETTERS)]
    tables.check(len(made) > 40, "only %d responses of letters" % len(made))
    scored = read(case.score(config, case.write("gguf/made.jsonl", made)))
    for one, other in zip(made, scored, strict=True):
        off = max([abs(one["log_mixture"] - other["log_mixture"])] + [
            abs(one["log_policy"][name] - other["log_policy"][name])
            for name in one["log_policy"]])
        tables.check(off <= ENGINE_BOUND and one["tokens"] == other["tokens"],
                     "off by %g: %s" % (off, other))


def one_model(case, folder, *space):
    """A configuration with one model. @return (it, log pi)"""
    logits = np.random.Generator(np.random.Philox(7)).standard_normal((1, BYTES, BYTES))
    logits = logits.astype(np.float32)
    os.makedirs(os.path.join(case.work, folder))
    names = [os.path.join(case.work, folder, name) for name in ("p.gguf", "p.f32")]
    logits[0].tofile(names[1])
    tables.run([case.tool, *names, *space])
    case.write(folder + "/prompts.txt", ["a"])
    config = case.write(folder + "/config.yaml", [
        "prompts: {file: prompts.txt}",
        "policies: [{name: p, model: p.gguf, template: raw}]"])
    return config, tables.log_softmax(logits.astype(np.float64))


def text_may_make_more_tokens_than_it_has_bytes(case):
    """A space is a letter of three bytes, which this vocabulary has to spell."""
    config, log_policy = one_model(case, "spaces", "zz")
    texts = ["b c", " b", "  ", 40 * " ", "b" + 150 * " "]
    path = case.write("spaces/in.jsonl", [{"prompt": "a", "response": text} for text in texts])
    out, _ = tables.run([case.mpo, "score", config, "--weights=1", "--input=" + path])
    lines = read(out)
    tables.check(len(lines) == len(texts), "%d lines" % len(lines))
    for line, text in zip(lines, texts):
        spelled = text.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}").encode("utf-8")
        tokens = np.array([3 + byte for byte in spelled] + [BYTES_END])
        states = np.concatenate(([3 + ord("a")], tokens[:-1]))
        off = abs(line["log_mixture"] - log_policy[0][states, tokens].sum())
        tables.check(line["tokens"] == len(tokens) > len(text) + 1, "tokens: %s" % line)
        tables.check(off <= ENGINE_BOUND * max(1, len(tokens) / 12), "off by %g" % off)


def what_is_too_long_is_what_has_to_be_shorter(case):
    config, _ = one_model(case, "long")
    model = os.path.join(case.work, "long/p.gguf")
    file = Gguf.read(model)
    file.keys["llama.context_length"] = (U32, 64)
    file.write(model)
    for prompt, response, advice in (("a", 80 * "b", "shorten the response"),
                                     (60 * "a", 4 * "b", "shorten the prompt"),
                                     (40 * "a", 30 * "b", "shorten the prompt"),
                                     (30 * "a", 40 * "b", "shorten the response"),
                                     (30 * "a", 33 * "b", None)):
        path = case.write("long/in.jsonl", [{"prompt": "a", "response": "b"},
                                            {"prompt": prompt, "response": response}])
        _, said = tables.run([case.mpo, "score", config, "--weights=1", "--input=" + path],
                             expect=0 if advice is None else 65)
        tables.check(advice is None or ("in.jsonl:2:" in said and advice in said
                                        and said.count("shorten") == 1), said)


def drawn_tokens_score_as_drawn_through_the_engine(case):
    """Tokens that no text becomes, and the end token of either policy."""
    generator = np.random.Generator(np.random.Philox(9))
    ends = [BYTES, BYTES + 1]
    logits = np.full((2, BYTES + 2, BYTES + 2), -3.0)
    logits[:, :, 3:BYTES] += generator.standard_normal((2, BYTES + 2, BYTES - 3))
    for k in range(2):
        logits[k, :, ends] = [[-0.5 + k], [0.5 - k]]
    folder = os.path.join(case.work, "ends")
    os.makedirs(folder)
    config = ["prompts: {file: prompts.txt, prefill: 'x{prompt}'}",
              "rollout: {max_tokens: 12}", "policies:"]
    for k in range(2):
        raw = os.path.join(folder, "p%d.f32" % k)
        logits[k].astype(np.float32).tofile(raw)
        tables.run([case.tool, "--end", os.path.join(folder, "p%d.gguf" % k), raw,
                    str(ends[k])])
        config.append("  - {name: p%d, model: p%d.gguf, template: raw}" % (k, k))
    config_lines = config
    config = case.write("ends/config.yaml", config_lines)
    case.write("ends/prompts.txt", ["a", "b"])
    for flags in ([], ["--best-of=3"], ["--stop=%s" % json.dumps([chr(65 + i)
                                                                  for i in range(16)])]):
        out, _ = tables.run([case.mpo, "generate", config, "--weights=0.6,0.4",
                             "--format=jsonl", "--n=50", *flags])
        made = read(out)
        last = {line["token_ids"][-1] for line in made if line["ended"]}
        tables.check(last >= set(ends) and not all(line["ended"] for line in made),
                     "responses end with %s" % last)
        path = case.write("ends/made.jsonl", out.splitlines())
        expected, _ = tables.run([case.mpo, "score", config, "--weights=0.6,0.4",
                                  "--input=" + path])
        same_scores(made, read(expected), ENGINE_BOUND)
    np.zeros((BYTES, BYTES), np.float32).tofile(os.path.join(folder, "flat.f32"))
    tables.run([case.tool, "--padded", os.path.join(folder, "p0.gguf"),
                os.path.join(folder, "flat.f32"), "2"])
    masked = case.write("ends/masked.jsonl", [{"prompt": "a", "token_ids": [70, BYTES]}])
    config = case.write("ends/one.yaml", config_lines[:4])
    _, said = tables.run([case.mpo, "score", config, "--input=" + masked], expect=65)
    tables.check("masked.jsonl:1:" in said and "never generate" in said, said)


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    mpo, mpirun, work = (os.path.abspath(path) for path in sys.argv[1:4])
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    case = Case(mpo, mpirun, work, sys.argv[4] if len(sys.argv) == 5 else None)
    cases = [sums_are_those_of_the_tables,
             flag_says_that_lines_hold_cut_responses,
             scores_of_generated_responses_are_those_of_generate,
             drawn_tokens_score_as_they_were_drawn,
             pairs_take_tokens_in_place_of_texts,
             bad_token_ids_are_named,
             any_number_of_ranks_gives_the_same_bytes,
             pairs_count_who_prefers_the_chosen_one,
             weights_come_from_a_record_of_the_same_models,
             bad_lines_are_named]
    if case.tool is not None:
        cases += [engine_gives_the_sums_of_its_table,
                  text_may_make_more_tokens_than_it_has_bytes,
                  what_is_too_long_is_what_has_to_be_shorter,
                  drawn_tokens_score_as_drawn_through_the_engine]
    sys.exit(tables.run_cases([(run, [case]) for run in cases]))


if __name__ == "__main__":
    main()
