// The plans: what waits for a person to approve it, and how far the work of the others has come.

import { get } from "./api.js";
import { h, put, s, setAttribute, setText } from "./dom.js";
import { STATES, count } from "./format.js";
import { visibleLine } from "./hostile.js";
import { title } from "./page.js";
import { query, withParameters } from "./router.js";
import { store } from "./store.js";
import { agoText, chip, empty, failure, heading, loading } from "./ui.js";

const PAGE = 50;
const AGAIN_MILLISECONDS = 1_000;

/** A plan's status: its word, and a mark (16 by 16). */
export const STATUSES = {
  pending: { word: "To approve", path: "M8 2.500a5.500 5.500 0 1 0 0 11 5.500 5.500 0 0 0 0-11M8 5v3.500M8 11v.1" },
  approved: { word: "Approved", path: "M3 8.500l3.500 3.500 6.500-7.500" },
  rejected: { word: "Rejected", path: "M4 4l8 8M12 4l-8 8" },
};

export function statusMark(status) {
  const known = STATUSES[status] ?? { word: status, path: "M8 2a6 6 0 1 0 0 12 6 6 0 0 0 0-12" };
  return h("span", { class: "state", "data-state": status }, s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: known.path })), h("span", {}, known.word));
}

export function mount(main) {
  title("Plans");
  return new Plans(main);
}

class Plans {
  constructor(main) {
    this.plans = new Map();
    this.cursor = null;
    this.turn = 0;
    this.chips = h("nav", { class: "chips", "aria-label": "Filter by status" });
    this.body = h("div", {}, loading("Reading the plans …"));
    put(main, heading("Plans", this.chips), this.body);
    this.keys = [{ keys: "/", text: "To the first plan", run: () => this.body.querySelector("a")?.focus() }];
    this.unsubscribe = store.subscribe((changed) => this.hear(changed));
    this.changed();
  }

  unmount() {
    this.unsubscribe();
    clearTimeout(this.again);
    this.turn += 1;
  }

  changed() {
    this.status = STATUSES[query().get("status")] ? query().get("status") : null;
    this.plans.clear();
    this.key = null;
    this.showChips();
    put(this.body, loading("Reading the plans …"));
    this.read();
  }

  showChips() {
    const waiting = this.waiting ?? null;
    put(
      this.chips,
      chip("All", null, { href: withParameters({ status: null }), on: this.status === null }),
      Object.entries(STATUSES).map(([status, { word }]) => chip(word, status === "pending" ? waiting : null, { href: withParameters({ status }), on: this.status === status, tone: status === "pending" && waiting ? "hand" : "" })),
    );
  }

  async read(cursor = null) {
    const turn = (this.turn += 1);
    const project = query().get("project");
    const list = (status, limit) => get("/api/agents/plans", { project_id: project, status, limit, cursor });
    try {
      // Those that wait for somebody come first, however old they are.
      const [answer, pending] = await Promise.all([
        list(this.status, PAGE),
        cursor === null ? get("/api/agents/plans", { project_id: project, status: "pending", limit: 200 }) : null,
      ]);
      if (turn !== this.turn) return;
      for (const plan of [...(this.status === null ? (pending?.plans ?? []) : []), ...answer.plans]) this.plans.set(plan.id, plan);
      if (pending) this.waiting = pending.next_cursor ? null : pending.plans.length;
      this.cursor = answer.next_cursor;
      this.error = null;
    } catch (error) {
      if (turn !== this.turn) return;
      this.error = error;
    }
    this.showChips();
    this.draw();
  }

  /** A plan that the stream tells of stands in the list at once; how many wait is read. */
  hear(changed) {
    if (changed === null) {
      let news = false;
      for (const [id, plan] of store.plans) {
        const known = this.plans.get(id);
        if (!plan?.updated_at || (known && known.updated_at >= plan.updated_at)) continue;
        if (known || (this.newest && plan.created_at > this.newest)) news = true;
      }
      if (news) {
        clearTimeout(this.again);
        this.again = setTimeout(() => this.read(), AGAIN_MILLISECONDS / 4);
      }
    }
    this.draw();
  }

