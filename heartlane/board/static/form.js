// Forms: every problem beside its field, and nothing that was typed is lost, not even to an expired session.

import { h, put } from "./dom.js";
import { visibleLine } from "./hostile.js";

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
 * tone      of the button: "primary", or "bad" for what can't be undone
 * submit    async (values) → done; ApiErrors are shown beside their fields
 */
export function form(key, { fields, action, submit, cancel = null, tone = "primary" }) {
  const wrong = h("p", { class: "wrong", role: "alert" });
  const button = h("button", { class: tone }, action);
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

/**
 * Several boxes under one name: `options` are [value, words, ticked]. They are sent as `NAME:VALUE`; `ticked` gathers them.
 */
export function boxes(name, label, options, hint = "") {
  ids += 1;
  const id = `field-${ids}`;
  return h(
    "fieldset",
    { class: "field boxes", "data-field": name, "aria-describedby": `${id}-hint ${id}-wrong` },
    h("legend", { "data-label": "" }, label),
    h("span", { id: `${id}-hint`, class: "faint" }, hint),
    h("div", { class: "box-list" }, options.map(([value, words, on]) => h("label", { class: "check" }, h("input", { type: "checkbox", name: `${name}:${value}`, checked: on }), h("span", {}, words)))),
    h("span", { id: `${id}-wrong`, class: "wrong" }),
  );
}

/** The values of the boxes under a name that are ticked. */
export function ticked(name, found) {
  return Object.entries(found)
    .filter(([key, on]) => on === true && key.startsWith(`${name}:`))
    .map(([key]) => key.slice(name.length + 1));
}

/** What was typed as a number; null for nothing; what is no number as it is, so that the server says what is wrong. */
export function number(text) {
  const typed = text.trim().replaceAll(/[\s,_](?=\d{3})/g, "");
  if (typed === "") return null;
  return /^-?\d+(\.\d+)?$/.test(typed) ? Number(typed) : text;
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
    const within = visibleLine(path.slice(place.dataset.field.length + 1), 80);
    place.querySelector(".wrong").append(`${place.querySelector("label, [data-label]").textContent}${within ? `: ${within}` : ""} ${message}. `);
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

/** A draft is wanted no more: what is typed next begins anew. */
export function forget(key) {
  try {
    sessionStorage.removeItem(KEPT + key);
  } catch {
    // Nothing was kept.
  }
}
