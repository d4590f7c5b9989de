// SPDX-License-Identifier: Apache-2.0
/**
 * The conversation. A turn is a prompt and its responses: of the mixture, and side by side of
 * every policy alone, with one seed. A response that is drawn again keeps its earlier versions.
 */
import { drawChat, explain } from "./client.js";
import { blendBar, copyText } from "./controls.js";
import { TokenView, make, colour, nats, readToken } from "./tokens.js";

const MIXTURE = ""; // where others have the name of a policy
const TOP_COUNT = 5;

function button(label, action, title = "") {
  const element = make("button", "quiet", label);
  element.type = "button";
  if (title) element.title = title;
  element.addEventListener("click", action);
  return element;
}

/** One drawing of a response. */
class Version {
  constructor(model, mix, seed) {
    Object.assign(this, { model, mix, seed });
    this.text = "";
    this.tokens = [];
    this.decoder = new TextDecoder();
    this.count = 0;
    this.finish = ""; // why it ended: stop, length, stopped
    this.error = null;
    this.begun = performance.now();
    this.seconds = 0;
  }

  take(chunk, policies) {
    const choice = chunk.choices[0];
    if (chunk.usage) this.count = chunk.usage.completion_tokens;
    if (!choice) return;
    if (this.text === "" && this.count === 0) this.first = performance.now();
    this.text += (choice.delta && choice.delta.content) || "";
    const entries = (choice.logprobs && choice.logprobs.content) || [];
    for (const entry of entries)
      this.tokens.push(readToken(entry, this.mix, policies, this.decoder));
    this.count = Math.max(this.count, this.tokens.length);
    if (choice.finish_reason) this.finish = choice.finish_reason;
  }

  /** It came, be it an empty one; an error or a stop before the first word did not. */
  get isGiven() {
    return this.text !== "" || this.finish === "stop";
  }

  end() {
    this.isDone = true;
    this.seconds = (performance.now() - (this.first || this.begun)) / 1000;
  }
}

/** A response of the mixture or of one policy: its versions and the box that shows one. */
class Response {
  constructor(chat, turn, name) {
    Object.assign(this, { chat, turn, name });
    this.versions = [];
    this.shown = -1;
    this.abort = null;
    this.build();
  }

  get version() {
    return this.versions[this.shown];
  }

  get label() {
    return this.name === MIXTURE ? "mixture" : this.name;
  }

  build() {
    const policies = this.chat.policies;
    this.blend = make("div", "blend");
    this.title = make("h3", `chip ${this.name === MIXTURE ? "pm" : colour(policies, this.name)}`, this.label);
    this.drawnFrom = make("span", "drawn-from");
    this.body = make("div", "text");
    this.note = make("div", "note");
    this.note.hidden = true;
    this.meta = make("span", "meta");
    this.place = make("span", "place");
    this.back = button("\u2039", () => this.turnTo(this.shown - 1), "Earlier version");
    this.forth = button("\u203a", () => this.turnTo(this.shown + 1), "Later version");
    this.again = button("Regenerate", () => this.chat.draw([this]), "Draw again with the current weights");
    this.copy = button("Copy", () => copyText(this.version.text));
    this.versionsBox = make("span", "versions", "", [this.back, this.place, this.forth]);
    const foot = make("footer", "", "", [this.meta, this.versionsBox,
      make("span", "actions", "", [this.copy, this.again])]);
    const head = make("div", "head", "", [this.title, this.drawnFrom]);
    this.element = make("article", "response", "", [this.blend, head, this.body, this.note, foot]);
    this.element.setAttribute("aria-label", `Response of ${this.label}`);
    this.element.dataset.policy = this.name;
  }

  turnTo(index) {
    this.shown = Math.max(0, Math.min(this.versions.length - 1, index));
    this.show();
  }

  /* ---- drawing ---- */

