// The workers: who works, who waits for a lane, who is silent, and what each holds.

import { get } from "./api.js";
import { h, put, setAttribute, setText } from "./dom.js";
import { HELD, ago, count, duration, now, workerName } from "./format.js";
import { visibleLine } from "./hostile.js";
import { title } from "./page.js";
import { query } from "./router.js";
import { store } from "./store.js";
import { agoText, command, empty, failure, heading, leaseBar, loading, showLease, stateMark } from "./ui.js";

const AGAIN_MILLISECONDS = 15_000;
const REMEMBERED_MILLISECONDS = 24 * 3_600_000;
const PAGES_MAX = 10;

const KINDS = {
  silent: "Silent",
  working: "Working",
  waiting: "Waiting",
  idle: "Idle",
};

export function mount(main) {
  title("Workers");
  return new Workers(main);
}

class Workers {
  constructor(main) {
    this.without = [];
    this.body = h("div", {}, loading("Reading the workers …"));
    this.sum = h("p", { class: "sum" });
    put(main, heading("Workers", this.sum), this.body);
    this.unsubscribe = store.subscribe(() => this.draw());
    this.read();
  }

  unmount() {
    this.unsubscribe();
    clearTimeout(this.timer);
    this.gone = true;
  }

  changed() {
    this.read();
  }

  /** Those that hold nothing and ask for a lane are known to the server alone. */
  async read() {
    clearTimeout(this.timer);
    try {
      const found = [];
      let cursor;
      for (let page = 0; page < PAGES_MAX && cursor !== null; page++) {
        const answer = await get("/api/agents/workers", { project_id: query().get("project"), holding: false, limit: 200, cursor });
        found.push(...answer.workers);
        cursor = answer.next_cursor;
      }
      this.without = found;
    } catch {
      // What was known stays; the line at the top says that the server is away.
    }
    if (this.gone) return;
    this.draw();
    this.timer = setTimeout(() => this.read(), AGAIN_MILLISECONDS);
  }

