// Pieces that every page uses: marks of states, times that tick, leases, dialogs, toasts, and what stands where nothing is.

import { h, put, s, setAttribute, setText } from "./dom.js";
import { STATES, ago, dateTime, duration, now } from "./format.js";

/** A state as a mark and a word; the mark's shape alone tells it. */
export function stateMark(state) {
  return showState(h("span", { class: "state" }, s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path")), h("span")), state);
}

export function showState(mark, state) {
  if (mark.dataset.state !== state) {
    const known = STATES[state] ?? { word: state, path: "M8 2a6 6 0 1 0 0 12 6 6 0 0 0 0-12" };
    mark.dataset.state = state;
    mark.querySelector("path").setAttribute("d", known.path);
    setText(mark.lastChild, known.word);
  }
  return mark;
}

/** How long ago a time was, kept true by the tick. */
export function agoText(time, attributes = {}) {
  if (!time) return h("span", {}, "–");
  return h("time", { datetime: time, title: dateTime(time), "data-ago": time, ...attributes }, ago(time));
}

/** The lease as a bar that shrinks, and what is left of it in words. */
export function leaseBar() {
  const bar = h("span", { class: "lease" }, h("span", { class: "lease-left", "data-lease-text": "" }), h("span", { class: "lease-track" }, h("i")));
  return bar;
}

/** Show a run's lease in a bar; a lane that nobody holds has none. */
export function showLease(bar, run) {
  const held = run.lease_expires_at !== null && run.lease_expires_at !== undefined;
  bar.hidden = !held;
  setAttribute(bar, "data-until", held ? run.lease_expires_at : null);
  setAttribute(bar, "data-heard", held ? (run.last_heartbeat ?? run.claimed_at) : null);
  if (held) tickLease(bar);
}

function tickLease(bar) {
  const until = Date.parse(bar.dataset.until);
  const length = until - Date.parse(bar.dataset.heard);
  const left = until - now();
  const part = Math.max(0, Math.min(1, left / length));
  bar.lastChild.firstChild.style.transform = `scaleX(${part.toFixed(3)})`;
  setAttribute(bar, "data-low", left * 3 < length ? "" : null);
  setText(bar.firstChild, left > 0 ? `${duration(left)} left` : "running out");
}

/** Bring every time and lease on the page up to now: called once a second, and not while nobody looks. */
export function tick(root = document) {
  for (const element of root.querySelectorAll("[data-ago]")) setText(element, ago(element.dataset.ago));
  for (const element of root.querySelectorAll("[data-until]")) tickLease(element);
  for (const element of root.querySelectorAll("[data-for-since]")) {
    setText(element, duration(now() - Date.parse(element.dataset.forSince)));
  }
}

// --- what stands where nothing is ---

export function loading(text = "Loading …") {
  return h("p", { class: "loading" }, text);
}

/** Nothing here yet: what it would be, and the commands that make it. */
export function empty(title, text, commands = []) {
  return h("section", { class: "empty" }, h("h2", {}, title), h("p", {}, text), commands.map(command));
}

/** A command to copy. */
export function command(text) {
  const copy = h("button", { type: "button", class: "quiet", "aria-label": `Copy: ${text}` }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      setText(copy, "Copied");
    } catch {
      getSelection().selectAllChildren(copy.previousSibling);
      setText(copy, "Selected");
    }
    setTimeout(() => setText(copy, "Copy"), 2000);
  });
  return h("div", { class: "command" }, h("code", { tabindex: "0" }, text), copy);
}

/** What went wrong, in the server's words, and a way to try again. */
export function failure(error, again) {
  return h(
    "section",
    { class: "failure", role: "alert" },
    h("h2", {}, error.status === 404 ? "Not here" : "That didn't work"),
    h("p", {}, error.message),
    again ? h("button", { type: "button", onclick: again }, "Try again") : null,
  );
}

// --- dialogs and toasts ---

/**
 * Ask before something is done. Resolves to null when it was left, else to what `read()` gives (true without it).
 *
 * title, body     what it says; body is children
 * action          the button's words, a verb
 * tone            "bad" for what can't be undone
 */
export function ask({ title, body, action, tone = "", read = () => true, cancel = "Leave it" }) {
  return new Promise((resolve) => {
    const from = document.activeElement;
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      h("div", { class: "ask-body" }, body),
      h(
        "div",
        { class: "ask-buttons" },
        h("button", { value: "", formnovalidate: true, type: "button", onclick: () => dialog.close("") }, cancel),
        h("button", { value: "yes", class: tone === "bad" ? "bad" : "primary" }, action),
      ),
    );
    const dialog = h("dialog", { class: "ask", "aria-labelledby": "ask-title" }, form);
    // The policy lets no form be sent anywhere, and a dialog needs none to be.
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close("yes");
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close(""));
    dialog.addEventListener("close", () => {
      const answer = dialog.returnValue === "yes" ? read() : null;
      dialog.remove();
      from?.isConnected && from.focus();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A dialog that shows something; it is closed by Escape, its button, or a click beside it. */
export function show(title, ...body) {
  const from = document.activeElement;
  const close = h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { class: "show", "aria-labelledby": "show-title" }, h("header", {}, h("h2", { id: "show-title" }, title), close), body);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    from?.isConnected && from.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const TOAST_MILLISECONDS = 7_000;

/** A short notice that goes by itself; one with an error stays until it is closed. */
export function toast(text, { tone = "" } = {}) {
  const notice = h("div", { class: `toast ${tone}` }, h("span", {}, text), h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => notice.remove() }, "×"));
  const toasts = document.getElementById("toasts");
  toasts.append(notice);
  while (toasts.childElementCount > 4) toasts.firstChild.remove();
  if (tone !== "bad") setTimeout(() => notice.remove(), TOAST_MILLISECONDS);
}

/** The banner across the page: one text, or none. */
export function banner(text, tone = "") {
  const element = document.getElementById("banner");
  if (!text) put(element);
  else if (element.textContent !== text) put(element, h("p", { class: tone }, text));
}

/** A heading with what stands beside it. */
export function heading(title, ...beside) {
  return h("header", { class: "page-head" }, h("h1", {}, title), beside);
}

/** A link that looks like a button to filter by, pressed or not. */
export function chip(label, number, { href, on, tone = "" }) {
  return h("a", { href, class: "chip", "aria-current": on ? "true" : null, "data-tone": tone }, label, number === null ? null : h("b", {}, number.toLocaleString("en")));
}

let choices = 0;

/** A labelled select; `options` are [value, words]. */
export function choice(label, value, options, onchange) {
  const id = `choice-${(choices += 1)}`;
  const select = h("select", { id, onchange: () => onchange(select.value) }, options.map(([each, words]) => h("option", { value: each, selected: each === value }, words)));
  return h("div", { class: "choice" }, h("label", { for: id }, label), select);
}

/** A part of a page under a heading of its own. */
export function panel(words, ...children) {
  return h("section", { class: "panel", "aria-label": words }, h("h2", {}, words), children);
}
