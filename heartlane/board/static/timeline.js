// A run's attempts and their phases over time, drawn from its log.

import { h, put, s } from "./dom.js";
import { clockTime, count, duration, now, workerName } from "./format.js";
import { visibleLine } from "./hostile.js";

export const TOLD = ["claimed", "phase_change", "error", "ship_complete", "lease_expired", "released", "paused", "resumed", "cancelled", "retried"];

const ROW = 34;
const BAR = 20;
const LEFT = 92;
const AXIS = 22;
const ATTEMPTS_MAX = 8;
const GAP = 26;
const COLOURS = 6;
const KNOWN = { reading: 0, planning: 0, implementing: 1, editing: 1, tests: 2, testing: 2, review: 3, shipping: 4, waiting: 5 };

const ENDS = {
  ship_complete: "shipped",
  lease_expired: "taken back",
  released: "released",
  cancelled: "cancelled",
  failed: "failed",
};

/** The attempts of a run, from the events that TOLD names, in order: who, from when to when, phases, pauses, errors. */
export function attempts(events, run) {
  const found = [];
  let current = null;
  const end = (at, how) => {
    if (!current) return;
    closePhase(at);
    if (current.pausedAt) current.pauses.push([current.pausedAt, at]);
    current.pausedAt = null;
    current.end = at;
    current.how = how;
    current = null;
  };
  const closePhase = (at) => {
    const last = current.phases.at(-1);
    if (last && last.to === null) last.to = at;
  };
  for (const event of events) {
    const at = moment(event, current);
    if (event.type === "claimed") {
      end(at, "released");
      current = { number: event.attempt, worker: event.worker_id ?? event.payload?.worker_id, start: at, end: null, how: null, phases: [{ name: "", from: at, to: null }], pauses: [], errors: [], pausedAt: null };
      found.push(current);
    } else if (!current) continue;
    else if (event.type === "phase_change") {
      const name = typeof event.payload?.phase === "string" ? event.payload.phase : "";
      if (name && name !== current.phases.at(-1).name) {
        closePhase(at);
        current.phases.push({ name, from: at, to: null });
      }
    } else if (event.type === "error") {
      current.errors.push({ at, text: String(event.payload?.message ?? "") });
      if (event.payload?.fatal === true) end(at, "failed");
    } else if (event.type === "paused") current.pausedAt ??= at;
    else if (event.type === "resumed") {
      if (current.pausedAt) current.pauses.push([current.pausedAt, at]);
      current.pausedAt = null;
    } else if (event.type in ENDS) end(at, ENDS[event.type]);
  }
  if (current && run.phase && current.phases.length === 1) current.phases[0].name = run.phase;
  return found;
}

/** When an event happened: by the worker's clock, where that fits between what the server saw. */
function moment(event, current) {
  const recorded = Date.parse(event.recorded_at);
  const told = Date.parse(event.at ?? "");
  const before = current ? current.phases.at(-1).from : recorded;
  return told >= before && told <= recorded ? told : recorded;
}