  async draw(request) {
    const version = new Version(request.body.model, request.mix, request.seed);
    this.versions.push(version);
    this.abort = new AbortController();
    this.turnTo(this.versions.length - 1);
    try {
      await drawChat(request.body, this.abort.signal, (chunk) => {
        version.take(chunk, this.chat.policies);
        this.schedule();
      });
    } catch (error) {
      if (error.name === "AbortError") version.finish = "stopped";
      else if (error.status === undefined) throw error; // our own fault
      else version.error = error;
    } finally {
      version.end();
      this.abort = null;
      this.show();
    }
    return version;
  }

  stop() {
    if (this.abort) this.abort.abort();
  }

  /* ---- showing ---- */

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.showNew();
      this.chat.follow();
    });
  }

  /** The whole of the version that is shown. */
  show() {
    const { version } = this;
    const { policies } = this.chat;
    this.blend.replaceChildren(...blendBar(policies, version.mix));
    this.drawnFrom.textContent = this.name === MIXTURE ? version.model : "";
    this.drawnFrom.title = policies.filter((p) => version.mix[p.name])
      .map((p) => `${p.name} ${nats(version.mix[p.name], 3)}`).join(", ");
    this.place.textContent = `${this.shown + 1}/${this.versions.length}`;
    this.versionsBox.hidden = this.versions.length < 2;
    this.back.disabled = this.shown === 0;
    this.forth.disabled = this.shown === this.versions.length - 1;
    this.view = null;
    this.written = "";
    this.body.replaceChildren();
    this.body.className = "text";
    this.showNew();
    this.showNote();
  }

  /** What has come since. */
  showNew() {
    const { version } = this;
    const asTokens = this.chat.asTokens && version.tokens.some((token) => token.scores);
    if (asTokens && !this.view) {
      this.view = new TokenView(this.chat.policies, this.chat.tip, this.label,
        this.name !== MIXTURE);
      this.body.replaceChildren(this.view.element);
      this.body.className = "";
    }
    if (asTokens) {
      this.view.append(version.tokens.slice(this.view.tokens.length));
    } else {
      this.body.append(version.text.slice(this.written.length));
      this.written = version.text;
    }
    this.element.classList.toggle("running", !version.isDone);
    this.showMeta();
  }

  showMeta() {
    const { version } = this;
    const parts = [`${version.count} token${version.count === 1 ? "" : "s"}`];
    if (version.isDone && version.seconds > 0.05 && version.count > 1)
      parts.push(`${nats(version.count / version.seconds, 0)}/s`);
    parts.push(`seed ${version.seed}`);
    const ends = { length: "cut at the length", stopped: "stopped" };
    if (version.finish in ends) parts.push(ends[version.finish]);
    this.meta.textContent = parts.join(" \u00b7 ");
    this.again.hidden = !version.isDone || this.turn !== this.chat.lastTurn;
    this.copy.hidden = version.text === "";
  }

  showNote() {
    const { version } = this;
    const lacksScores = this.chat.asTokens && version.isDone && version.text !== "" && !this.view;
    this.note.hidden = !version.error && !lacksScores;
    this.note.classList.toggle("error", Boolean(version.error));
    if (version.error) {
      const { title, advice } = explain(version.error);
      this.note.replaceChildren(make("strong", "", title), " ", advice);
    } else if (lacksScores) {
      this.note.textContent = "It was drawn without the scores of the policies. Draw it again to see its tokens.";
    }
  }
}

export class Chat {
  /**
   * @param server    what /v1/mpo says
   * @param controls  Controls of the same server
   * @param page      {turns, empty, tip, busy(running), failed(error), say(text)}
   */
  constructor(server, controls, page) {
    Object.assign(this, { controls, page, tip: page.tip, policies: server.policies });
    this.turns = [];
    this.asTokens = false;
    this.isSide = false;
    this.running = new Set();
    this.clear();
  }

  get lastTurn() {
    return this.turns[this.turns.length - 1];
  }

  clear() {
    this.stop();
    this.turns = [];
    this.page.turns.replaceChildren(this.page.empty);
  }

  stop() {
    for (const response of this.running) response.stop();
  }

  /* ---- views ---- */

  showTokens(asTokens) {
    this.asTokens = asTokens;
    this.tip.hide();
    for (const turn of this.turns) for (const r of turn.responses.values()) r.show();
  }

