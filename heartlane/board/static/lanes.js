// The lanes: what needs a hand first, then what is being worked, what waits, and what has ended.

import { watchBudgets } from "./budget.js";
import { h, put, setAttribute, setText, spoken } from "./dom.js";
import { ENDED, HELD, ROLES, STATES, WAITING, count, dollars, now, shortDuration, tokens, workerName } from "./format.js";
import { VERBS, act, verbsFor } from "./hand.js";
import { safeUrl, visibleLine } from "./hostile.js";
import { title } from "./page.js";
import { REASONS, URGENCY, reason, waitsFor } from "./reasons.js";
import { go, query, withParameters } from "./router.js";
import { attention, store } from "./store.js";
import { chip, choice, command, empty, failure, leaseBar, loading, show, showLease, showState, stateMark } from "./ui.js";
import { VirtualList } from "./virtual.js";

const SORT_MILLISECONDS = 250;

/** What the chips choose by, and how the list is parted where nothing else is chosen. */
const PARTS = [
  { name: "hand", word: "Needs a hand", holds: (run) => attention(run) !== null },
  { name: "working", word: "Being worked", holds: (run) => HELD.has(run.state) },
  { name: "waiting", word: "Waiting", holds: (run) => WAITING.has(run.state) },
  { name: "failed", word: "Failed", holds: (run) => run.state === "failed" },
  { name: "shipped", word: "Shipped", holds: (run) => run.state === "shipped" },
];

const GROUPS = {
  plan: (run) => store.planTitle(run.plan_id) ?? "Plan",
  role: (run) => run.role,
  worker: (run) => (HELD.has(run.state) ? workerName(run.worker_id) : "Nobody"),
};

export function mount(main) {
  title("Lanes");
  return new Lanes(main);
}

class Lanes {
  constructor(main) {
    this.chips = h("nav", { class: "chips", "aria-label": "Lanes by state" });
    this.search = h("input", { type: "search", placeholder: "Title, worker, phase, last line …", "aria-label": "Search lanes", "aria-keyshortcuts": "/", autocomplete: "off", spellcheck: "false", value: query().get("q") ?? "" });
    this.search.addEventListener("input", () => this.set({ q: this.search.value.trim() }));
    this.choices = h("div", { class: "choices" });
    this.rows = h("div", { class: "rows", role: "rowgroup" });
    this.table = h("div", { class: "lanes", role: "table", "aria-label": "Lanes" }, columnHeads(), this.rows);
    this.below = h("div", { class: "below" });
    const budgets = h("div", { role: "status", "aria-label": "Budgets" });
    put(
      main,
      budgets,
      h("header", { class: "page-head lanes-head" }, h("h1", {}, "Lanes"), this.chips),
      h("div", { class: "filters", role: "search" }, this.search, this.choices),
      this.table,
      this.below,
    );
    this.list = new VirtualList(this.rows, {
      make: (item) => (item.kind === "group" ? makeGroup() : makeRow()),
      update: (element, item) => (item.kind === "group" ? showGroup(element, item) : showRow(element, store.runs.get(item.key))),
      heights: () => {
        const style = getComputedStyle(this.table);
        return { row: parseFloat(style.getPropertyValue("--row")), group: parseFloat(style.getPropertyValue("--group-row")) };
      },
    });
    this.keys = [
      { keys: "j or ArrowDown", text: "Next lane", run: () => this.step(1) },
      { keys: "k or ArrowUp", text: "Lane before", run: () => this.step(-1) },
      { keys: "/", text: "Search", run: () => this.search.focus() },
      { keys: "f", text: "Only what needs a hand, or all", run: () => this.set({ state: query().get("state") === "hand" ? null : "hand" }) },
      { keys: "a", text: "What can be done with the lane", run: () => this.menu() },
      ...verbKeys(() => this.current()),
    ];
    this.unsubscribe = store.subscribe((changed) => this.hear(changed));
    this.endBudgets = watchBudgets(budgets);
    this.changed();
  }

  unmount() {
    this.unsubscribe();
    this.endBudgets();
    this.list.destroy();
    clearTimeout(this.sorting);
  }

  set(changes) {
    go(withParameters(changes), { replace: true });
  }

