// What a model is asked with: a file to drop, a text to type, or a row to fill. Nothing here is markup from elsewhere:
// every text goes in as text.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// Returns {element, ready(), request()} for a task of a model; request() is {path, type, body, shown}.
export function form(model, task, changed) {
  if (task === "classify") return files(model, changed);
  if (task === "embed") return texts(model);
  if (model.entities.length) return row(model, "entities", model.entities);
  const single = model.inputs.every((input) => input.dims.length === 1 && input.dims[0] === 1);
  if (single && model.max_batch_size && model.inputs.length <= 40 && !isFile(model)) return row(model, "rows", model.inputs);
  return json(model);
}

const isFile = (model) => model.tasks.includes("classify");
const path = (model, task) => `/v1/models/${encodeURIComponent(model.name)}/${task}`;

function files(model, changed) {
  const input = make("input", { type: "file", id: "file", accept: "image/*", required: true });
  const area = make("div", { class: "drop" }, make("label", { for: "file", text: "An image: choose one, or drop it here" }), input);
  let file = null;
  const take = (chosen) => {
    file = chosen ?? null;
    area.querySelector("img")?.remove();
    if (file) {
      const image = make("img", { alt: `What will be sent: ${file.name}`, src: URL.createObjectURL(file) });
      image.addEventListener("load", () => URL.revokeObjectURL(image.src));
      area.append(image);
    }
    changed();
  };
  input.addEventListener("change", () => take(input.files[0]));
  for (const kind of ["dragenter", "dragover"]) {
    area.addEventListener(kind, (event) => { event.preventDefault(); area.classList.add("over"); });
  }
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    if (event.dataTransfer.files.length) { input.files = event.dataTransfer.files; take(input.files[0]); }
  });
  return {
    element: area,
    ready: () => file !== null,
    request: () => ({ path: path(model, "classify"), type: file.type || "application/octet-stream", body: file, shown: file.name }),
  };
}

function texts(model) {
  const input = make("textarea", { id: "text", required: true });
  input.value = "A small boat on a lake.";
  const element = make("div", {}, make("label", { for: "text", text: "Texts, one a line" }), input);
  const lines = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { element, ready: () => lines().length > 0, request: () => asJson(path(model, "embed"), { texts: lines() }) };
}

function row(model, kind, fields) {
  const example = model.example?.[kind]?.[0] ?? {};
  const grid = make("div", { class: "grid" });
  const inputs = fields.map((field) => {
    const id = `field-${field.name}`;
    const input = field.values?.length
      ? make("select", { id }, ...field.values.map((value) => make("option", { text: value })))
      : make("input", { id, autocomplete: "off", title: field.about ?? field.datatype });
    const known = example[field.name];
    if (typeof known === "string" || typeof known === "number") input.value = known;
    grid.append(make("div", {}, make("label", { for: id, text: field.name }), input));
    return [field, input];
  });
  const values = () => Object.fromEntries(inputs.flatMap(([field, input]) => {
    if (input.value === "" && (kind === "entities" || field.optional)) return [];
    return [[field.name, value(field, input.value)]];
  }));
  return { element: grid, ready: () => true, request: () => asJson(path(model, "predict"), { [kind]: [values()] }) };
}

function value(field, text) {
  const isText = field.datatype === "BYTES" || field.kind === "text" || field.kind === "time";
  if (isText) return text;
  if (field.datatype === "BOOL") return text === "true";
  if (text.trim() === "") return null;
  return Number.isNaN(Number(text)) ? text : Number(text);
}

function json(model) {
  const input = make("textarea", { id: "json", required: true, spellcheck: "false" });
  input.value = JSON.stringify(model.example ?? { rows: [] }, null, 1);
  const element = make("div", {}, make("label", { for: "json", text: "The request, as JSON" }), input);
  return { element, ready: () => true, request: () => ({ ...asJson(path(model, "predict"), {}), body: input.value }) };
}

const asJson = (where, content) => ({ path: where, type: "application/json", body: JSON.stringify(content), shown: null });
