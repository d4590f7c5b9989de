// SPDX-License-Identifier: Apache-2.0
/**
 * What the policies say of the tokens of a response.
 *
 *     advantage of policy k    log pi_k(v) - sum_j l_j log pi_j(v)      nat
 *     disagreement             -log Z                                   nat, at least 0 without a tilt
 *
 * A token has the colour of the policy with the largest advantage, as strong as it is large,
 * and a line below where policies disagree. The reference has no colour: it has no weight.
 */

const ADVANTAGE_FULL = 3; // nat, of the strongest colour
const LINES = [0.1, 0.5, 1.5]; // nat of disagreement, from which a line is so many pixels thick
const TOP_SHOWN = 5;

/** An element with a class, a text and children; text is never markup. */
export function make(tag, className = "", text = "", children = []) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

function makeSvg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The class of a policy's colour: p0, p1, ... of objectives, pr of the reference. */
export function colour(policies, name) {
  const policy = policies.find((p) => p.name === name);
  if (!policy) return "pm";
  return policy.reference ? "pr" : `p${policies.indexOf(policy) % 7}`;
}

export function chance(nat) {
  const percent = 100 * Math.exp(nat);
  if (percent >= 9.95) return `${percent.toFixed(0)} %`;
  if (percent >= 0.0995) return `${percent.toFixed(percent >= 0.995 ? 1 : 2)} %`;
  if (percent >= 0.00095) return `${Number(percent.toPrecision(1))} %`;
  return percent > 0 ? `${percent.toExponential(0).replace("-", "\u2212")} %` : "0 %";
}

export function nats(value, digits = 2) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "\u2212");
}

/** White space that can be seen. */
function visible(text) {
  return text.replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5").replaceAll(" ", "\u00b7");
}

/**
 * One token: an entry of the server's log-probabilities, read.
 *
 * @param entry    of logprobs.content
 * @param weights  {policy: l}
 * @param decoder  TextDecoder of the response: a character may span tokens
 */
export function readToken(entry, weights, policies, decoder) {
  const bytes = entry.bytes || [];
  const token = {
    name: entry.token,
    text: decoder.decode(new Uint8Array(bytes), { stream: true }),
    isSpecial: bytes.length === 0,
    nat: entry.logprob,
    top: (entry.top_logprobs || []).slice(0, TOP_SHOWN),
    scores: null,
  };
  const scores = entry.mpo && entry.mpo.policy;
  if (!scores || Object.values(scores).some((s) => s === null)) return token;
  let mean = 0;
  for (const [name, l] of Object.entries(weights)) if (l !== 0) mean += l * scores[name];
  token.scores = policies.map((policy) => ({
    name: policy.name,
    nat: scores[policy.name],
    advantage: scores[policy.name] - mean,
  }));
  token.disagreement = Math.max(0, -entry.mpo.log_z);
  token.leader = policies.reduce(
    (best, policy, k) =>
      !policy.reference && (best < 0 || token.scores[k].advantage > token.scores[best].advantage)
        ? k : best, -1);
  return token;
}

/** Sums over the tokens of a response. */
class Sums {
  constructor(policies) {
    this.policy = policies.map(() => ({ nat: 0, leads: 0 }));
    this.count = 0;
    this.nat = 0;
    this.disagreement = 0;
  }

  add(token) {
    this.count++;
    this.nat += token.nat;
    this.disagreement += token.disagreement;
    token.scores.forEach((score, k) => (this.policy[k].nat += score.nat));
    if (token.leader >= 0) this.policy[token.leader].leads++;
  }
}

/** The tokens of one response: text, strip of disagreement, table of sums. */
export class TokenView {
  /** @param tip  the Tip of the page; @param isAlone  drawn from one policy, which is the label */
  constructor(policies, tip, label, isAlone) {
    this.policies = policies;
    this.tip = tip;
    this.label = label;
    this.isAlone = isAlone;
    this.tokens = [];
    this.spans = [];
    this.sums = new Sums(policies);
    this.current = 0;
    this.flow = make("div", "flow");
    this.flow.setAttribute("role", "group");
    this.flow.setAttribute("aria-label", `Tokens of ${label}; arrow keys move`);
    this.figure = make("figure", "strip");
    this.figure.hidden = true;
    this.bars = makeSvg("g", { transform: "scale(1,-1)" });
    this.svg = makeSvg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.svg.append(this.bars);
    this.caption = make("figcaption");
    this.figure.append(this.svg, this.caption);
    this.table = make("table", "sums");
    this.highest = 0;
    this.element = make("div", "tokens", "", [this.flow, this.figure, this.table]);
    this.listen();
  }

