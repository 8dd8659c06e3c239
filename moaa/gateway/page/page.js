"use strict";
// The gateway's page: asks by /v1/chat/completions like any other client. Texts of models are only
// ever set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const models = new Map();
let messages = [];
let running = null;

const key = () => sessionStorage.getItem("moaa-key") || "";
const headers = () => ({
  "Content-Type": "application/json",
  ...(key() ? { Authorization: `Bearer ${key()}` } : {}),
});

async function problemIn(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The gateway answered HTTP ${response.status}.`;
  }
}

function complain(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function showModels() {
  let response;
  try {
    response = await fetch("v1/models", { headers: headers() });
  } catch {
    return complain("The gateway does not answer. Is it running?");
  }
  $("access").hidden = response.status !== 401;
  if (response.status === 401) {
    if (key()) complain(await problemIn(response));
    return $("key").focus();
  }
  if (!response.ok) return complain(await problemIn(response));
  complain("");
  models.clear();
  for (const card of (await response.json()).data) models.set(card.id, card);
  const sorted = [...models.values()].sort((a, b) => !a.mixture - !b.mixture);
  $("model").replaceChildren(...sorted.map((card) => new Option(card.id, card.id)));
  showModel();
}

function showModel() {
  const card = models.get($("model").value);
  if (!card) return;
  const state = card.state && card.state !== "ready" ? ` It is ${card.state} now.` : "";
  const made = card.mixture;
  $("made-of").textContent = made
    ? `${made.proposers.join(", ")} propose; ${made.aggregator} writes the answer.${state}`
    : `One model answers.${state}`;
}

// What one call has cost, as a line: tokens, seconds, dollars.
function cost(spent) {
  const parts = [];
  if (spent.completion_tokens != null) parts.push(`${spent.completion_tokens} tokens`);
  if (spent.seconds != null) parts.push(`${spent.seconds.toFixed(1)} s`);
  if (spent.usd != null) parts.push(dollars(spent.usd));
  if (spent.shared) parts.push("answered before");
  if (spent.finish_reason === "length") parts.push("cut at max_tokens");
  return parts.join(" · ");
}

const dollars = (usd) => `$${usd >= 0.01 || usd === 0 ? usd.toFixed(2) : usd.toPrecision(2)}`;

class Turn {
  constructor(question, mixture) {
    this.box = $("turn").content.firstElementChild.cloneNode(true);
    this.cards = new Map();
    this.mixture = mixture;
    this.text = "";
    this.begun = performance.now();
    this.answer = this.box.querySelector(".answer");
    this.box.querySelector(".question").textContent = question;
    this.box.querySelector(".proposals").hidden = !mixture;
    for (const name of mixture ? mixture.proposers : []) this.card(name);
    this.answer.querySelector("footer").textContent = mixture ? "waits for proposals" : "";
    $("conversation").append(this.box);
  }

  card(name) {
    const known = this.cards.get(name);
    if (known) return known;
    // Several proposals of one proposer are called name#1, name#2: they take its card's place.
    const [label, number] = name.split("#");
    const empty = number ? this.cards.get(label) : null;
    const card = empty || $("card").content.firstElementChild.cloneNode(true);
    if (empty) this.cards.delete(label);
    card.querySelector("h3").textContent = name;
    card.querySelector("footer").textContent = "waits";
    this.cards.set(name, card);
    this.box.querySelector(".cards").append(card);
    return card;
  }

  write(card, piece) {
    if (!piece) return;
    card.classList.add("writing");
    card.querySelector("footer").textContent = "";
    card.querySelector(".text").append(piece);
  }

  end(card, line, state) {
    card.classList.remove("writing");
    if (state) card.classList.add(state);
    card.querySelector("footer").textContent = line;
  }

  take(chunk) {
    const beside = chunk.moaa || {};
    const delta = (chunk.choices[0] || {}).delta || {};
    if (beside.member) {
      const card = this.card(beside.member);
      this.write(card, delta.reasoning);
      if (beside.done) this.end(card, cost(beside.done));
      if (beside.left_out) this.end(card, `left out: ${beside.left_out.reason}`, "left-out");
      return this.count();
    }
    if (delta.content) {
      this.text += delta.content;
      this.write(this.answer, delta.content);
    }
    if (chunk.usage || beside.members) this.total(chunk.usage, beside);
  }

  count() {
    const all = [...this.cards.values()];
    const waiting = all.filter((card) => card.querySelector("footer").textContent === "waits");
    const writing = all.filter((card) => card.classList.contains("writing"));
    const missing = all.filter((card) => card.classList.contains("left-out")).length;
    const ended = all.length - waiting.length - writing.length - missing;
    const more = missing ? `, ${missing} left out` : "";
    this.box.querySelector(".count").textContent = `${ended} of ${all.length}${more}`;
  }

  total(usage, costs) {
    this.spent = { usage, costs };
    const writer = (costs.members || []).find((each) => each.role === "aggregator");
    for (const missing of costs.left_out || []) {
      if (this.cards.has(missing.name)) {
        this.end(this.cards.get(missing.name), `left out: ${missing.reason}`, "left-out");
      }
    }
    if (writer) this.answer.querySelector(".by").textContent = `by ${writer.name}`;
    this.count();
  }

  finish(error) {
    for (const card of this.cards.values()) {
      if (card.classList.contains("writing")) this.end(card, "stopped");
    }
    if (error) return this.end(this.answer, error, "failed");
    const { usage, costs } = this.spent || {};
    const seconds = (performance.now() - this.begun) / 1000;
    const writer = ((costs || {}).members || []).find((each) => each.role === "aggregator");
    const all = { completion_tokens: usage && usage.total_tokens, seconds, usd: costs && costs.usd };
    const line = writer ? `${cost(writer)}  —  all together ` : "";
    this.end(this.answer, line + cost(all));
  }

  rate(request, model) {
    const box = this.box.querySelector(".rating");
    box.hidden = false;
    const buttons = [...box.querySelectorAll("button")];
    for (const button of buttons) {
      button.addEventListener("click", async () => {
        const body = { request_id: request, model, rating: Number(button.value) };
        const sent = { method: "POST", headers: headers(), body: JSON.stringify(body) };
        const response = await fetch("v1/feedback", sent).catch(() => null);
        for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
        box.querySelector(".thanks").textContent =
          response && response.ok ? "Thank you." : "It could not be kept.";
      });
    }
  }
}

// The data of each event of a stream.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split(/\r?\n\r?\n/);
    rest = events.pop();
    for (const event of events) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (data.length) yield data.map((line) => line.slice(5).trimStart()).join("\n");
    }
  }
}

async function ask(question) {
  const card = models.get($("model").value);
  if (!card) return complain("There is no model to ask.");
  complain("");
  const turn = new Turn(question, card.mixture);
  const asked = [...messages, { role: "user", content: question }];
  const body = {
    model: card.id,
    messages: asked,
    stream: true,
    stream_options: { include_usage: true },
    ...(card.mixture ? { moaa: { proposals: "each" } } : {}),
  };
  running = new AbortController();
  busy(true);
  let error = "";
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: headers(),
      body: JSON.stringify(body),
      signal: running.signal,
    });
    if (!response.ok) throw new Error(await problemIn(response));
    let ended = false;
    for await (const data of eventsOf(response)) {
      if ((ended = data === "[DONE]")) break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      turn.take(chunk);
    }
    if (!ended) throw new Error("The answer broke off.");
    messages = [...asked, { role: "assistant", content: turn.text }];
    if (response.headers.get("x-moaa-feedback")) {
      turn.rate(response.headers.get("x-request-id"), card.id);
    }
  } catch (failure) {
    error = failure.name === "AbortError" ? "stopped" : failure.message;
  }
  turn.finish(error);
  if (error) $("question").value ||= question;
  busy(false);
}

function busy(yes) {
  $("ask").disabled = yes;
  $("stop").hidden = !yes;
  $("again").hidden = yes || !messages.length;
  $("status").textContent = yes ? "asking…" : "";
  if (!yes) running = null;
}

$("asking").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  ask(question);
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("asking").requestSubmit();
});
$("stop").addEventListener("click", () => running && running.abort());
$("again").addEventListener("click", () => {
  messages = [];
  $("conversation").replaceChildren();
  $("again").hidden = true;
  $("question").focus();
});
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("moaa-key", $("key").value.trim());
  $("key").value = "";
  showModels();
});
$("model").addEventListener("change", showModel);
showModels();