  /** Columns of all policies, or that of the mixture alone. The last turn is filled. */
  showSide(isSide) {
    this.isSide = isSide;
    this.page.turns.classList.toggle("single", !isSide);
    if (!isSide) {
      for (const response of this.running) if (response.name !== MIXTURE) response.stop();
      return;
    }
    const turn = this.lastTurn;
    if (turn) this.draw(this.columns(turn).filter((r) => r.versions.length === 0), turn.seed);
  }

  columns(turn) {
    const names = this.isSide ? [MIXTURE, ...this.policies.map((p) => p.name)] : [MIXTURE];
    for (const name of names) {
      if (turn.responses.has(name)) continue;
      const response = new Response(this, turn, name);
      turn.responses.set(name, response);
      turn.grid.append(response.element);
    }
    return names.map((name) => turn.responses.get(name));
  }

  /* ---- turns ---- */

  send(prompt) {
    const before = this.lastTurn;
    const turn = { prompt, responses: new Map(), grid: make("div", "grid") };
    const said = make("div", "prompt", prompt);
    turn.element = make("section", "turn", "", [said, turn.grid]);
    turn.element.setAttribute("aria-label", `Turn ${this.turns.length + 1}`);
    this.page.empty.remove();
    this.page.turns.append(turn.element);
    this.turns.push(turn);
    if (before) for (const r of before.responses.values()) r.again.hidden = true;
    return this.draw(this.columns(turn));
  }

  /** What precedes a response: for a policy its own responses, else those of the mixture. */
  messages(turn, name) {
    const system = this.controls.system();
    const messages = system ? [{ role: "system", content: system }] : [];
    for (const earlier of this.turns.slice(0, this.turns.indexOf(turn))) {
      const given = [name, MIXTURE].map((n) => earlier.responses.get(n)).find(
        (response) => response && response.version && response.version.isGiven);
      if (!given) continue; // none came: the turn is left out
      messages.push({ role: "user", content: earlier.prompt },
        { role: "assistant", content: given.version.text });
    }
    messages.push({ role: "user", content: turn.prompt });
    return messages;
  }

  /** The request that a response is drawn by. Scores of all policies cost a pass of each. */
  request(turn, name, seed) {
    const isMixture = name === MIXTURE;
    const { model, mix } = this.controls.mixture();
    const alone = Object.fromEntries(this.policies.map((p) => [p.name, p.name === name ? 1 : 0]));
    const scores = !this.controls.isFixed && (isMixture || this.asTokens)
      ? { logprobs: true, top_logprobs: TOP_COUNT, policy_scores: true } : {};
    return {
      seed,
      mix: isMixture ? mix : alone,
      body: {
        model: isMixture ? model : `policy/${name}`,
        messages: this.messages(turn, name),
        ...this.controls.sampling(),
        seed,
        stream: true,
        stream_options: { include_usage: true },
        ...scores,
      },
    };
  }

  /** Draw responses of the last turn at once, by one seed: a given one, or the panel's. */
  async draw(responses, seed) {
    if (responses.length === 0) return;
    const { turn } = responses[0];
    turn.seed = seed === undefined ? this.controls.takeSeed() : seed;
    for (const response of responses) this.running.add(response);
    this.page.busy(true);
    this.isFollowing = true;
    const work = responses.map((response) => this.drawOne(response, turn));
    this.follow();
    await Promise.all(work);
  }

  async drawOne(response, turn) {
    try {
      const version = await response.draw(this.request(turn, response.name, turn.seed));
      if (version.error) this.page.failed(version.error);
      this.page.say(version.error ? `${response.label}: ${explain(version.error).title}`
        : `Response of ${response.label} is complete, ${version.count} tokens`);
    } finally {
      this.running.delete(response);
      this.page.busy(this.running.size > 0);
      this.follow();
    }
  }

  /** Keep the end in view while responses grow, unless the reader has gone elsewhere. */
  follow() {
    if (this.isFollowing) this.page.turns.scrollTop = this.page.turns.scrollHeight;
  }
}