  /** The address has changed. */
  changed() {
    const wanted = query();
    if (document.activeElement !== this.search) this.search.value = wanted.get("q") ?? "";
    put(
      this.choices,
      choice("Role", wanted.get("role") ?? "", [["", "All roles"], ...ROLES.map((role) => [role, role])], (role) => this.set({ role })),
      choice("Group by", wanted.get("by") ?? "", [["", "What matters"], ["plan", "Plan"], ["role", "Role"], ["worker", "Worker"]], (by) => this.set({ by })),
    );
    this.sort();
  }

  hear(changed) {
    if (changed !== null) this.list.refresh(changed);
    // Rows say what is new at once; their order is put right a few times a second.
    this.sorting ??= setTimeout(() => this.sort(), changed === null ? 0 : SORT_MILLISECONDS);
  }

  tick() {
    this.sorting ??= setTimeout(() => this.sort(), 0);
    this.list.refresh(null);
  }

  sort() {
    clearTimeout(this.sorting);
    this.sorting = null;
    const wanted = query();
    const matches = matcher(wanted);
    const found = [...store.runs.values()].filter(matches);
    this.showChips(found, wanted);
    const part = PARTS.find((each) => each.name === wanted.get("state"));
    const chosen = part ? found.filter(part.holds) : found;
    const groups = group(chosen, wanted.get("by"));
    const items = [];
    for (const [name, runs] of groups) {
      items.push({ kind: "group", key: `group ${name}`, name, count: runs.length });
      for (const run of runs) items.push({ kind: "row", key: run.id });
    }
    this.list.set(items);
    setAttribute(this.table, "aria-rowcount", items.length + 1);
    this.table.hidden = items.length === 0;
    this.showBelow(chosen.length, wanted);
  }

  showChips(runs, wanted) {
    const state = wanted.get("state");
    const counts = PARTS.map((part) => runs.reduce((sum, run) => sum + part.holds(run), 0));
    const key = JSON.stringify([counts, runs.length, location.search]);
    if (this.chipsKey === key) return;
    this.chipsKey = key;
    const focused = this.chips.contains(document.activeElement) ? [...this.chips.children].indexOf(document.activeElement) : -1;
    put(
      this.chips,
      chip("All", runs.length, { href: withParameters({ state: null }), on: !state }),
      PARTS.map((part, index) =>
        chip(part.word, counts[index], {
          href: withParameters({ state: state === part.name ? null : part.name }),
          on: state === part.name,
          tone: part.name === "hand" && counts[index] ? "hand" : "",
        }),
      ),
    );
    if (focused >= 0) this.chips.children[focused]?.focus();
  }

  showBelow(shown, wanted) {
    const filtered = ["q", "state", "role", "plan", "worker"].some((name) => wanted.get(name));
    const key = [store.loading, store.error?.message, shown === 0, filtered, store.more.ended, store.more.lanes].join();
    if (this.belowKey === key) return;
    this.belowKey = key;
    const parts = [];
    if (store.loading === "failed") parts.push(failure(store.error, () => store.load()));
    else if (store.loading === "loading" && shown === 0) parts.push(loading("Reading the lanes …"));
    else if (store.loading === "done" && shown === 0) {
      if (filtered) {
        parts.push(empty("No lane fits", "None of the lanes is like that."), h("p", { class: "center" }, h("a", { href: withParameters({ q: null, state: null, role: null, plan: null, worker: null }) }, "Show all lanes")));
      } else parts.push(noLanes());
    }
    if (store.more.ended && store.loading === "done") parts.push(h("p", { class: "note" }, "Of the shipped lanes the last thousand are shown. All of them: ", h("code", {}, "heartlane lanes --state shipped")));
    put(this.below, parts);
  }

  step(by) {
    const rows = this.list.items;
    let index = this.list.focused();
    if (index < 0) index = by > 0 ? -1 : rows.length;
    do index += by;
    while (rows[index]?.kind === "group");
    this.list.focus(index);
  }

  current() {
    const item = this.list.items[this.list.focused()];
    return item ? store.runs.get(item.key) : null;
  }

  menu() {
    const run = this.current();
    if (run) openMenu(run);
  }
}

/** The keys of the operator's hand, on whatever lane `current()` gives. */
export function verbKeys(current) {
  const keys = new Map();
  for (const [verb, { key, word }] of Object.entries(VERBS)) keys.set(key, [...(keys.get(key) ?? []), [verb, word]]);
  return [...keys].map(([key, verbs]) => ({
    keys: key,
    text: `${verbs.map(([, word]) => word).join(" or ")} the lane`,
    run: () => {
      const run = current();
      const verb = run && verbs.map(([each]) => each).find((each) => VERBS[each].states.includes(run.state));
      if (verb) act(verb, run);
    },
  }));
}

