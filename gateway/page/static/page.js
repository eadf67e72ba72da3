// The page: choose a model, ask it, see what it answers and how long that took.

import { languages } from "/code.js";
import { form, make } from "/forms.js";

const at = (id) => document.getElementById(id);
const MOST_RECENT = 20;
const recent = [];
let models = [];
let model = null;
let asked = null; // what the form is made of
let last = null; // the request that was sent last, for the code
let language = "curl";

const headers = () => (at("key").value ? { Authorization: `Bearer ${at("key").value.trim()}` } : {});

async function get(path) {
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) throw await problem(response);
  return response.json();
}

async function problem(response) {
  let found = { title: `HTTP status ${response.status}`, detail: "", errors: [] };
  try { found = { ...found, ...(await response.json()) }; } catch { /* no problem details: the status is all there is */ }
  return Object.assign(new Error(`${found.title}: ${found.detail}`), { status: response.status, errors: found.errors ?? [] });
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

async function load() {
  try {
    ({ models } = await get("/v1/models"));
  } catch (error) {
    at("access").open = error.status === 401 || error.status === 403 || at("access").open;
    say(error.status === 401 ? "A key is needed: put it in above." : error.message, true);
    at("model").replaceChildren();
    at("send").disabled = true;
    return;
  }
  at("access").open = false;
  at("model").replaceChildren(...models.map(({ name }) => make("option", { text: name })));
  say(models.length ? "Nothing was asked yet." : "Your key may ask no model that is served.");
  if (models.length) await choose(models[0].name);
}

async function choose(name) {
  try {
    model = await get(`/v1/models/${encodeURIComponent(name)}`);
  } catch (error) {
    say(error.message, true);
    return;
  }
  at("purpose").textContent = model.purpose ?? `Version ${model.version}.`;
  const tasks = model.tasks.filter((task) => task !== "predict" || model.tasks.length === 1);
  at("tasks").replaceChildren(...tasks.map((task, index) => {
    const input = make("input", { type: "radio", name: "task", value: task, checked: index === 0 });
    input.addEventListener("change", () => show(task));
    return make("label", {}, input, ` ${task}`);
  }));
  at("tasks").hidden = tasks.length < 2;
  about(model.release);
  if (tasks.length) show(tasks[0]);
  else { at("inputs").replaceChildren(make("p", { text: model.unsupported ?? "It takes no JSON." })); at("send").disabled = true; }
}

function show(task) {
  asked = form(model, task, () => { at("send").disabled = !asked.ready(); code(); });
  at("inputs").replaceChildren(asked.element);
  at("send").disabled = !asked.ready();
  asked.element.addEventListener("input", () => { at("send").disabled = !asked.ready(); code(); });
  code();
}

function about(release) {
  at("card").hidden = !release;
  if (!release) return;
  const facts = [["Release", `${release.network} ${release.release}`], ["Made", release.created_at], ["Precision", release.precisions.join(", ")]];
  if (release.reference_score !== null) facts.push([release.metric ?? "Score", `${release.reference_score.toFixed(4)} on ${release.test_samples} samples`]);
  const list = make("table", {}, make("tbody", {}, ...facts.map(([name, value]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", { text: value })))));
  const card = release.card;
  const words = card ? [["Data", [card.data]], ["Limits", card.limits], ["Not for", card.not_for]] : [];
  at("about").replaceChildren(list, ...words.flatMap(([title, lines]) => [make("h3", { text: title }), make("ul", {}, ...lines.map((text) => make("li", { text })))]));
}

async function ask(event) {
  event.preventDefault();
  const request = asked.request();
  last = request;
  code();
  at("send").disabled = true;
  say("Asking …");
  const begun = performance.now();
  try {
    const response = await fetch(request.path, { method: "POST", headers: { ...headers(), "Content-Type": request.type }, body: request.body });
    if (!response.ok) throw await problem(response);
    const answer = await response.json();
    const entry = { when: new Date(), request, answer, timing: response.headers.get("server-timing") ?? "", ms: performance.now() - begun };
    remember(entry);
    present(entry);
    at("answer").focus({ preventScroll: true });
  } catch (error) {
    failed(error);
  } finally {
    at("send").disabled = !asked.ready();
  }
}

function failed(error) {
  say(error.message, true);
  const rows = (error.errors ?? []).map(({ field, got, expected }) => make("tr", {}, make("th", { scope: "row", text: field || "the request" }), make("td", { text: `got ${got}, expected ${expected}` })));
  at("result").replaceChildren(...(rows.length ? [make("table", {}, make("tbody", {}, ...rows))] : []));
  at("timing").hidden = at("feedback").hidden = true;
}

function present(entry) {
  const { answer } = entry;
  say(`${answer.model}, release ${answer.version}, request ${answer.request_id}`);
  at("result").replaceChildren(...result(answer));
  timing(entry);
  at("feedback").hidden = false;
  at("feedback").dataset.request = answer.request_id;
}

function result(answer) {
  if (answer.predictions) return answer.predictions.map(({ top }) => scores(top));
  if (answer.embeddings) {
    return answer.embeddings.map((vector) => make("p", { text: `${vector.length} numbers: ${vector.slice(0, 8).map((value) => value?.toFixed(4) ?? "not known").join(", ")} …` }));
  }
  const rows = answer.rows ?? [answer.outputs];
  return rows.map((row) => make("table", {}, make("tbody", {}, ...Object.entries(row).map(([name, value]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", {}, shown(value)))))));
}

const plain = (value) => (typeof value === "string" ? value : value === null ? "not known" : JSON.stringify(value));

function shown(value) {
  if (typeof value === "number" && value >= 0 && value <= 1) return meter(value);
  return document.createTextNode(plain(value));
}

function scores(top) {
  const rows = top.map(({ label, score }) => make("tr", {}, make("th", { scope: "row", text: plain(label) }), make("td", { class: "score" }, meter(score))));
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "Label" }), make("th", { scope: "col", text: "Score" })));
  return make("table", {}, head, make("tbody", {}, ...rows));
}

function meter(share) {
  const inner = make("span", { class: "fill" });
  inner.style.width = `${share * 100}%`;
  return make("div", { class: "meter" }, make("span", { class: "track", "aria-hidden": "true" }, inner), make("span", { text: share.toFixed(4) }));
}

function timing({ timing, ms }) {
  const parts = Object.fromEntries([...timing.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, value]) => [name, Number(value)]));
  const triton = parts.triton ?? 0;
  const gateway = parts.gateway ?? 0;
  const rest = Math.max(0, ms - triton - gateway);
  for (const [name, value] of [["triton", triton], ["gateway", gateway], ["network", rest]]) at(`part-${name}`).style.width = `${(100 * value) / ms}%`;
  at("times").textContent = `${ms.toFixed(1)} ms: model ${triton.toFixed(1)}, gateway ${gateway.toFixed(1)}, network and browser ${rest.toFixed(1)}`;
  at("timing").hidden = false;
}

function remember(entry) {
  recent.unshift(entry);
  recent.length = Math.min(recent.length, MOST_RECENT);
  at("recent").replaceChildren(...recent.map((each) => {
    const again = make("button", { type: "button", text: each.answer.request_id.slice(0, 8), title: `Show ${each.answer.request_id}` });
    again.addEventListener("click", () => { last = each.request; present(each); code(); });
    const cells = [each.when.toLocaleTimeString(), each.answer.model, brief(each.answer), each.ms.toFixed(1)];
    return make("tr", {}, ...cells.map((text) => make("td", { text })), make("td", {}, again));
  }));
}

function brief(answer) {
  if (answer.predictions) return answer.predictions.map(({ label }) => plain(label)).join(", ");
  if (answer.embeddings) return `${answer.embeddings.length} × ${answer.embeddings[0].length}`;
  return Object.entries((answer.rows ?? [answer.outputs])[0]).map(([name, value]) => `${name} ${typeof value === "number" ? value.toFixed(4) : plain(value)}`).join(", ").slice(0, 60);
}

async function label(event) {
  event.preventDefault();
  const value = at("truth").value;
  const content = { labels: [{ request_id: at("feedback").dataset.request, value }] };
  try {
    const response = await fetch("/v1/feedback", { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(content) });
    if (!response.ok) throw await problem(response);
    say(`Label taken: ${value}`);
    at("truth").value = "";
  } catch (error) {
    say(error.message, true);
  }
}

function code() {
  const request = last && last.path.includes(`/${encodeURIComponent(model?.name ?? "")}/`) && !asked?.ready() ? last : asked?.ready() ? asked.request() : last;
  at("code").firstElementChild.textContent = request ? languages[language](request, location.origin) : "Choose what to ask with.";
}

function tabs() {
  const names = Object.keys(languages);
  at("tabs").replaceChildren(...names.map((name) => {
    const tab = make("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "code", "aria-selected": String(name === language), tabindex: name === language ? "0" : "-1", text: name });
    tab.addEventListener("click", () => select(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) select(names[(names.indexOf(name) + step + names.length) % names.length]);
    });
    return tab;
  }));
  at("code").setAttribute("aria-labelledby", `tab-${language}`);
  function select(name) { language = name; tabs(); code(); at(`tab-${name}`).focus(); }
}

at("key").value = sessionStorage.getItem("key") ?? "";
at("key-form").addEventListener("submit", (event) => event.preventDefault());
at("key").addEventListener("change", () => { sessionStorage.setItem("key", at("key").value); load(); });
at("model").addEventListener("change", () => choose(at("model").value));
at("form").addEventListener("submit", ask);
at("feedback").addEventListener("submit", label);
at("copy").addEventListener("click", async () => { await navigator.clipboard.writeText(at("code").textContent); at("copy").textContent = "Copied"; setTimeout(() => { at("copy").textContent = "Copy"; }, 1500); });
tabs();
load();
