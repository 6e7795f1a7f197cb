// What agents and repositories wrote is hostile text: shown as it is, never run, never linked blindly, and without the
// characters that would make it look like something else.

import { h } from "./dom.js";

export const SHOWN_MAX = 2000;

// Directions and joiners that turn text around or hide it, and everything else that has no shape of its own.
const INVISIBLE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]|[\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;
// What terminals take for colours, titles and links: left out, for nobody means to read it.
const ANSI = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[PX^_][^\u001b]*\u001b\\|[ -/]*[0-~])/g;
const COMBINING = /(\p{M}{4})\p{M}+/gu;

/**
 * Text as it may be shown: terminal sequences left out, control and direction characters made visible (`␛`, `‹U+202E›`),
 * towers of accents cut, and no more than `most` characters.
 */
export function visible(text, most = SHOWN_MAX) {
  let shown = typeof text === "string" ? text : String(text ?? "");
  // Cut first, so that the rest costs the same for a line of any length.
  const left = shown.length - most;
  if (left > 0) shown = shown.slice(0, most);
  shown = shown
    .replace(/\r\n/g, "\n")
    .replace(ANSI, "")
    .replace(INVISIBLE, picture)
    .replace(COMBINING, "$1")
    .replace(/\p{Surrogate}/gu, "\ufffd");
  return left > 0 ? `${shown} … ${left.toLocaleString("en")} more characters` : shown;
}

function picture(character) {
  const code = character.codePointAt(0);
  // A variation selector behind an emoji or a sign changes its look alone; alone on a line it says nothing.
  if (code === 0xfe0f || code === 0xfe0e) return "";
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
}

/** One line of it: breaks become ⏎. */
export function visibleLine(text, most = SHOWN_MAX) {
  return visible(text, most).replace(/\n/g, " ⏎ ");
}

/** The address, where it is one that may be linked: http or https, nothing else. */
export function safeUrl(text) {
  if (typeof text !== "string" || text.length > 2048) return null;
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url : null;
  } catch {
    return null;
  }
}

/** A link to another host that says which; the bare text where it can't be linked. */
export function outside(text, label = null) {
  const url = safeUrl(text);
  if (url === null) return h("span", { class: "unlinked", dir: "auto" }, visibleLine(text, 200));
  // `host` is in Punycode: letters of other alphabets can't pass for ours.
  const shown = label === null ? `${url.host}${visibleLine(url.pathname, 60)}` : `${label}`;
  return h(
    "a",
    { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank", title: `Opens ${url.host}` },
    shown,
    h("span", { class: "host" }, label === null ? "" : ` ${url.host}`),
    h("span", { class: "sr" }, " (opens another site)"),
  );
}