function openMenu(run) {
  const buttons = verbsFor(run).map((verb) =>
    h("button", { type: "button", "data-verb": verb, class: VERBS[verb].tone === "bad" ? "bad-quiet" : "", onclick: () => (dialog.close(), act(verb, store.runs.get(run.id) ?? run)) }, `${VERBS[verb].word} …`),
  );
  const dialog = show(
    visibleLine(run.title, 120),
    h("div", { class: "menu" }, buttons.length ? buttons : h("p", {}, "A shipped lane is done: nothing is left to decide."), h("a", { class: "button", href: `/lanes/${run.id}`, onclick: () => dialog.close() }, "Open the lane")),
  );
}

function matcher(wanted) {
  const words = (wanted.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const [role, plan, worker] = ["role", "plan", "worker"].map((name) => wanted.get(name));
  return (run) => {
    if (role && run.role !== role) return false;
    if (plan && run.plan_id !== plan) return false;
    if (worker && run.worker_id !== worker) return false;
    if (!words.length) return true;
    const text = `${run.title} ${run.lane_key} ${run.role} ${run.state} ${run.worker_id ?? ""} ${run.phase ?? ""} ${run.log_line ?? ""} ${run.branch ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word) || (word.length > 5 && run.id.startsWith(word)));
  };
}

function urgency(run) {
  const why = attention(run);
  return why === null ? URGENCY.length : URGENCY.indexOf(why);
}

function age(run) {
  return run.finished_at ?? run.claimed_at ?? run.created_at;
}

/** The lanes in their groups: an order that no report alone changes, so that rows stay where the eye left them. */
function group(runs, by) {
  const found = new Map();
  const keyOf = GROUPS[by] ?? ((run) => PARTS.find((part) => part.holds(run)).word);
  const keyed = runs.map((run) => ({ run, urgent: urgency(run), rank: STATES[run.state]?.rank ?? 9, at: age(run) ?? "" }));
  keyed.sort(
    (one, other) =>
      one.urgent - other.urgent ||
      one.rank - other.rank ||
      (WAITING.has(one.run.state) ? (other.run.priority ?? 0) - (one.run.priority ?? 0) : 0) ||
      (ENDED.has(one.run.state) ? compare(other.at, one.at) : compare(one.at, other.at)) ||
      compare(one.run.id, other.run.id),
  );
  for (const { run } of keyed) {
    const key = keyOf(run);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(run);
  }
  if (!GROUPS[by]) return PARTS.map((part) => [part.word, found.get(part.word)]).filter(([, each]) => each);
  return [...found].sort(([one], [other]) => one.localeCompare(other));
}

function compare(one, other) {
  return one < other ? -1 : one > other ? 1 : 0;
}

// --- rows ---

const COLUMNS = ["State", "Lane", "Worker and lease", "Phase", "Time", "Try", "Spent", "Result", "Hand", "Last line"];

function columnHeads() {
  return h("div", { class: "column-heads", role: "row", "aria-rowindex": "1" }, COLUMNS.map((name) => h("span", { role: "columnheader", class: `c-${name.split(" ")[0].toLowerCase()}` }, ["Hand", "Last line"].includes(name) ? spoken(name) : name)));
}

function makeGroup() {
  return h("div", { class: "group-row", role: "row" }, h("div", { role: "rowheader" }, h("h2", {}, h("span"), h("b"))));
}

function showGroup(element, item) {
  const [name, number] = element.querySelector("h2").children;
  setText(name, visibleLine(item.name, 120));
  setText(number, count(item.count, "lane"));
}

function makeRow() {
  const cell = (name, ...children) => h("div", { class: `c-${name}`, role: "cell" }, children);
  const row = h("div", { class: "lane-row", role: "row" });
  const parts = {
    state: stateMark("queued"),
    link: h("a", { class: "lane-title" }),
    key: h("span", { class: "lane-key" }),
    line: h("span", { class: "line", dir: "auto" }),
    worker: h("span", { class: "worker", dir: "auto" }),
    lease: leaseBar(),
    phase: h("span", { dir: "auto" }),
    time: h("span"),
    attempt: h("span"),
    spent: h("span"),
    result: h("span"),
    more: h("button", { type: "button", class: "quiet icon" }, "⋯"),
  };
  row.append(
    cell("state", parts.state),
    cell("lane", parts.link, parts.key),
    cell("worker", parts.worker, parts.lease),
    cell("phase", parts.phase),
    cell("time", parts.time),
    cell("try", parts.attempt),
    cell("spent", parts.spent),
    cell("result", parts.result),
    cell("hand", parts.more),
    cell("line", parts.line),
  );
  row.parts = parts;
  parts.more.addEventListener("click", () => openMenu(store.runs.get(row.dataset.key)));
  row.addEventListener("click", (event) => {
    if (!event.target.closest("a, button") && getSelection().isCollapsed) parts.link.click();
  });
  return row;
}

/** Bring a row up to date. Everything of a run is hostile text, and goes through `visibleLine`. */
function showRow(row, run) {
  const { parts } = row;
  const why = attention(run);
  setAttribute(row, "data-why", why);
  showState(parts.state, run.state);
  setText(parts.link, visibleLine(run.title, 200));
  setAttribute(parts.link, "href", `/lanes/${run.id}`);
  setText(parts.key, `${visibleLine(run.lane_key, 60)} · ${run.role}`);
  const said = why ? `${REASONS[why] ?? ""}: ${reason(run)}` : WAITING.has(run.state) ? waitsFor(run) : visibleLine(run.log_line ?? run.summary ?? "", 300);
  setText(parts.line, said);
  setAttribute(parts.line, "data-waits", WAITING.has(run.state) ? "" : null);
  setAttribute(parts.line, "title", said.length > 60 ? said : null);
  const held = HELD.has(run.state);
  setText(parts.worker, run.worker_id ? visibleLine(workerName(run.worker_id), 60) : "");
  setAttribute(parts.worker, "title", run.worker_id ? visibleLine(run.worker_id, 200) : null);
  showLease(parts.lease, run);
  setText(parts.phase, run.phase ? visibleLine(run.phase, 60) : "");
  const at = age(run);
  setText(parts.time, at ? shortDuration(now() - Date.parse(at)) + (ENDED.has(run.state) ? " ago" : "") : "");
  setAttribute(parts.time, "title", ENDED.has(run.state) ? "since it ended" : held ? "since it was claimed" : "since it was planned");
  setText(parts.attempt, run.attempt > 1 || run.failures ? `${run.attempt}${run.failures ? ` (${run.failures}✕)` : ""}` : run.attempt ? String(run.attempt) : "");
  setAttribute(parts.attempt, "title", `attempt ${run.attempt}, ${run.failures} of ${run.max_failures} failures`);
  setText(parts.spent, spent(run));
  showResult(parts.result, run);
  const label = `What can be done with ${visibleLine(run.title, 100)}`;
  setAttribute(parts.more, "aria-label", label);
}

/** Tokens and cost, as far as they are known. */
export function spent(run) {
  const used = (run.input_tokens ?? 0) + (run.output_tokens ?? 0);
  const parts = [];
  if (run.cost_usd !== null && run.cost_usd !== undefined) parts.push(dollars(run.cost_usd));
  if (used) parts.push(tokens(used));
  return parts.join(" · ");
}

function showResult(element, run) {
  const url = run.pr_url ? safeUrl(run.pr_url) : null;
  const key = url ? url.href : (run.branch ?? "");
  if (element.dataset.result === key) return;
  element.dataset.result = key;
  if (url) put(element, h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", title: `Opens ${url.host}${url.pathname}` }, pullName(url), spoken(` on ${url.host}, opens another site`)));
  else put(element, run.branch ? h("span", { class: "branch", title: visibleLine(run.branch, 200) }, visibleLine(run.branch, 40)) : "");
}

function pullName(url) {
  const number = /\/(?:pull|pulls|merge_requests)\/(\d+)/.exec(url.pathname);
  return number ? `#${number[1]} ${url.host}` : url.host;
}

function noLanes() {
  return h(
    "section",
    { class: "empty" },
    h("h2", {}, "No lanes yet"),
    h("p", {}, "Lanes come from plans that somebody approved. Write one to a file, and approve it:"),
    command("heartlane plan create plan.yaml --approve"),
    h("p", {}, "and put an agent to work on them, on any machine that reaches this server:"),
    command("heartlane work --agent claude --worktree ~/src/app"),
    h("p", {}, "A plan that waits for approval stands under ", h("a", { href: "/plans" }, "Plans"), "."),
  );
}
