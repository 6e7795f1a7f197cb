// One lane: what it is, who works it, how it went, what it says, and what can be decided about it.

import { get, may } from "./api.js";
import { h, put, setAttribute, setText } from "./dom.js";
import { TOLD, draw as drawTimeline } from "./timeline.js";
import { HELD, count, dollars, tokens, workerName } from "./format.js";
import { handButtons, heard } from "./hand.js";
import { outside, visible, visibleLine } from "./hostile.js";
import { verbKeys } from "./lanes.js";
import { Live } from "./live.js";
import { LogView } from "./log.js";
import { title } from "./page.js";
import { REASONS, reason, waitsFor } from "./reasons.js";
import { go } from "./router.js";
import { attention, onFrame, store } from "./store.js";
import { agoText, failure, leaseBar, loading, showLease, showState, stateMark } from "./ui.js";

const TOLD_PAGES = 15;
const ACTION_PAGES = 20;
const TIMELINE_TYPES = new Set(TOLD);
const EDITS = /edit|write|patch|create|update|delete|change|replace|move|notebook/i;

export async function mount(main, { id }) {
  title("Lane");
  put(main, loading("Reading the lane …"));
  let detail;
  try {
    detail = (await get(`/api/agents/runs/${encodeURIComponent(id)}`)).run;
  } catch (error) {
    put(main, h("h1", {}, "Lane"), failure(error, error.status === 404 ? null : () => location.reload()), h("p", { class: "center" }, h("a", { href: "/" }, "All lanes")));
    return {};
  }
  const page = new Lane(main, detail, await may("operator").catch(() => false));
  page.start();
  return page;
}

class Lane {
  constructor(main, detail, operator) {
    this.detail = detail;
    this.operator = operator;
    this.id = detail.id;
    store.put(detail);
    this.told = [];
    this.files = new Map();
    this.errors = [];
    this.actions = 0;
    this.abort = new AbortController();
    this.build(main);
    this.keys = [
      ...(operator ? verbKeys(() => this.run) : []),
      { keys: "s", text: "Follow the log, or stand still", run: () => this.log.setFollowing(!this.log.following) },
      { keys: "/", text: "Search the log", run: () => this.log.search.focus() },
      { keys: "u", text: "Up to all lanes", run: () => go("/") },
    ];
    this.unsubscribe = store.subscribe((changed) => (changed === null || changed.has(this.id)) && this.show());
    this.show();
  }

  /** The run as it is known now, with what only its own reading tells. */
  get run() {
    return { ...this.detail, ...store.runs.get(this.id) };
  }