  append(tokens) {
    for (const token of tokens) this.add(token);
    if (this.sums.count > 0) {
      this.showStrip();
      this.showSums();
    }
  }

  add(token) {
    const index = this.tokens.length;
    const span = make("span", "t", token.isSpecial ? token.name : token.text || "\u25ab");
    span.dataset.index = index;
    span.tabIndex = index === 0 ? 0 : -1;
    if (token.isSpecial) span.classList.add("special");
    this.tokens.push(token);
    this.spans.push(span);
    this.flow.append(span);
    if (!token.scores) return;
    this.paint(span, token);
    this.sums.add(token);
    this.addBar(index, token);
  }

  paint(span, token) {
    const lead = token.scores[token.leader];
    const strength = Math.min(Math.max(lead.advantage, 0) / ADVANTAGE_FULL, 1);
    span.classList.add(colour(this.policies, lead.name));
    span.style.setProperty("--strength", strength.toFixed(3));
    const line = LINES.filter((nat) => token.disagreement >= nat).length;
    if (line > 0) span.classList.add(`z${line}`);
  }

  addBar(index, token) {
    this.highest = Math.max(this.highest, token.disagreement);
    this.bars.append(makeSvg("rect", {
      x: index + 0.08, y: 0, width: 0.84, height: token.disagreement,
      class: colour(this.policies, token.scores[token.leader].name), "data-index": index,
    }));
  }

  showStrip() {
    this.figure.hidden = this.highest < 1e-6;
    if (this.figure.hidden) return;
    const height = Math.max(this.highest, 0.5);
    const count = this.tokens.length;
    this.svg.setAttribute("viewBox", `0 ${-height} ${Math.max(count, 24)} ${height}`);
    const at = this.tokens.findIndex((token) => token.disagreement === this.highest);
    this.caption.textContent = `\u2212log Z at each token, at most ${nats(this.highest)} nat, at \u201c` +
      `${this.tokens[at].name.trim() || visible(this.tokens[at].name)}\u201d`;
  }

  showSums() {
    const { sums } = this;
    const row = (tag, cells) => make("tr", "", "", cells.map((cell, i) => {
      const box = make(i === 0 || tag === "th" ? "th" : "td");
      box.scope = tag === "th" ? "col" : "row";
      box.append(cell);
      return box;
    }));
    const name = (text) => make("span", "chip " + colour(this.policies, text), text);
    const body = this.policies.map((policy, k) => row("td", [
      name(policy.name),
      nats(sums.policy[k].nat),
      nats(sums.policy[k].nat / sums.count),
      policy.reference ? "\u2013" : String(sums.policy[k].leads),
    ]));
    body.push(row("td", ["log q", nats(sums.nat), nats(sums.nat / sums.count), String(sums.count)]));
    body.push(row("td", ["\u2212log Z", nats(sums.disagreement),
      nats(sums.disagreement / sums.count), ""]));
    const head = row("th", ["nat", "log p", "/token", "leads"]);
    this.table.replaceChildren(make("thead", "", "", [head]), make("tbody", "", "", body));
  }

  listen() {
    const index = (event) => {
      const at = event.target.closest("[data-index]");
      return at ? Number(at.dataset.index) : -1;
    };
    this.flow.addEventListener("pointerover", (event) => this.show(index(event)));
    this.flow.addEventListener("click", (event) => this.focus(index(event)));
    this.flow.addEventListener("focusin", (event) => this.show(index(event)));
    this.flow.addEventListener("focusout", () => this.hide());
    this.flow.addEventListener("keydown", (event) => this.walk(event));
    this.bars.addEventListener("pointerover", (event) => this.show(index(event)));
    for (const part of [this.flow, this.bars])
      part.addEventListener("pointerleave", () => this.hide());
  }

