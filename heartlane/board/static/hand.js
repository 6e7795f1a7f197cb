// The operator's hand on a lane: pause, resume, release, cancel, retry. Each says beforehand what will happen.

import { post } from "./api.js";
import { h } from "./dom.js";
import { HELD, clockTime, duration, now, workerName } from "./format.js";
import { visibleLine } from "./hostile.js";
import { store } from "./store.js";
import { ask, toast } from "./ui.js";

/**
 * Every verb: its word, the key that asks for it, the states in which it can be done, and what it will do to a run.
 */
export const VERBS = {
  pause: {
    word: "Pause",
    key: "p",
    states: ["claimed", "running", "shipping"],
    says: (run) => [
      `${who(run)} keeps the lane and its lease, and is told to stand still.`,
      hears(run),
      "It goes on where it was when you resume it.",
    ],
  },
  resume: {
    word: "Resume",
    key: "p",
    states: ["paused"],
    says: (run) => [`${who(run)} is told to go on.`, hears(run)],
  },
  release: {
    word: "Release",
    key: "e",
    states: ["claimed", "running", "paused", "shipping"],
    says: (run) => [
      `The lane is taken from ${who(run)} at once, and any worker that fits may claim it: attempt ${run.attempt + 1}. No failure is counted.`,
      `What ${who(run)} reports from then on changes nothing; it stops when it hears that. ${hears(run)}`,
    ],
  },
  cancel: {
    word: "Cancel",
    key: "x",
    tone: "bad",
    states: ["queued", "released", "claimed", "running", "paused", "shipping"],
    says: (run) => [
      "The lane ends as failed, and lanes that wait for it go on waiting. “Retry” queues it again.",
      HELD.has(run.state) ? `${who(run)} is told to stop. ${hears(run)}` : null,
    ],
  },
  retry: {
    word: "Retry",
    key: "r",
    states: ["failed"],
    says: (run) => [
      `The lane is queued again with no failures counted. The next worker that fits claims it as attempt ${run.attempt + 1}.`,
    ],
  },
};

/** The verbs that can be used on a lane now, the likeliest first. */
export function verbsFor(run) {
  return Object.keys(VERBS).filter((verb) => VERBS[verb].states.includes(run.state));
}

function who(run) {
  return visibleLine(workerName(run.worker_id), 60);
}

/** When a holder hears of what was decided: truly, by how often it has to report. */
export function hears(run) {
  if (!run.lease_expires_at || !run.last_heartbeat) return "It hears of it with its next report.";
  const length = Date.parse(run.lease_expires_at) - Date.parse(run.last_heartbeat);
  const due = Date.parse(run.last_heartbeat) + length / 3 - now();
  const next = due > 1000 ? `at the latest with its next report, due within ${duration(due)}` : "with its next report, which is due now";
  return `A \`heartlane work\` hears of it at once; any other worker ${next}.`;
}

/** Ask, then do it. `verb` is one of VERBS; true when it was done. */
export async function act(verb, run) {
  const { word, says, tone } = VERBS[verb];
  const go = await ask({
    title: `${word} “${visibleLine(run.title, 120)}”?`,
    body: says(run)
      .filter(Boolean)
      .map((text) => h("p", {}, ...inline(text))),
    action: word,
    tone,
  });
  if (go === null) return false;
  try {
    const answer = await post(`/api/agents/runs/${run.id}/${verb}`);
    store.put(answer.run);
    toast(done(verb, answer.run));
    return true;
  } catch (error) {
    if (error.body?.run) store.put(error.body.run);
    toast(error.message, { tone: "bad" });
    return false;
  }
}

function inline(text) {
  return text.split(/(`[^`]+`)/).map((part) => (part.startsWith("`") ? h("code", {}, part.slice(1, -1)) : part));
}

function done(verb, run) {
  const lane = visibleLine(run.title, 80);
  switch (verb) {
    case "pause":
      return `Paused “${lane}”.`;
    case "resume":
      return `“${lane}” goes on.`;
    case "release":
      return `Released “${lane}”: it waits for a worker.`;
    case "cancel":
      return `Cancelled “${lane}”.`;
    default:
      return `Queued “${lane}” again.`;
  }
}

/** Whether the holder has heard of the pause: it reported since. `since` is when the lane was paused. */
export function heard(run, since) {
  if (!since || !HELD.has(run.state)) return null;
  return Date.parse(run.last_heartbeat) > Date.parse(since)
    ? `${who(run)} knows since ${clockTime(run.last_heartbeat)}.`
    : `${who(run)} may not know yet: it last reported ${duration(now() - Date.parse(run.last_heartbeat))} ago. ${hears(run)}`;
}

/** The buttons of a lane. */
export function handButtons(run, onDone = () => {}) {
  return verbsFor(run).map((verb) =>
    h(
      "button",
      {
        type: "button",
        class: VERBS[verb].tone === "bad" ? "bad-quiet" : "",
        "aria-keyshortcuts": VERBS[verb].key,
        "data-verb": verb,
        onclick: async () => (await act(verb, store.runs.get(run.id) ?? run)) && onDone(verb),
      },
      VERBS[verb].word,
    ),
  );
}
