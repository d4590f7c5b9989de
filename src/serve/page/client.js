// SPDX-License-Identifier: Apache-2.0
/**
 * Requests to the server, the key that they carry, and what a person can do about an error.
 * Addresses are relative, so that the page works behind a proxy's path too.
 */

const KEY_NAME = "mpo.key";
const WORK_MILLISECONDS = 10; // without a pause
let key = "";

/** A key from `#key=` in the address, which is taken out of it, or of this tab's session. */
export function findKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    setKey(given);
    history.replaceState(null, "", location.pathname + location.search);
    return;
  }
  try {
    key = sessionStorage.getItem(KEY_NAME) || "";
  } catch {
    key = ""; // storage is switched off: the key lives as long as the page
  }
}

export function setKey(text) {
  key = text.trim();
  try {
    sessionStorage.setItem(KEY_NAME, key);
  } catch {
    // see findKey
  }
}

export function hasKey() {
  return key !== "";
}

/** Why there is no answer. status 0: the server was not reached or went away. */
export class Refusal extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

function lost(begun) {
  return new Refusal(0, begun ? "cut_off" : "unreachable", "");
}

async function readRefusal(response) {
  let error = {};
  try {
    error = (await response.json()).error || {};
  } catch {
    // a proxy's page, or nothing
  }
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  return new Refusal(response.status, error.code || "", error.message || "", seconds);
}

/** @return the response of a success; throws Refusal, or AbortError */
export async function ask(path, options = {}) {
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}) };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response = null;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : lost(false);
  }
  if (!response.ok) throw await readRefusal(response);
  return response;
}

/** The texts after `data:` of a stream of server-sent events. */
async function* readEvents(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    let piece = null;
    try {
      piece = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : lost(true);
    }
    rest += decoder.decode(piece.value || new Uint8Array(), { stream: !piece.done });
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trimStart();
    if (piece.done) return;
  }
}

/** Let the browser draw and hear the reader: a fast server always has more. */
function breathe() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
}

/** Draw a chat; every chunk is given to take(). Throws Refusal, or AbortError. */
export async function drawChat(body, signal, take) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    body: JSON.stringify(body),
    signal,
  });
  let rested = performance.now();
  for await (const data of readEvents(response)) {
    if (performance.now() - rested > WORK_MILLISECONDS) {
      await breathe();
      rested = performance.now();
    }
    signal.throwIfAborted();
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(200, chunk.error.code || "", chunk.error.message || "");
    take(chunk);
  }
  throw lost(true);
}

/** The same request for a terminal. The key stays out of it. */
export function curlLine(body) {
  const text = JSON.stringify(body).replaceAll("'", "'\\''");
  const address = new URL("v1/chat/completions", location.href).href;
  const bearer = key ? ` -H "Authorization: Bearer $MPO_KEY"` : "";
  return `curl ${address} -H 'Content-Type: application/json'${bearer} -d '${text}'`;
}

// By code, else by status: what happened, and what to do. Empty advice: the server's message.
const ADVICE = {
  unreachable: ["The server does not answer", ""],
  cut_off: ["The connection was lost", "What came before is kept. Draw the response again."],
  invalid_api_key: ["The server does not know this key", "Give the key that it was started with."],
  queue_full: ["The server is busy", ""],
  loading: ["The models are being loaded", "The page continues by itself when they are ready."],
  draining: ["The server is stopping",
    "It accepts no new requests. The page continues when the server is back."],
  queue_timeout: ["The server is busy", "The request waited too long for its turn. Try again."],
  peer_lost: ["The server lost one of its processes",
    "It is stopping. Its log says which process; the page continues when the server is back."],
  deadline_exceeded: ["The response took too long", "Ask for a shorter one, or raise serve.deadline."],
  context_length_exceeded: ["Prompt and response are too long",
    "Begin a new chat, or lower the length."],
  out_of_memory: ["The server is out of memory", "Try again, or ask for a shorter response."],
  400: ["The server refused the request", ""],
  403: ["The server refuses this address", ""],
  404: ["There is no such model", "Reload the page to see the available models."],
  413: ["The prompt is too long", "Shorten it."],
};

/** {title, advice} of a Refusal, for a person. */
export function explain(error) {
  const [title, advice] = ADVICE[error.code] || ADVICE[error.status] || ["The server failed", ""];
  const parts = [];
  if (error.code === "unreachable")
    parts.push(`Check that mpo serve runs at ${location.host}, and the tunnel to it if there is one.`);
  else if (error.code === "queue_full")
    parts.push(error.retryAfter ? `Try again in ${error.retryAfter} s.` : "Try again soon.");
  else if (error.message && (!advice || error.status === 400)) parts.push(sentence(error.message));
  if (advice) parts.push(advice);
  return { title, advice: parts.join(" ") || `It answered with status ${error.status}.` };
}

function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
