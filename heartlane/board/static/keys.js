// The board by keyboard alone. Single keys may be switched off, for who speaks to the machine.

import { h } from "./dom.js";
import { LEAVE_KEYS, leave } from "./leave.js";
import { show } from "./ui.js";
import { go } from "./router.js";

const SEQUENCE_MILLISECONDS = 1200;
const KEPT = "heartlane-keys";

let page = [];
let waiting = null;
let timer = 0;

/** The keys of the page that is shown: [{keys, text, run}]; each page sets its own. */
export function pageKeys(list) {
  page = list;
}

function on() {
  try {
    return localStorage.getItem(KEPT) !== "off";
  } catch {
    return true;
  }
}

function navigation() {
  return [...document.querySelectorAll("nav.main-nav a")].map((link) => ({
    keys: `g ${link.dataset.key}`,
    text: `Go to ${link.textContent}`,
    run: () => go(link.getAttribute("href")),
  }));
}

function all() {
  return [...page, ...navigation(), { keys: LEAVE_KEYS, text: "Log out", run: leave }, { keys: "?", text: "Show these keys", run: help }];
}

function isTyping(element) {
  return element?.closest?.("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.key === "Escape" && isTyping(event.target) && !document.querySelector("dialog[open]")) {
    event.target.blur();
    return;
  }
  if (!on() || isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const pressed = waiting ? `${waiting} ${event.key}` : event.key;
  clearTimeout(timer);
  waiting = null;
  const found = all().find(({ keys }) => keys === pressed || keys.split(" or ").includes(pressed));
  if (found) {
    event.preventDefault();
    found.run(event);
  } else if (all().some(({ keys }) => keys.startsWith(`${pressed} `))) {
    waiting = pressed;
    timer = setTimeout(() => (waiting = null), SEQUENCE_MILLISECONDS);
  }
}

/** Show every key that does something here. */
export function help() {
  const rows = all().map(({ keys, text }) =>
    h("div", {}, h("dt", {}, keys.split(" ").map((key) => (key === "or" ? " or " : h("kbd", {}, key)))), h("dd", {}, text)),
  );
  const box = h("input", { type: "checkbox", checked: on() });
  box.addEventListener("change", () => {
    try {
      localStorage.setItem(KEPT, box.checked ? "on" : "off");
    } catch {
      // Then they stay on.
    }
  });
  show("Keys", h("dl", { class: "keys" }, rows), h("label", { class: "check" }, box, "Single keys do something"));
}

export function startKeys() {
  addEventListener("keydown", press);
  document.getElementById("help").addEventListener("click", help);
}