  draw() {
    if (this.error) {
      put(this.body, failure(this.error, () => this.changed()));
      return;
    }
    if (this.turn === 1 && !this.plans.size && this.waiting === undefined) return;
    const plans = [...this.plans.values()].filter((plan) => this.status === null || plan.status === this.status);
    plans.sort((one, other) => (other.status === "pending") - (one.status === "pending") || other.created_at.localeCompare(one.created_at));
    this.newest = plans.reduce((newest, plan) => (plan.created_at > newest ? plan.created_at : newest), " ");
    const key = JSON.stringify([plans.map((plan) => [plan.id, plan.status, plan.updated_at]), this.cursor]);
    if (key === this.key) {
      for (const plan of plans) showProgress(this.body.querySelector(`[data-progress="${plan.id}"]`), plan);
      return;
    }
    this.key = key;
    const focused = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    put(
      this.body,
      plans.length ? h("ul", { class: "plans" }, plans.map(card)) : this.nothing(),
      this.cursor ? h("p", { class: "center" }, h("button", { type: "button", "data-focus": "more", onclick: () => this.read(this.cursor) }, "Older plans")) : null,
    );
    if (focused) this.body.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  nothing() {
    if (this.status === "pending") return empty("Nothing to approve", "Every plan was decided. A new one stands here as soon as somebody makes it.", ["heartlane plan create plan.yaml"]);
    if (this.status) return empty(`No ${this.status} plans`, "None of the plans is like that.");
    return empty("No plans yet", "A plan says which lanes there are to work. Write one to a file and bring it here; it is worked once somebody approves it.", ["heartlane plan create plan.yaml"]);
  }
}

function card(plan) {
  const roles = [...new Set(plan.lanes.map((lane) => lane.role))];
  const project = store.projects.size > 1 ? store.projects.get(plan.project_id)?.name : null;
  return h(
    "li",
    { class: "plan-card", "data-status": plan.status },
    h("header", {}, statusMark(plan.status), h("h2", { dir: "auto" }, h("a", { href: `/plans/${plan.id}`, "data-focus": plan.id }, visibleLine(plan.title, 200)))),
    h(
      "p",
      { class: "faint" },
      [count(plan.lanes.length, "lane"), roles.join(", "), plan.source_ticket_ids.length ? `from ${count(plan.source_ticket_ids.length, "ticket")}` : null, project ? visibleLine(project, 60) : null].filter(Boolean).join(" · "),
      " · made ",
      agoText(plan.created_at),
    ),
    plan.rejection_reason ? h("p", { class: "plan-reason", dir: "auto" }, visibleLine(plan.rejection_reason, 300)) : null,
    plan.status === "approved" ? showProgress(progressBar(plan.id), plan) : null,
  );
}

// --- progress ---

const ORDER = ["shipped", "shipping", "running", "claimed", "paused", "failed", "released", "queued"];

/** An empty bar of a plan's progress; `showProgress` fills it. */
export function progressBar(id) {
  return h("div", { class: "progress", "data-progress": id }, s("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }), h("p", {}));
}

/** How many lanes of an approved plan stand in which state, from `runs` or what the board follows. */
export function countStates(plan, runs = null) {
  const found = Object.fromEntries(ORDER.map((state) => [state, 0]));
  let known = 0;
  for (const run of runs ?? store.runs.values()) {
    if (run.plan_id !== plan.id) continue;
    found[run.state] = (found[run.state] ?? 0) + 1;
    known += 1;
  }
  // Of the shipped lanes the board reads only the last ones; everything else it knows once it has read the lanes.
  if (runs === null) {
    if (store.loading !== "done" || store.more.lanes) return null;
    found.shipped += Math.max(0, plan.lanes.length - known);
  }
  return found;
}

/** Bring a bar up to now. */
export function showProgress(bar, plan, runs = null) {
  if (!bar) return null;
  const counts = countStates(plan, runs);
  const key = JSON.stringify(counts);
  if (bar.dataset.key === key) return bar;
  bar.dataset.key = key;
  const [drawing, words] = bar.children;
  if (counts === null) {
    setText(words, "Reading how far it is …");
    return bar;
  }
  const all = Object.values(counts).reduce((sum, each) => sum + each, 0) || 1;
  let at = 0;
  put(
    drawing,
    ORDER.filter((state) => counts[state]).map((state) => {
      const width = (100 * counts[state]) / all;
      const rect = s("rect", { x: at.toFixed(2), y: 0, width: width.toFixed(2), height: 1, class: `fill-${state}` });
      at += width;
      return rect;
    }),
  );
  const rest = ORDER.filter((state) => state !== "shipped" && counts[state]).map((state) => `${counts[state]} ${STATES[state].word.toLowerCase()}`);
  setText(words, counts.shipped === all ? `All ${all} shipped` : [`${counts.shipped} of ${all} shipped`, ...rest].join(" · "));
  setAttribute(bar, "data-done", counts.shipped === all ? "" : null);
  return bar;
}
