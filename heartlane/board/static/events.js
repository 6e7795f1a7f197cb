// What an event says, in words; and the events of a run, of which no more are kept than a page can bear.

import { get } from "./api.js";
import { clockTime, count, duration, workerName } from "./format.js";
import { visible } from "./hostile.js";

export const KEPT_MAX = 5_000;
export const KEPT_CHARACTERS_MAX = 12_000_000;
const PAGE = 200;

/** Each type: its word, and the kind by which the log filters. */
export const TYPES = {
  log_line: ["said", "output"],
  action: ["did", "actions"],
  phase_change: ["phase", "phases"],
  error: ["error", "errors"],
  ship_complete: ["shipped", "phases"],
  claimed: ["claimed", "phases"],
  lease_expired: ["taken back", "errors"],
  released: ["released", "phases"],
  paused: ["paused", "phases"],
  resumed: ["resumed", "phases"],
  cancelled: ["cancelled", "phases"],
  retried: ["retried", "phases"],
  pull_request: ["pull request", "phases"],
  heartbeat: ["heartbeat", "heartbeats"],
};

/** The kinds that the log shows or leaves out, and whether it shows them at first. */
export const KINDS = { output: true, actions: true, phases: true, errors: true, heartbeats: false };

export function kindOf(event) {
  return TYPES[event.type]?.[1] ?? "output";
}

/** The text of an event, whole and as it was sent: show it through `visible` alone. */
export function eventText(event) {
  const payload = event.payload ?? {};
  const text = (value) => (value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));
  const by = payload.by ? ` by ${text(payload.by)}` : "";
  const worker = workerName(event.worker_id ?? payload.worker_id);
  switch (event.type) {
    case "log_line":
      return text(payload.line ?? payload.message);
    case "action": {
      const about = text(payload.file ?? payload.command ?? payload.detail ?? payload.branch ?? payload.pr_url);
      const how = payload.ok === true ? " ✓" : payload.ok === false ? " ✕" : "";
      const took = typeof payload.ms === "number" ? ` (${duration(payload.ms)})` : "";
      return `${text(payload.tool ?? "action")} ${about}${how}${took}`;
    }
    case "phase_change":
      return `${text(payload.phase)}${payload.for ? `, for ${text(payload.for)}` : ""}`;
    case "error":
      return `${text(payload.message ?? payload.reason)}${payload.fatal === true ? " (the lane failed by it)" : ""}`;
    case "ship_complete":
      return [payload.pr_url, payload.branch, payload.commit, payload.summary].filter(Boolean).map(text).join(" · ") || "without a word";
    case "claimed":
      return `by ${worker}, attempt ${event.attempt}, for ${duration(1000 * (payload.lease_seconds ?? 0))}`;
    case "lease_expired":
      return `from ${worker}: last heard ${payload.last_heard ? clockTime(payload.last_heard) : "never"}, lease until ${payload.deadline ? clockTime(payload.deadline) : "?"}, failure ${payload.failures} of ${payload.max_failures}${payload.last_log_line ? `; last: ${text(payload.last_log_line)}` : ""}`;
    case "released":
      return `${by || `by ${worker}`}${payload.failed ? " as failed" : ""}${payload.retry_after ? `, again in ${duration(1000 * payload.retry_after)}` : ""}${payload.reason ? `: ${text(payload.reason)}` : ""}`.trim();
    case "pull_request":
      return `${text(payload.state)}${by}: ${text(payload.url)}`;
    case "paused":
    case "resumed":
    case "cancelled":
    case "retried":
      return by.trim();
    case "heartbeat":
      return Object.keys(payload).length ? JSON.stringify(payload) : "";
    default:
      return JSON.stringify(payload);
  }
}

/** The part of a text that search looks at, in small letters. */
export function searchText(event) {
  event.found ??= visible(`${TYPES[event.type]?.[0] ?? event.type} ${eventText(event)}`, 4_000).toLowerCase();
  return event.found;
}

/**
 * Events of one run without a gap: `first` to `last`. Past a bound the ones farthest from where it grows are let go,
 * and can be read again.
 */
export class EventLog {
  constructor(runId) {
    this.runId = runId;
    this.reset(0);
  }

  reset(after) {
    this.events = [];
    this.characters = 0;
    this.after = after;
  }

  /** The `seq` of the last event that is kept (or before the first that will be). */
  get last() {
    return this.events.at(-1)?.seq ?? this.after;
  }

  get first() {
    return this.events[0]?.seq ?? this.after + 1;
  }

  /** Add what came behind `last`; true if it was new. */
  append(event) {
    if (event.seq <= this.last) return false;
    this.events.push(event);
    this.characters += size(event);
    return true;
  }

  /** Let go of the oldest, past the bounds; how many. */
  trimOldest() {
    let gone = 0;
    while (this.isFull(this.events.length - gone) && this.events.length - gone > 1) {
      this.characters -= size(this.events[gone]);
      gone += 1;
    }
    if (gone) this.events.splice(0, gone);
    return gone;
  }

  trimNewest() {
    let gone = 0;
    while (this.isFull(this.events.length) && this.events.length > 1) {
      this.characters -= size(this.events.pop());
      gone += 1;
    }
    return gone;
  }

  isFull(number) {
    return number > KEPT_MAX || this.characters > KEPT_CHARACTERS_MAX;
  }

  /** Read the page before `first`; the events of it. */
  async readBefore(signal) {
    const before = this.first;
    const after = Math.max(0, before - 1 - PAGE);
    const found = await this.read(after, before, signal);
    this.events.unshift(...found);
    this.characters += found.reduce((sum, event) => sum + size(event), 0);
    return found;
  }

  /** Read what follows `last`, up to a bound; whether the end was reached. */
  async readAfter(signal) {
    const after = this.last;
    const answer = await get(`/api/agents/runs/${this.runId}/events`, { after, limit: PAGE }, signal);
    for (const event of answer.events) this.append(event);
    return answer.next_cursor === null;
  }

  async read(after, before, signal) {
    const found = [];
    let place = after;
    while (place < before - 1) {
      const answer = await get(`/api/agents/runs/${this.runId}/events`, { after: place, limit: Math.min(PAGE, before - 1 - place) }, signal);
      found.push(...answer.events.filter((event) => event.seq < before));
      if (!answer.events.length) break;
      place = answer.events.at(-1).seq;
    }
    return found;
  }
}

function size(event) {
  event.size ??= 120 + JSON.stringify(event.payload ?? {}).length;
  return event.size;
}

/** How many events, in words. */
export function eventCount(number) {
  return count(number, "event");
}