  build(main) {
    const run = this.detail;
    this.state = stateMark(run.state);
    this.why = h("p", { class: "why", role: "status" });
    this.heard = h("p", { class: "note" });
    this.hand = h("div", { class: "hand", role: "group", "aria-label": "What can be done" });
    this.timeline = h("div", { class: "timeline-box" }, loading("Reading what happened …"));
    this.log = new LogView(this.id, () => this.run.event_count);
    this.lease = leaseBar();
    this.facts = h("dl", { class: "facts" });
    this.filesPanel = h("section", { class: "panel", "aria-label": "Files touched", hidden: true });
    this.errorsPanel = h("section", { class: "panel", "aria-label": "Errors", hidden: true });
    put(
      main,
      h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "/" }, "Lanes"), " / ", (this.planLink = h("a", { href: `/?plan=${run.plan_id}` }, "Plan"))),
      h("header", { class: "page-head lane-head" }, h("h1", { dir: "auto" }, visibleLine(run.title, 300)), this.state, this.hand),
      this.why,
      this.heard,
      h(
        "div",
        { class: "lane-page" },
        h("div", { class: "lane-main" }, h("section", { class: "panel", "aria-label": "Timeline" }, h("h2", {}, "Timeline"), this.timeline), this.log.element),
        h("div", { class: "lane-side" }, h("section", { class: "panel", "aria-label": "About the lane" }, this.lease, this.facts), this.errorsPanel, this.filesPanel, task(run)),
      ),
    );
    this.resizing = new ResizeObserver(() => this.soon());
    this.resizing.observe(this.timeline);
  }

  async start() {
    title(visibleLine(this.detail.title, 80));
    try {
      await this.log.open(this.detail.event_count);
    } catch (error) {
      if (error.name !== "AbortError") put(this.log.lines, failure(error, () => this.start()));
      return;
    }
    if (this.abort.signal.aborted) return;
    this.live = new Live(`/api/agents/runs/${this.id}/stream?heartbeats=true&after=${this.log.log.last}`, {
      onEvent: (type, data) => this.hear(type, data),
      onState: (state) => store.live || store.say(state),
    });
    await Promise.allSettled([this.readTold(), this.readActions()]);
  }

  unmount() {
    this.unsubscribe();
    this.abort.abort();
    this.live?.stop();
    this.log.unmount();
    this.resizing.disconnect();
  }

  tick() {
    const run = this.run;
    if (HELD.has(run.state)) this.soon();
    this.showWhy(run);
  }

  hear(type, data) {
    if (type === "run") {
      store.put(data.run ?? data);
      return;
    }
    if (type === "end" || typeof data.seq !== "number") return;
    this.log.hear(data);
    if (data.seq > (this.toldTo ?? 0)) this.take(data);
    this.soon();
  }

  take(event) {
    if (TIMELINE_TYPES.has(event.type)) this.told.push(event);
    if (event.type === "error" || event.type === "lease_expired") this.errors.push(event);
    if (event.type === "action") this.act(event);
  }

  act({ payload }) {
    this.actions += 1;
    const names = Array.isArray(payload?.files) ? payload.files : payload?.file ? [payload.file] : [];
    // A tool call is told when it starts and when it ends: its end alone says how it went.
    const ended = typeof payload?.ok === "boolean" && payload?.id !== undefined;
    for (const name of names) {
      if (typeof name !== "string" || this.files.size > 2_000) continue;
      const file = this.files.get(name) ?? { edits: 0, looks: 0 };
      if (!ended) file[EDITS.test(String(payload.tool ?? "")) ? "edits" : "looks"] += 1;
      this.files.set(name, file);
    }
  }

  /** What the timeline is drawn from, whatever the length of the log. */
  async readTold() {
    const seen = new Set(this.told.map((event) => event.seq));
    const found = [];
    let after = 0;
    for (let page = 0; page < TOLD_PAGES; page += 1) {
      const answer = await get(`/api/agents/runs/${this.id}/events`, { after, type: [...TIMELINE_TYPES], limit: 200 }, this.abort.signal);
      found.push(...answer.events.filter((event) => !seen.has(event.seq)));
      if (answer.next_cursor === null) break;
      after = answer.next_cursor;
      this.cut = page === TOLD_PAGES - 1;
    }
    this.told = [...found, ...this.told].sort((one, other) => one.seq - other.seq);
    this.errors = this.told.filter((event) => event.type === "error" || event.type === "lease_expired");
    this.soon();
  }

  async readActions() {
    const last = this.log.log.last;
    let after = 0;
    for (let page = 0; page < ACTION_PAGES; page += 1) {
      const answer = await get(`/api/agents/runs/${this.id}/events`, { after, type: "action", limit: 200 }, this.abort.signal);
      for (const event of answer.events) if (event.seq <= last) this.act(event);
      if (answer.next_cursor === null) break;
      after = answer.next_cursor;
      this.actionsCut = page === ACTION_PAGES - 1;
    }
    this.soon();
  }

  soon() {
    if (this.framed) return;
    this.framed = true;
    onFrame(() => {
      this.framed = false;
      if (this.abort.signal.aborted) return;
      drawTimeline(this.timeline, this.told, this.run);
      if (this.cut) this.timeline.append(h("p", { class: "note" }, "The log is too long to draw whole: this is its beginning."));
      this.showErrors();
      this.showFiles();
    });
  }

  show() {
    const run = this.run;
    showState(this.state, run.state);
    this.showWhy(run);
    this.showHand(run);
    showLease(this.lease, run);
    setText(this.planLink, visibleLine(store.planTitle(run.plan_id) ?? "Plan", 100));
    this.showFacts(run);
    this.soon();
  }

  showWhy(run) {
    const why = attention(run);
    setAttribute(this.why, "data-why", why);
    const said = why ? `${REASONS[why] ?? why}: ${reason(run)}` : ["queued", "released"].includes(run.state) ? waitsFor(run) : "";
    // Said aloud when the reason changes, and not with every second that it counts.
    if (this.why.dataset.said !== `${why}`) setText(this.why, said);
    else if (this.why.textContent !== said) this.why.firstChild ? (this.why.firstChild.data = said) : setText(this.why, said);
    this.why.dataset.said = `${why}`;
    this.why.hidden = !said;
    const paused = run.state === "paused" ? this.told.findLast((event) => event.type === "paused") : null;
    const text = paused ? heard(run, paused.recorded_at) : null;
    this.heard.hidden = !text;
    if (text) setText(this.heard, text.replaceAll("`", ""));
  }

  showHand(run) {
    const key = `${run.state} ${this.operator}`;
    if (this.handKey === key) return;
    this.handKey = key;
    const focused = this.hand.contains(document.activeElement);
    put(this.hand, this.operator ? handButtons(run) : h("span", { class: "faint" }, "You may look. An operator's token may act."));
    if (focused) (this.hand.querySelector("button") ?? document.getElementById("main")).focus();
  }

  showFacts(run) {
    const key = JSON.stringify([run.updated_at, run.state, run.worker_id, run.event_count, run.last_heartbeat, run.input_tokens, run.cost_usd]);
    if (this.factsKey === key) return;
    this.factsKey = key;
    put(this.facts, facts(run));
  }

  showErrors() {
    const key = `${this.errors.length} ${this.errors.at(-1)?.seq}`;
    if (this.errorsKey === key) return;
    this.errorsKey = key;
    this.errorsPanel.hidden = !this.errors.length;
    const text = ({ type, payload, worker_id: worker }) => (type === "lease_expired" ? `Taken back from ${workerName(worker)}, who was not heard from` : (payload?.message ?? payload?.reason ?? "An error without words"));
    put(
      this.errorsPanel,
      h("h2", {}, count(this.errors.length, "error")),
      h("ol", { class: "errors", reversed: true }, this.errors.slice(-10).reverse().map((event) => h("li", {}, h("span", { dir: "auto" }, visibleLine(text(event), 400)), " ", agoText(event.recorded_at, { class: "faint" })))),
      this.errors.length > 10 ? h("p", { class: "note" }, "The last ten; the log has all.") : null,
    );
  }

  showFiles() {
    const edited = [...this.files].filter(([, file]) => file.edits || file.looks);
    const key = `${this.actions} ${edited.length}`;
    if (this.filesKey === key) return;
    this.filesKey = key;
    this.filesPanel.hidden = !edited.length;
    edited.sort(([one, a], [other, b]) => (b.edits > 0) - (a.edits > 0) || one.localeCompare(other));
    const open = this.filesPanel.querySelector("details")?.open;
    const item = ([name, file]) => h("li", {}, h("span", { class: "path", dir: "ltr" }, visibleLine(name, 300)), h("span", { class: "faint" }, file.edits ? `changed${file.edits > 1 ? ` ${file.edits}×` : ""}` : "read"));
    put(
      this.filesPanel,
      h("h2", {}, `${count(edited.length, "file")} touched`),
      h("ul", { class: "files" }, edited.slice(0, 12).map(item)),
      edited.length > 12 ? h("details", { open: open ?? false }, h("summary", {}, `${edited.length - 12} more`), h("ul", { class: "files" }, edited.slice(12, 500).map(item))) : null,
      this.actionsCut ? h("p", { class: "note" }, "Of the first 4,000 actions.") : null,
    );
  }
}