/** Draw into `box`. Call it again when something has changed, or a second has passed. */
export function draw(box, events, run) {
  const all = attempts(events, run);
  if (!all.length) {
    put(box, h("p", { class: "faint" }, "Nobody has claimed it yet."));
    return;
  }
  const shown = all.slice(-ATTEMPTS_MAX);
  const width = Math.max(280, box.clientWidth);
  const scale = makeScale(shown, width - LEFT - 12);
  const height = shown.length * ROW + AXIS;
  const drawing = s("svg", { class: "timeline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": inWords(all) });
  drawing.append(
    s("defs", {}, s("pattern", { id: "paused", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, s("rect", { width: 2.5, height: 6, class: "hatch" }))),
  );
  for (const [index, attempt] of shown.entries()) drawing.append(row(attempt, index * ROW, scale));
  drawing.append(axis(scale, shown.length * ROW, shown));
  const parts = [drawing];
  if (all.length > shown.length) parts.push(h("p", { class: "note" }, `The last ${shown.length} of ${count(all.length, "attempt")}.`));
  parts.push(table(all));
  const open = box.querySelector("details")?.open;
  put(box, parts);
  if (open) box.querySelector("details").open = true;
}

/** Time to pixels. Times in which nobody worked are cut short where they would press the work together. */
function makeScale(shown, width) {
  const spans = shown.map((attempt) => [attempt.start, Math.max(attempt.end ?? now(), attempt.start + 1000)]);
  const active = spans.reduce((sum, [from, to]) => sum + to - from, 0);
  const gaps = [];
  for (let index = 1; index < spans.length; index += 1) {
    const gap = [spans[index - 1][1], spans[index][0]];
    if (gap[1] - gap[0] > active * 0.06) gaps.push(gap);
  }
  const cut = gaps.reduce((sum, [from, to]) => sum + to - from, 0);
  const start = spans[0][0];
  const total = spans.at(-1)[1] - start - cut;
  const room = Math.max(60, width - gaps.length * GAP);
  const x = (time) => {
    let skipped = 0;
    let pixels = 0;
    for (const [from, to] of gaps) {
      if (time <= from) break;
      skipped += Math.min(time, to) - from;
      pixels += (GAP * (Math.min(time, to) - from)) / (to - from);
    }
    return LEFT + ((time - start - skipped) / total) * room + pixels;
  };
  return { x, gaps, start, end: spans.at(-1)[1] };
}

function row(attempt, top, { x }) {
  const end = attempt.end ?? now();
  const y = top + (ROW - BAR) / 2;
  const parts = [
    s("text", { x: 0, y: y + 14, class: "who" }, cutText(`${attempt.number}  ${visibleLine(workerName(attempt.worker), 40)}`, 13)),
  ];
  const names = [];
  for (const phase of attempt.phases) {
    const from = x(phase.from);
    const wide = Math.max(1.5, x(phase.to ?? end) - from);
    const name = phase.name ? visibleLine(phase.name, 60) : "started";
    const kind = `phase p${colour(phase.name)}`;
    const told = s("title", {}, `${name}: ${duration((phase.to ?? end) - phase.from)}, from ${clockTime(phase.from)}`);
    parts.push(s("g", { class: kind }, s("rect", { x: from, y, width: wide, height: BAR, rx: 2 }, told)));
    if (wide > 34) names.push(s("g", { class: kind }, s("text", { x: from + 6, y: y + 14 }, cutText(name, Math.floor((wide - 8) / 6.6)))));
  }
  for (const [from, to] of [...attempt.pauses, ...(attempt.pausedAt ? [[attempt.pausedAt, end]] : [])]) {
    parts.push(s("rect", { x: x(from), y: y + BAR - 6, width: Math.max(2, x(to) - x(from)), height: 6, fill: "url(#paused)" }, s("title", {}, `paused for ${duration(to - from)}`)));
  }
  parts.push(...names);
  for (const error of attempt.errors) {
    const at = x(error.at);
    parts.push(s("path", { class: "error-mark", d: `M${at - 4} ${y - 5}h8l-4 6z` }, s("title", {}, `${clockTime(error.at)}: ${visibleLine(error.text, 200)}`)));
  }
  if (attempt.how) {
    const bad = attempt.how !== "shipped" && attempt.how !== "released";
    parts.push(s("path", { class: attempt.how === "shipped" ? "end good" : bad ? "end bad" : "end", d: `M${x(end)} ${y - 3}v${BAR + 6}` }, s("title", {}, `${attempt.how} at ${clockTime(end)}`)));
  } else parts.push(s("circle", { class: "now", cx: x(end), cy: y + BAR / 2, r: 4 }));
  return s("g", {}, parts);
}

function axis({ x, gaps, start, end }, top, shown) {
  const marks = [];
  const places = [];
  const say = (time, text, anchor) => {
    const at = x(time);
    const from = anchor === "end" ? at - 52 : anchor === "middle" ? at - 26 : at;
    if (places.some(([one, other]) => from < other && from + 52 > one)) return;
    places.push([from, from + 60]);
    marks.push(s("text", { x: at, y: top + 15, "text-anchor": anchor, class: "tick" }, text));
  };
  say(start, clockTime(start), "start");
  say(end, shown.at(-1).end ? clockTime(end) : "now", "end");
  for (const attempt of shown.slice(1)) say(attempt.start, clockTime(attempt.start), "middle");
  const whole = end - start - gaps.reduce((sum, [from, to]) => sum + to - from, 0);
  if (!gaps.length) for (const part of [0.25, 0.5, 0.75]) say(start + whole * part, clockTime(start + whole * part), "middle");
  for (const [from, to] of gaps) {
    const at = (x(from) + x(to)) / 2;
    marks.push(s("path", { class: "gap", d: `M${at - 4} ${top + 4}l4 -8M${at} ${top + 4}l4 -8` }, s("title", {}, `nobody worked it for ${duration(to - from)}`)));
  }
  return s("g", {}, s("path", { class: "axis", d: `M${LEFT} ${top}H${x(end)}` }), marks);
}

/** The colour of a phase: usual ones have theirs, others take one by their name, always the same. */
function colour(name) {
  const key = name.toLowerCase();
  if (!key) return "none";
  if (key in KNOWN) return KNOWN[key];
  let sum = 0;
  for (const character of key) sum = (sum * 31 + character.codePointAt(0)) % 997;
  return sum % COLOURS;
}

function cutText(text, most) {
  return text.length > most ? `${text.slice(0, Math.max(0, most - 1))}…` : text;
}

function inWords(all) {
  const last = all.at(-1);
  return `${count(all.length, "attempt")}. The last one, by ${visibleLine(workerName(last.worker), 40)}: ${last.phases.filter((phase) => phase.name).map((phase) => visibleLine(phase.name, 40)).join(", ") || "no phase"}${last.how ? `, ${last.how}` : ", going on"}.`;
}

function table(all) {
  const rows = all.flatMap((attempt) =>
    attempt.phases
      .filter((phase) => phase.name || attempt.phases.length === 1)
      .map((phase) => h("tr", {}, h("td", {}, String(attempt.number)), h("td", { dir: "auto" }, visibleLine(workerName(attempt.worker), 60)), h("td", { dir: "auto" }, visibleLine(phase.name || "started", 60)), h("td", {}, clockTime(phase.from)), h("td", {}, duration((phase.to ?? attempt.end ?? now()) - phase.from)))),
  );
  return h(
    "details",
    {},
    h("summary", {}, "As a table"),
    h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Attempts and phases" }, h("table", {}, h("thead", {}, h("tr", {}, ["Attempt", "Worker", "Phase", "From", "For"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows.slice(-200)))),
  );
}