  show(index) {
    if (index < 0) return;
    this.mark(index);
    this.tip.show(this.spans[index], this.tokens[index], this);
  }

  hide() {
    const focused = this.spans.indexOf(document.activeElement);
    if (focused >= 0) {
      this.show(focused);
      return;
    }
    this.mark(-1);
    this.tip.hide();
  }

  mark(index) {
    for (const element of this.element.querySelectorAll(".on")) element.classList.remove("on");
    if (index < 0) return;
    this.spans[index].classList.add("on");
    const bar = this.bars.querySelector(`[data-index="${index}"]`);
    if (bar) bar.classList.add("on");
  }

  focus(index) {
    if (index < 0 || index >= this.spans.length) return;
    this.spans[this.current].tabIndex = -1;
    this.current = index;
    this.spans[index].tabIndex = 0;
    this.spans[index].focus();
  }

  walk(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
    const last = this.spans.length - 1;
    let to = null;
    if (event.key in steps) to = Math.min(last, Math.max(0, this.current + steps[event.key]));
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = last;
    if (to === null) return;
    event.preventDefault();
    this.focus(to);
  }
}

/** The box that tells everything of one token. */
export class Tip {
  constructor(element) {
    this.element = element;
  }

  /** @param view  the TokenView of the token */
  show(target, token, view) {
    const title = make("p", "tip-token", visible(token.name));
    this.element.replaceChildren(title, this.figures(token, view));
    if (token.top.length > 0) this.element.append(this.alternatives(token));
    this.element.hidden = false;
    this.place(target);
    if (this.target) this.target.removeAttribute("aria-describedby");
    this.target = target;
    target.setAttribute("aria-describedby", this.element.id);
  }

  hide() {
    this.element.hidden = true;
  }

  /** Stay with the token while the conversation is scrolled. */
  follow() {
    if (!this.element.hidden) this.place(this.target);
  }

  figures(token, { policies, label, isAlone }) {
    const line = (name, className, nat, more) => {
      const bar = make("span", "bar");
      bar.style.width = `${(100 * Math.exp(nat)).toFixed(1)}%`;
      return make("tr", className, "", [
        make("th", "", "", [make("span", `chip ${className}`, name)]),
        make("td", "number", chance(nat)),
        make("td", "track", "", [bar]),
        make("td", "number", more),
      ]);
    };
    const rows = isAlone && token.scores ? [] : [line(label, "pm", token.nat, "")];
    for (const score of token.scores || []) {
      const sign = score.advantage >= 0.005 ? "+" : "";
      rows.push(line(score.name, colour(policies, score.name), score.nat,
        sign + nats(score.advantage)));
    }
    if (token.scores && !isAlone)
      rows.push(make("tr", "", "", [make("th", "", "\u2212log Z"), make("td"), make("td"),
        make("td", "number", nats(token.disagreement))]));
    return make("table", "", "", rows);
  }

  alternatives(token) {
    const list = make("ol");
    for (const other of token.top) {
      const item = make("li", other.token === token.name ? "drawn" : "", "", [
        make("span", "", visible(other.token)),
        make("span", "number", chance(other.logprob)),
      ]);
      list.append(item);
    }
    return list;
  }

  /** Below the token, or above it where there is no room; a sheet at the bottom of a phone. */
  place(target) {
    const box = target.getClientRects()[0] || target.getBoundingClientRect();
    const { style } = this.element;
    const gap = 6;
    if (window.innerWidth < 480) {
      const high = box.top > window.innerHeight / 2;
      style.left = "8px";
      style.top = high ? "8px" : `${window.innerHeight - this.element.offsetHeight - 8}px`;
      return;
    }
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const below = box.bottom + gap + height <= window.innerHeight;
    style.left = `${Math.max(gap, Math.min(box.left, window.innerWidth - width - gap))}px`;
    style.top = `${below ? box.bottom + gap : Math.max(gap, box.top - gap - height)}px`;
  }
}