function facts(run) {
  const used = (run.input_tokens ?? 0) + (run.output_tokens ?? 0);
  const rows = [
    ["Worker", run.worker_id && h("span", { class: "path", dir: "auto" }, visibleLine(run.worker_id, 200))],
    ["Last heard", run.last_heartbeat && agoText(run.last_heartbeat)],
    ["Phase", run.phase && visibleLine(run.phase, 200)],
    ["Attempt", run.attempt ? `${run.attempt}, ${run.failures} of ${run.max_failures} failures` : "none yet"],
    ["Role", run.role],
    ["Key", h("code", {}, visibleLine(run.lane_key, 100))],
    ["Asks for", Object.keys(run.labels ?? {}).length ? Object.entries(run.labels).map(([name, value]) => h("code", {}, visibleLine(`${name}=${value}`, 100))) : null],
    ["Agent", [run.agent, run.model].filter(Boolean).map((text) => visibleLine(text, 80)).join(", ")],
    ["Spent", [run.cost_usd != null ? dollars(run.cost_usd) : null, used ? `${tokens(run.input_tokens ?? 0)} in, ${tokens(run.output_tokens ?? 0)} out` : null].filter(Boolean).join(" · ")],
    ["Pull request", run.pr_url && outside(run.pr_url)],
    ["Branch", run.branch && h("code", {}, visibleLine(run.branch, 200))],
    ["Commit", run.commit && h("code", {}, visibleLine(run.commit, 60))],
    ["Waits for", run.blocked_by?.length ? run.blocked_by.map((id) => h("a", { href: `/lanes/${id}` }, visibleLine(store.runs.get(id)?.lane_key ?? id.slice(0, 8), 60))).flatMap((link, index) => (index ? [", ", link] : [link])) : null],
    ["Planned", agoText(run.created_at)],
    ["Claimed", run.claimed_at && agoText(run.claimed_at)],
    ["Ended", run.finished_at && agoText(run.finished_at)],
  ];
  return rows.filter(([, value]) => value && value.length !== 0).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
}

/** What the worker is asked to do, and what it said at the end. */
function task(run) {
  const parts = [];
  if (run.summary) parts.push(h("h2", {}, "Summary"), h("p", { class: "prose", dir: "auto" }, visible(run.summary, 10_000)));
  if (run.tickets?.length) {
    parts.push(h("h2", {}, "Tickets"), h("ul", { class: "plain" }, run.tickets.map((ticket) => h("li", { dir: "auto" }, visibleLine(ticket.title, 200), ticket.external_url ? [" ", outside(ticket.external_url)] : null))));
  }
  if (run.prompt) parts.push(h("details", {}, h("summary", {}, "What it is asked to do"), h("pre", { class: "prose", dir: "auto", tabindex: "0" }, visible(run.prompt, 50_000))));
  return parts.length ? h("section", { class: "panel", "aria-label": "Task" }, parts) : null;
}
