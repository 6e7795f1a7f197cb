// Numbers, times and states in words.

/** How far this machine's clock stands behind the server's, in milliseconds; learned from its answers. */
let ahead = 0;

/** The server's time, in milliseconds. */
export function now() {
  return Date.now() + ahead;
}

/** Learn the server's time from an answer's `Date`, which counts whole seconds. */
export function learnTime(header) {
  const told = Date.parse(header ?? "");
  if (Number.isNaN(told)) return;
  const difference = told + 500 - Date.now();
  // Within what the header can't say, our own clock is as good.
  ahead = Math.abs(difference) < 1500 ? 0 : difference;
}

/** A length of time in one unit or two: `8 s`, `4 min`, `2 h 10 min`, `3 d`. */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return days < 7 && hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** The same in one unit, for narrow places. */
export function shortDuration(milliseconds) {
  return duration(milliseconds).split(" ").slice(0, 2).join(" ");
}

/** How long ago something was. */
export function ago(time) {
  const passed = now() - Date.parse(time);
  return passed < 1000 ? "just now" : `${shortDuration(passed)} ago`;
}

/** A moment on the clock of who looks, to the second. */
export function clockTime(time) {
  const date = new Date(time);
  return date.toLocaleTimeString("en-GB", { hour12: false });
}

/** A day and a moment. */
export function dateTime(time) {
  const date = new Date(time);
  return `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, ${clockTime(time)}`;
}

/** A count with its word: `1 lane`, `1,204 lanes`. */
export function count(number, word, plural = `${word}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? word : plural}`;
}

/** Tokens in few figures: `842`, `12.4k`, `3.1M`. */
export function tokens(number) {
  if (number < 1000) return String(number);
  if (number < 1_000_000) return `${(number / 1000).toFixed(number < 100_000 ? 1 : 0)}k`;
  return `${(number / 1_000_000).toFixed(1)}M`;
}

/** US dollars: cents where they matter. */
export function dollars(amount) {
  const value = Number(amount);
  return `$${value < 100 ? value.toFixed(2) : Math.round(value).toLocaleString("en")}`;
}

/** Each state: its word, a mark (16 by 16) that tells it apart without colour, and its place among others. */
export const STATES = {
  paused: { word: "Paused", path: "M6 3.500v9M10 3.500v9", rank: 0 },
  running: { word: "Running", path: "M5 3.200v9.600L12.500 8z", rank: 1 },
  claimed: { word: "Claimed", path: "M8 2.500a5.500 5.500 0 1 0 5.500 5.500M8 5v3l2 1.500", rank: 2 },
  shipping: { word: "Shipping", path: "M8 13V3.500M4 7.500l4-4 4 4", rank: 3 },
  released: { word: "Released", path: "M3.500 8a4.500 4.500 0 1 1 1.500 3.400M3 13v-2.500h2.500", rank: 4 },
  queued: { word: "Queued", path: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11", rank: 5 },
  failed: { word: "Failed", path: "M4 4l8 8M12 4l-8 8", rank: 6 },
  shipped: { word: "Shipped", path: "M3 8.500l3.500 3.500 6.500-7.500", rank: 7 },
};

export const HELD = new Set(["claimed", "running", "paused", "shipping"]);
export const WAITING = new Set(["queued", "released"]);
export const ENDED = new Set(["shipped", "failed"]);
export const ROLES = ["frontend", "backend", "test", "design", "devops", "qa", "other"];

/** The part of a worker's id that people gave it; the whole stands in the title. */
export function workerName(id) {
  return (id ?? "").split(":")[0] || "?";
}
