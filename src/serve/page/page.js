// SPDX-License-Identifier: Apache-2.0
/**
 * The page: what mixing does, seen. It finds out what the server has, builds the panel
 * (controls.js) and the conversation (chat.js), and says what to do where the server does not
 * answer. No other address than the server's is ever asked.
 */
import { ask, curlLine, explain, findKey, hasKey, setKey } from "./client.js";
import { Chat } from "./chat.js";
import { Controls, copyText } from "./controls.js";
import { Tip, make } from "./tokens.js";

const POLL_MILLISECONDS = 2000;
// What passes without a person: the page asks again by itself.
const PASSING = ["unreachable", "loading", "draining", "peer_lost"];

const find = (id) => document.getElementById(id);
const tip = new Tip(find("tip"));
const empty = find("empty"); // not among the turns once there is one
let server = null;
let controls = null;
let chat = null;
let isBusy = false;
let timer = 0;

/* ---- the server ---- */

function showState(state, text) {
  find("state").dataset.state = state;
  find("state").textContent = text;
}

function showBanner(error) {
  const { title, advice } = explain(error);
  const [head, rest] = find("banner").children;
  head.textContent = title;
  rest.textContent = advice;
  find("banner").hidden = false;
  showState("wait", error.code === "loading" ? "loading" : "not connected");
}

/** Ask until the server answers. */
function waitForServer() {
  clearTimeout(timer);
  timer = setTimeout(connect, POLL_MILLISECONDS);
}

async function connect() {
  try {
    adopt(await (await ask("v1/mpo")).json());
  } catch (error) {
    if (error.status === undefined) throw error; // our own fault
    failed(error);
  }
}

function failed(error) {
  if (error.status === 401) {
    showState("wait", "needs a key");
    openKey();
  } else if (PASSING.includes(error.code)) {
    showBanner(error);
    waitForServer();
  } else if (error.code === "cut_off") {
    connect(); // to see whether the server is gone, or the response alone
  } else if (!server) {
    showBanner(error);
  }
}

/** Take up what the server is; the conversation stays if it is the same one as before. */
function adopt(found) {
  const isSame = server && JSON.stringify(server.policies) === JSON.stringify(found.policies);
  server = found;
  find("banner").hidden = true;
  showState("ready", "ready");
  find("key-open").hidden = !hasKey();
  showAbout();
  if (isSame) return;
  controls = new Controls(server, () => {});
  chat = new Chat(server, controls, {
    turns: find("turns"), empty, tip, busy: showBusy, failed, say,
  });
  showWhatIsMixed();
  chat.asTokens = document.querySelector("[name=view]:checked").value === "tokens";
  showLegend();
  chat.showSide(find("side").checked);
  showBusy(false);
}

/** With adapters that are added up there is one policy, and nothing to compare it with. */
function showWhatIsMixed() {
  const isOne = controls.isFixed;
  find("views").hidden = isOne;
  find("side").parentElement.hidden = isOne;
  if (isOne) {
    find("side").checked = false;
    document.querySelector("[name=view][value=text]").checked = true;
  }
  empty.querySelector("#lead-logits").hidden = isOne;
  empty.querySelector("#lead-adapters").hidden = !isOne;
}

function showAbout() {
  const count = server.policies.length;
  const parts = [`mpo ${server.version}`, `${count} ${count === 1 ? "policy" : "policies"}`];
  if (server.use && server.use.max_model_len) parts.push(`${server.use.max_model_len} tokens of context`);
  find("about").textContent = parts.join(" \u00b7 ");
  find("about").title = `system_fingerprint ${server.system_fingerprint}`;
}

/* ---- key ---- */

function openKey() {
  if (find("key-dialog").open) return;
  find("key-why").textContent = hasKey()
    ? "The server does not know this key. Give the one that it was started with."
    : "This server asks for a key. It is kept until this tab is closed.";
  find("key").value = "";
  find("key-dialog").showModal();
}

function bindKey() {
  find("key-open").addEventListener("click", openKey);
  find("key-cancel").addEventListener("click", () => find("key-dialog").close());
  find("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(find("key").value);
    find("key-dialog").close();
    connect();
  });
}

/* ---- conversation ---- */

function say(text) {
  find("said").textContent = text;
}

function showBusy(busy) {
  isBusy = busy;
  find("send").hidden = busy;
  find("stop").hidden = !busy;
  find("send").disabled = !chat || find("prompt").value.trim() === "";
}

function send() {
  const text = find("prompt").value.trim();
  if (!chat || isBusy || text === "") return;
  find("prompt").value = "";
  fitPrompt();
  chat.send(text);
}

/** As many lines as the message has, within limits of the style sheet. */
function fitPrompt() {
  const area = find("prompt");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
  find("send").disabled = !chat || area.value.trim() === "";
}

function bindComposer() {
  const area = find("prompt");
  area.addEventListener("input", fitPrompt);
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  find("send").addEventListener("click", send);
  find("stop").addEventListener("click", () => {
    chat.stop();
    area.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || find("key-dialog").open) return;
    if (!find("tip").hidden) tip.hide();
    else if (isBusy) chat.stop();
    else if (find("panel-toggle").getAttribute("aria-expanded") === "true") showPanel(false);
  });
  const turns = find("turns");
  turns.addEventListener("scroll", () => {
    tip.follow();
    if (chat)
      chat.isFollowing = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 40;
  });
}

/* ---- the bar and the panel ---- */

function showPanel(isOpen) {
  find("panel-toggle").setAttribute("aria-expanded", isOpen);
  document.body.classList.toggle("panel-open", isOpen);
}

function showLegend() {
  const names = server.policies.filter((p) => !p.reference);
  const chips = names.map((p) => make("span", `chip p${server.policies.indexOf(p) % 7}`, p.name));
  const scale = make("span", "scale", "", [0, 1, 2, 3].map((nat) => {
    const step = make("span", "t pm", String(nat));
    step.style.setProperty("--strength", nat / 3);
    return step;
  }));
  const line = make("span", "t z2", "disagree");
  find("legend").replaceChildren(...chips, "favours the token most, by ", scale,
    " nat; on a line they ", line);
  find("legend").hidden = !chat.asTokens;
}

function bindBar() {
  for (const radio of document.querySelectorAll("[name=view]"))
    radio.addEventListener("change", () => {
      if (!chat) return;
      chat.showTokens(radio.value === "tokens");
      showLegend();
    });
  find("side").addEventListener("change", () => chat && chat.showSide(find("side").checked));
  find("clear").addEventListener("click", () => {
    if (chat) chat.clear();
    find("prompt").focus();
  });
  find("panel-toggle").addEventListener("click", () =>
    showPanel(find("panel-toggle").getAttribute("aria-expanded") !== "true"));
}

function bindCopies() {
  const copy = (id, text) => {
    const label = find(id).textContent;
    find(id).addEventListener("click", async () => {
      if (!controls) return;
      await copyText(text());
      find(id).textContent = "Copied";
      say("Copied");
      setTimeout(() => (find(id).textContent = label), 1200);
    });
  };
  copy("copy-model", () => controls.mixture().model);
  copy("copy-curl", () => {
    const typed = find("prompt").value.trim();
    const prompt = typed || (chat.lastTurn && chat.lastTurn.prompt) || "Hello";
    return curlLine({
      model: controls.mixture().model,
      messages: [{ role: "user", content: prompt }],
      ...controls.sampling(),
      seed: controls.seed(),
    });
  });
}

findKey();
bindKey();
bindComposer();
bindBar();
bindCopies();
connect();