  draw() {
    if (store.loading === "loading" && !store.runs.size) return;
    if (store.loading === "failed" && !store.runs.size) {
      put(this.body, failure(store.error, () => store.load()));
      return;
    }
    const workers = [...known(this.without).values()].sort((one, other) => rank(one) - rank(other) || one.id.localeCompare(other.id));
    const key = JSON.stringify(workers.map((worker) => [worker.id, kind(worker), worker.asks, worker.last?.id, worker.runs.map((run) => [run.id, run.state, run.phase, run.title])]));
    setText(this.sum, summary(workers));
    if (!workers.length) {
      if (store.loading === "done") put(this.body, noWorkers());
      return;
    }
    if (key === this.key) {
      this.refresh(workers);
      return;
    }
    this.key = key;
    const focused = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    put(this.body, h("ul", { class: "workers" }, workers.map(card)));
    if (focused) this.body.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  refresh(workers) {
    for (const worker of workers) {
      for (const run of worker.runs) {
        const bar = this.body.querySelector(`.lease[data-run="${run.id}"]`);
        if (bar) showLease(bar, run);
      }
      const heard = this.body.querySelector(`[data-heard-of="${CSS.escape(worker.id)}"] time`);
      if (heard && worker.heard) {
        setAttribute(heard, "data-ago", worker.heard);
        setText(heard, ago(worker.heard));
      }
    }
  }

  tick() {
    this.draw();
  }
}

/** Every worker that is known: those that hold lanes, those that ask for one, those that ended one in the last day. */
function known(without) {
  const found = new Map();
  const worker = (id) => {
    if (!found.has(id)) found.set(id, { id, runs: [], heard: null, asks: null, last: null });
    return found.get(id);
  };
  const since = now() - REMEMBERED_MILLISECONDS;
  for (const run of store.runs.values()) {
    if (!run.worker_id) continue;
    if (HELD.has(run.state)) {
      const holder = worker(run.worker_id);
      holder.runs.push(run);
      if ((run.last_heartbeat ?? run.claimed_at) > (holder.heard ?? "")) holder.heard = run.last_heartbeat ?? run.claimed_at;
    } else if (run.finished_at && Date.parse(run.finished_at) > since) {
      const before = worker(run.worker_id);
      if (!before.last || run.finished_at > before.last.finished_at) before.last = run;
      if (run.finished_at > (before.heard ?? "")) before.heard = run.finished_at;
    }
  }
  for (const each of without) {
    const other = worker(each.worker_id);
    other.asks = each.asks;
    if ((each.last_heard ?? "") > (other.heard ?? "")) other.heard = each.last_heard;
  }
  return found;
}

/** `silent` when a worker that holds lanes has missed two renewals of every one of them; without a lane `waiting` while it asks for one. */
function kind(worker) {
  if (!worker.runs.length) return worker.asks ? "waiting" : "idle";
  const silent = worker.runs.every((run) => {
    if (!run.lease_expires_at || !run.last_heartbeat) return false;
    const deadline = Date.parse(run.lease_expires_at);
    return (deadline - now()) * 3 < deadline - Date.parse(run.last_heartbeat);
  });
  return silent ? "silent" : "working";
}

function rank(worker) {
  return Object.keys(KINDS).indexOf(kind(worker));
}

function summary(workers) {
  if (!workers.length) return "";
  return Object.entries(KINDS)
    .map(([name, word]) => [word, workers.filter((worker) => kind(worker) === name).length])
    .filter(([, number]) => number)
    .map(([word, number]) => `${number} ${word.toLowerCase()}`)
    .join(" · ");
}

function card(worker) {
  const name = kind(worker);
  const shown = visibleLine(worker.id, 200);
  const short = visibleLine(workerName(worker.id), 60);
  return h(
    "li",
    { class: "worker-card", "data-kind": name },
    h(
      "header",
      {},
      h("h2", { dir: "auto" }, short),
      h("span", { class: "kind", "data-kind": name }, KINDS[name]),
      h("span", { class: "heard", "data-heard-of": worker.id }, worker.heard ? ["heard ", agoText(worker.heard)] : ""),
    ),
    short === shown ? null : h("p", { class: "worker-id", dir: "auto" }, shown),
    worker.runs.length ? h("ul", {}, worker.runs.map(held)) : h("p", { class: "faint" }, idle(worker)),
  );
}

function held(run) {
  const bar = leaseBar();
  showLease(bar, run);
  bar.dataset.run = run.id;
  return h(
    "li",
    {},
    stateMark(run.state),
    h("a", { href: `/lanes/${run.id}`, "data-focus": run.id, dir: "auto" }, visibleLine(run.title, 160)),
    h("span", { class: "faint", dir: "auto" }, run.phase ? visibleLine(run.phase, 60) : "no phase yet"),
    h("span", { class: "faint" }, run.claimed_at ? ["for ", h("span", { "data-for-since": run.claimed_at }, duration(now() - Date.parse(run.claimed_at)))] : ""),
    bar,
  );
}

function idle(worker) {
  const parts = [];
  if (worker.asks) parts.push(asking(worker.asks), " first ", agoText(worker.asks.since), ". ");
  if (worker.last) {
    parts.push(worker.last.state === "shipped" ? "Last shipped " : "Last failed ", h("a", { href: `/lanes/${worker.last.id}`, "data-focus": worker.last.id }, visibleLine(worker.last.title, 120)), " ", agoText(worker.last.finished_at), ".");
  }
  return parts;
}

function asking(asks) {
  const labels = Object.entries(asks.labels).map(([name, value]) => visibleLine(`${name}=${value}`, 120));
  return `Asks for ${asks.roles.length ? `a lane of ${asks.roles.join(", ")}` : "any lane"}${labels.length ? `, offers ${labels.join(", ")}` : ""},`;
}

function noWorkers() {
  return [
    empty("No workers", `Nobody holds a lane or asks for one, and nobody did in the last day. ${count([...store.runs.values()].filter((run) => !run.finished_at).length, "lane waits", "lanes wait")}.`),
    h("div", { class: "empty" }, h("p", {}, "Put an agent to work, on any machine that reaches this server:"), command("heartlane work --agent claude --worktree ~/src/app"), h("p", {}, "See beforehand whether all is there for it:"), command("heartlane doctor")),
  ];
}
