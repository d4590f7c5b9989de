// SPDX-License-Identifier: Apache-2.0
/**
 * The panel: weights and sampling, and what the next request is drawn from.
 *
 * Untouched sliders stand for the preset that was chosen last, by its own name: a preset of a
 * fit also has an end tilt, which belongs to its exact weights and ends when one is moved.
 * Where the server draws from adapters that are added up (rollout.mixture: adapters), its
 * weights are those of the presets, and there are no sliders.
 */
import { Weights, UNITS, modelName } from "./weights.js";
import { make, colour, nats } from "./tokens.js";

const STEP = 10; // units of an arrow key; 1 with Shift
const SEED_DRAWN = 1000000; // drawn seeds are below it, so that a person can type one
const SEED_LIMIT = 2 ** 32;

const find = (id) => document.getElementById(id);

/** A stack of the weights in the colours of their policies. */
export function blendBar(policies, mix) {
  return policies.filter((p) => mix[p.name] > 0).map((policy) => {
    const part = make("span", colour(policies, policy.name));
    part.style.flexGrow = mix[policy.name];
    return part;
  });
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https and beyond this machine there is no clipboard: the older way.
    const area = make("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function number(input, fallback) {
  const value = input.valueAsNumber;
  if (!Number.isFinite(value)) return fallback;
  return Math.max(Number(input.min), Math.min(Number(input.max || Infinity), value));
}

/** Its value, and how far its track is filled. */
function setRange(range, value) {
  range.value = value;
  range.style.setProperty("--at", value / range.max);
}

export class Controls {
  /** @param server  what /v1/mpo says; @param changed  called when a weight has moved */
  constructor(server, changed) {
    this.policies = server.policies;
    this.objectives = server.policies.filter((p) => !p.reference).map((p) => p.name);
    this.weights = new Weights(this.objectives.length);
    this.changed = changed;
    this.isFixed = server.mixture === "adapters";
    this.presets = this.findPresets(server.models.data);
    this.rows = this.isFixed ? [] : this.objectives.map((name, k) => this.makeRow(name, k));
    find("sliders").replaceChildren(...this.rows.map((row) => row.element));
    this.makePresets();
    this.bindSampling(server);
    this.choose(this.presets[0]);
  }

  /* ---- presets ---- */

  findPresets(models) {
    const presets = models.filter((m) => m.mpo && m.mpo.weights).map((model) => ({
      id: model.id,
      label: model.id === "mpo" ? "default" : model.id.replace(/^mpo:/, ""),
      weights: this.objectives.map((name) => model.mpo.weights[name] || 0),
      tilt: model.mpo.end_bias || 0,
    }));
    const share = 1 / this.objectives.length;
    const isEqual = (preset) => preset.weights.every((w) => Math.abs(w - share) < 1e-9);
    if (!this.isFixed && !presets.some(isEqual))
      presets.push({ id: null, label: "equal", weights: this.objectives.map(() => share), tilt: 0 });
    return presets;
  }

  makePresets() {
    const buttons = this.presets.map((preset) => {
      const button = make("button", "", preset.label);
      button.type = "button";
      button.title = this.objectives.map((name, k) => `${name} ${nats(preset.weights[k], 3)}`).join(", ") +
        (preset.tilt ? `, end tilt ${nats(preset.tilt)} nat` : "");
      button.addEventListener("click", () => this.choose(preset));
      preset.button = button;
      return button;
    });
    find("presets").replaceChildren(...buttons);
  }

  choose(preset) {
    this.weights.set(preset.weights);
    this.preset = preset;
    this.update();
  }

  /* ---- sliders ---- */

  makeRow(name, k) {
    const range = make("input");
    Object.assign(range, { type: "range", min: 0, max: UNITS, step: 1 });
    range.setAttribute("aria-label", `Weight of ${name}`);
    const box = make("input");
    Object.assign(box, { type: "number", min: 0, max: 1, step: 0.01 });
    box.setAttribute("aria-label", `Weight of ${name}, as a number`);
    const lock = make("button", "lock");
    lock.type = "button";
    lock.setAttribute("aria-label", `Hold the weight of ${name}`);
    const label = make("span", "chip", name);
    label.title = name;
    range.addEventListener("input", () => this.move(k, range.valueAsNumber));
    range.addEventListener("keydown", (event) => this.step(k, event));
    box.addEventListener("change", () => this.move(k, UNITS * (box.valueAsNumber || 0)));
    lock.addEventListener("click", () => {
      this.weights.locked[k] = !this.weights.locked[k];
      this.update();
    });
    const element = make("div", `slider ${colour(this.policies, name)}`, "", [label, box, lock, range]);
    return { element, range, box, lock };
  }

  step(k, event) {
    const direction = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    this.move(k, this.weights.units[k] + direction * (event.shiftKey ? 1 : STEP));
  }

  move(k, units) {
    this.weights.move(k, units);
    this.preset = null;
    this.update();
  }

  update() {
    const { units, locked } = this.weights;
    const values = this.preset ? this.preset.weights : this.weights.values();
    this.rows.forEach((row, k) => {
      const canMove = this.weights.canMove(k);
      setRange(row.range, units[k]);
      row.range.setAttribute("aria-valuetext", nats(values[k], 3));
      row.box.value = Number(values[k].toFixed(3));
      row.range.disabled = row.box.disabled = !canMove;
      row.lock.setAttribute("aria-pressed", locked[k]);
      row.lock.title = locked[k] ? "Let it move with the others" : "Hold it while others move";
      row.lock.disabled = this.objectives.length === 1;
    });
    for (const preset of this.presets)
      preset.button.setAttribute("aria-pressed", preset === this.preset);
    const { model, mix } = this.mixture();
    find("model").textContent = model;
    for (const id of ["blend", "panel-bar"])
      find(id).replaceChildren(...blendBar(this.policies, mix));
    this.changed();
  }

  /** What the mixture is drawn from now: the name of the model, and {policy: l}. */
  mixture() {
    const values = this.preset ? this.preset.weights : this.weights.values();
    const mix = {};
    for (const policy of this.policies) mix[policy.name] = 0;
    this.objectives.forEach((name, k) => (mix[name] = values[k]));
    const id = this.preset && this.preset.id;
    return { model: id || modelName(this.objectives, this.weights.units), mix };
  }

  /* ---- sampling ---- */

  bindSampling(server) {
    const longest = server.use && server.use.max_model_len;
    const temperature = find("temperature");
    const range = find("temperature-range");
    const show = (value) => setRange(range, value);
    range.oninput = () => show((temperature.value = range.value));
    temperature.oninput = () => show(number(temperature, 1));
    show(number(temperature, 1));
    if (longest > 0) find("length").max = longest;
    if (longest > 0 && find("length").valueAsNumber > longest) find("length").value = longest;
    find("system-part").hidden = server.policies.some((p) => p.system);
    if (find("seed").value === "") this.drawSeed();
  }

  drawSeed() {
    find("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % SEED_DRAWN;
  }

  /** The seed of a new response: the one in the panel, or one that is drawn into it. */
  takeSeed() {
    if (find("seed-new").checked) this.drawSeed();
    return Math.floor(number(find("seed"), 0)) % SEED_LIMIT;
  }

  seed() {
    return Math.floor(number(find("seed"), 0)) % SEED_LIMIT;
  }

  sampling() {
    return {
      temperature: number(find("temperature"), 1),
      max_tokens: Math.floor(number(find("length"), 256)),
    };
  }

  /** The message that precedes all others; "" for none. */
  system() {
    return find("system-part").hidden ? "" : find("system").value.trim();
  }
}
