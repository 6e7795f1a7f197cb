// Forms: every problem beside its field, and nothing that was typed is lost, not even to an expired session.

import { h, put } from "./dom.js";

const KEPT = "heartlane-draft:";
let ids = 0;

/**
 * A labelled field around an input: [label, input], where `name` is the path under which the server names its problem.
 * `hint` says what is wanted.
 */
export function field(name, label, input, hint = "") {
  ids += 1;
  const id = `field-${ids}`;
  input.id = id;
  input.name = name;
  input.setAttribute("aria-describedby", `${id}-hint ${id}-wrong`);
  return h("div", { class: "field", "data-field": name }, h("label", { for: id }, label), input, h("span", { id: `${id}-hint`, class: "faint" }, hint), h("span", { id: `${id}-wrong`, class: "wrong" }));
}

/**
 * A form that keeps what is typed until it was sent well.
 *
 * key       names the draft
 * submit    async (values) → done; ApiErrors are shown beside their fields
 */
export function form(key, { fields, action, submit, cancel = null }) {
  const wrong = h("p", { class: "wrong", role: "alert" });
  const button = h("button", { class: "primary" }, action);
  const element = h("form", { class: "form", novalidate: true }, fields, wrong, h("div", { class: "ask-buttons" }, cancel, button));
  restore(element, key);
  element.addEventListener("input", () => keep(element, key));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    clear(element, wrong);
    button.disabled = true;
    try {
      await submit(values(element));
      forget(key);
    } catch (error) {
      showProblems(element, wrong, error);
    } finally {
      button.disabled = false;
    }
  });
  return element;
}

/** What the fields hold: text, true or false for boxes. */
export function values(element) {
  const found = {};
  for (const input of element.elements) {
    if (!input.name || (input.type === "radio" && !input.checked)) continue;
    found[input.name] = input.type === "checkbox" ? input.checked : input.value;
  }
  return found;
}

function clear(element, wrong) {
  put(wrong);
  for (const each of element.querySelectorAll("[data-field]")) {
    put(each.querySelector(".wrong"));
    each.querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
  }
}

/** Put each problem beside its field; what has no field stands above the buttons. */
export function showProblems(element, wrong, error) {
  const rest = [];
  let first = null;
  for (const { path, message } of error.issues ?? []) {
    const place = [...element.querySelectorAll("[data-field]")].find(({ dataset }) => path === dataset.field || path.startsWith(`${dataset.field}.`));
    if (!place) {
      rest.push(`${path} ${message}`);
      continue;
    }
    place.querySelector(".wrong").append(`${place.querySelector("label").textContent} ${message}. `);
    const input = place.querySelector("input, select, textarea");
    input?.setAttribute("aria-invalid", "true");
    first ??= input;
  }
  if (!first || rest.length) put(wrong, rest.length ? `${rest.join("; ")}.` : error.message);
  first?.focus();
}

function keep(element, key) {
  try {
    const kept = values(element);
    for (const input of element.elements) if (input.type === "password") delete kept[input.name];
    sessionStorage.setItem(KEPT + key, JSON.stringify(kept));
  } catch {
    // A browser that keeps nothing loses the draft with the page.
  }
}

function restore(element, key) {
  let kept;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT + key) ?? "{}");
  } catch {
    return;
  }
  for (const input of element.elements) {
    if (!(input.name in kept)) continue;
    if (input.type === "checkbox") input.checked = kept[input.name];
    else if (input.type === "radio") input.checked = input.value === kept[input.name];
    else input.value = kept[input.name];
  }
}

function forget(key) {
  try {
    sessionStorage.removeItem(KEPT + key);
  } catch {
    // Nothing was kept.
  }
}
