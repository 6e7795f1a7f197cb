// Why a lane needs a hand, and what it waits for, in words.

import { duration, now, workerName } from "./format.js";
import { visibleLine } from "./hostile.js";
import { attention, store } from "./store.js";

/** How pressing each reason is: the first first. */
export const URGENCY = ["waiting_for_human", "budget", "lease_running_out", "stalled", "paused", "failed"];

/** A reason in two or three words. */
export const REASONS = {
  waiting_for_human: "Waits for you",
  budget: "Budget used up",
  lease_running_out: "Not heard from",
  stalled: "Stalled",
  paused: "Paused",
  failed: "Failed",
};

/** Why a person should look at a lane now, as it goes on behind the words of REASONS; null where nobody need. */
export function reason(run) {
  const why = attention(run);
  const worker = visibleLine(workerName(run.worker_id), 40);
  const last = run.log_line ? visibleLine(run.log_line, 300) : "";
  switch (why) {
    case null:
      return null;
    case "waiting_for_human":
      return last || `${worker} can't go on without an answer.`;
    case "budget":
      return `${worker} stands still until somebody raises the budget, or says “go on”.`;
    case "lease_running_out": {
      const left = Date.parse(run.lease_expires_at) - now();
      const quiet = duration(now() - Date.parse(run.last_heartbeat));
      return `${worker} was last heard ${quiet} ago; the lane is ${left > 0 ? `taken back in ${duration(left)} if that stays so` : "being taken back"}.`;
    }
    case "stalled":
      return `heartbeats come, and nothing else.${last ? ` Last: ${last}` : ""}`;
    case "paused":
      return `${worker} keeps the lane until somebody resumes, releases or cancels it.`;
    case "failed":
      return run.error ? visibleLine(run.error, 300) : "without a word.";
    default:
      return visibleLine(why, 80);
  }
}

/** What a lane that nobody works waits for. */
export function waitsFor(run) {
  const left = (run.blocked_by ?? []).filter((id) => (store.runs.get(id)?.state ?? "queued") !== "shipped");
  if (run.blocked_by?.length && left.length) {
    const first = store.runs.get(left[0]);
    const more = left.length > 1 ? ` and ${left.length - 1} more` : "";
    return `Waits for the lane ${first ? visibleLine(first.lane_key, 60) : "before it"}${more}`;
  }
  if (run.not_before && Date.parse(run.not_before) > now()) return `Can be claimed in ${duration(Date.parse(run.not_before) - now())}`;
  return "Waits for a worker";
}
