// How the work goes over days: what shipped and failed, how long phases take, what it costs.

import { get } from "./api.js";
import { h, put, s } from "./dom.js";
import { STATES, count, dollars, duration, tokens } from "./format.js";
import { visibleLine } from "./hostile.js";
import { title } from "./page.js";
import { query, withParameters } from "./router.js";
import { chip, failure, heading, loading, panel } from "./ui.js";

const AGAIN_MILLISECONDS = 30_000;
const SPANS = [7, 14, 30, 90];
const SPAN = 14;
const ROWS_SHOWN = 12;
const SLOT = 10;
const ORDER = ["shipped", "shipping", "running", "claimed", "paused", "failed", "released", "queued"];

export function mount(main) {
  title("Overview");
  return new Overview(main);
}

class Overview {
  constructor(main) {
    this.chips = h("nav", { class: "chips", "aria-label": "How many days" });
    this.body = h("div", {}, loading("Reading the figures …"));
    put(main, heading("Overview", this.chips), this.body);
    this.changed();
  }

  unmount() {
    this.turn = null;
    clearTimeout(this.timer);
  }

  changed() {
    const asked = Number(query().get("days"));
    this.days = SPANS.includes(asked) ? asked : SPAN;
    this.of = query().get("of") === "tokens" ? "tokens" : "cost";
    put(this.chips, SPANS.map((days) => chip(`${days} days`, null, { href: withParameters({ days: days === SPAN ? null : days }), on: days === this.days })));
    this.read();
  }

  async read() {
    clearTimeout(this.timer);
    const turn = (this.turn = {});
    try {
      const { overview } = await get("/api/agents/overview", { project_id: query().get("project"), days: this.days });
      if (turn !== this.turn) return;
      this.draw(overview);
    } catch (error) {
      if (turn !== this.turn) return;
      // Old figures are better than none.
      if (!this.key) put(this.body, failure(error, () => this.read()));
    }
    this.timer = setTimeout(() => (document.hidden ? (this.timer = setTimeout(() => this.read(), AGAIN_MILLISECONDS)) : this.read()), AGAIN_MILLISECONDS);
  }

  draw(overview) {
    const key = JSON.stringify([overview, this.of]);
    if (key === this.key) return;
    this.key = key;
    const opened = new Set([...this.body.querySelectorAll("details[open]")].map((each) => each.dataset.id));
    const focused = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    put(this.body, tiles(overview), this.charts(overview));
    for (const each of this.body.querySelectorAll("details")) each.open = opened.has(each.dataset.id);
    if (focused) this.body.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  charts(overview) {
    const { total } = overview;
    const parts = [panel("Lanes now", lanesNow(overview.lanes))];
    parts[0].classList.add("wide");
    if (!total.attempts && !spent(total)) {
      parts.push(h("section", { class: "empty wide" }, h("h2", {}, "No figures yet"), h("p", {}, "No attempt at a lane has ended in these days. Figures come as soon as one does.")));
      return h("div", { class: "charts" }, parts);
    }
    parts.push(this.attempts(overview), this.use(overview), phases(overview.phases), failures(overview.failures));
    if (overview.projects.length > 1) parts.push(figures("By project", "Project", overview.projects, (row) => visibleLine(row.name, 80)));
    parts.push(
      figures("By role", "Role", overview.roles, (row) => visibleLine(row.role, 40)),
      figures("By agent", "Agent and model", overview.agents, (row) => [row.agent, row.model].filter(Boolean).map((each) => visibleLine(each, 60)).join(", ") || "nobody said"),
    );
    return h("div", { class: "charts" }, parts);
  }

  attempts({ days, total }) {
    const rows = days.map((day) => [day.day, [[day.shipped, "good", "shipped"], [day.failed, "bad", "failed"], [Math.max(0, day.attempts - day.shipped - day.failed), "rest", "given back"]]]);
    return panel(
      "Attempts a day",
      h("ul", { class: "legend" }, h("li", { class: "good" }, "shipped"), h("li", { class: "bad" }, "failed"), h("li", {}, "given back")),
      bars(rows, { name: "attempts", shown: (number) => number.toLocaleString("en"), words: `${count(total.attempts, "attempt")} in ${days.length} days: ${total.shipped} shipped, ${total.failed} failed` }),
    );
  }

  use({ days, total }) {
    const cost = this.of === "cost";
    const rows = days.map((day) => [day.day, cost ? [[day.cost_usd, "", "cost"]] : [[day.input_tokens, "", "input"], [day.output_tokens, "rest", "output"]]]);
    const shown = cost ? dollars : (number) => tokens(Math.round(number));
    const link = (of, word) => h("a", { class: "chip", href: withParameters({ of: of === "cost" ? null : of }), "data-focus": of, "aria-current": this.of === of ? "true" : null }, word);
    const made = panel(cost ? "Cost a day" : "Tokens a day", bars(rows, { name: "use", shown, words: `${cost ? dollars(total.cost_usd) : `${tokens(spent(total))} tokens`} in ${days.length} days` }));
    made.firstChild.replaceWith(h("header", { class: "panel-head" }, made.firstChild.cloneNode(true), h("div", { class: "switch" }, link("cost", "Cost"), link("tokens", "Tokens"))));
    return made;
  }
}

function spent(row) {
  return row.input_tokens + row.output_tokens;
}

function tiles({ total, shipped_per_day: rate, days }) {
  const ended = total.shipped + total.failed;
  const tile = (words, value, more) => h("div", {}, h("dt", {}, words), h("dd", {}, h("b", {}, value), h("span", {}, more)));
  return h(
    "dl",
    { class: "tiles" },
    tile("Shipped", total.shipped.toLocaleString("en"), `${aDay(rate)} a day`),
    tile("Attempts", total.attempts.toLocaleString("en"), `in ${days.length} days`),
    tile("Failed", total.failed.toLocaleString("en"), ended ? `${Math.round((100 * total.failed) / ended)} % of what shipped or failed` : "nothing has ended"),
    tile("Cost", dollars(total.cost_usd), total.shipped ? `${dollars(total.cost_usd / total.shipped)} for each that shipped` : "nothing has shipped"),
    tile("Tokens", tokens(spent(total)), `${tokens(total.input_tokens)} in, ${tokens(total.output_tokens)} out`),
  );
}

/** A mean that is small is no zero. */
function aDay(rate) {
  return rate.toLocaleString("en", rate < 10 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 0 });
}

function lanesNow(lanes) {
  const all = Object.values(lanes).reduce((sum, each) => sum + each, 0);
  const known = ORDER.filter((state) => lanes[state]);
  let at = 0;
  const rects = known.map((state) => {
    const width = (100 * lanes[state]) / (all || 1);
    const rect = s("rect", { x: at.toFixed(3), y: 0, width: width.toFixed(3), height: 1, class: `fill-${state}` });
    at += width;
    return rect;
  });
  const words = known.map((state) => `${lanes[state].toLocaleString("en")} ${(STATES[state]?.word ?? state).toLowerCase()}`);
  return h("div", { class: "progress" }, s("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }, rects), h("p", {}, all ? `${count(all, "lane")}: ${words.join(" · ")}` : "No lanes."));
}

/**
 * Bars over days, stacked, with a table of the same for who can't see them.
 *
 * rows    [day, [[number, tone, words], …]] for each day
 * shown   a number in words
 */
function bars(rows, { name, shown, words }) {
  const sums = rows.map(([, parts]) => parts.reduce((sum, [number]) => sum + number, 0));
  const most = Math.max(...sums);
  const top = most || 1;
  const say = (day, parts) => `${dayName(day)}: ${parts.map(([number, , word]) => `${shown(number)} ${parts.length > 1 ? word : ""}`.trim()).join(", ")}`;
  const drawing = s(
    "svg",
    { class: "chart", viewBox: `0 0 ${rows.length * SLOT} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `${words}. The table has every day.` },
    rows.map(([day, parts], place) => {
      let height = 0;
      return s(
        "g",
        {},
        s("title", {}, say(day, parts)),
        s("rect", { class: "hit", x: place * SLOT, y: 0, width: SLOT, height: 100 }),
        parts
          .filter(([number]) => number > 0)
          .map(([number, tone]) => {
            const part = (100 * number) / top;
            height += part;
            return s("rect", { class: tone ? `bar-${tone}` : "bar", x: place * SLOT + 1.5, y: (100 - height).toFixed(2), width: SLOT - 3, height: part.toFixed(2) });
          }),
      );
    }),
  );
  const heads = rows[0][1].map(([, , word]) => word);
  return [
    h("div", { class: "chart-frame" }, h("div", { class: "chart-y", "aria-hidden": "true" }, h("span", {}, shown(most)), h("span", {}, "0")), drawing, h("div", { class: "chart-x", "aria-hidden": "true" }, h("span", {}, dayName(rows[0][0])), h("span", {}, "today"))),
    h(
      "details",
      { "data-id": name },
      h("summary", {}, "As a table"),
      h(
        "div",
        { class: "scrolls figures", tabindex: "0", role: "region", "aria-label": `Every day: ${words}` },
        h("table", {}, h("thead", {}, h("tr", {}, ["Day", ...heads].map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, [...rows].reverse().map(([day, parts]) => h("tr", {}, h("th", { scope: "row" }, dayName(day)), parts.map(([number]) => h("td", {}, shown(number))))))),
      ),
    ),
  ];
}

function dayName(day) {
  return new Date(`${day}T12:00:00Z`).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
}

/** A short bar of one or two parts of a whole. */
function mini(...parts) {
  return s("svg", { class: "mini", viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }, parts.map(([part, tone]) => s("rect", { class: tone, x: 0, y: 0, height: 1, width: (100 * Math.min(1, part || 0)).toFixed(1) })));
}

/** A table, its longer rest folded away. */
function table(words, heads, rows) {
  const head = () => h("thead", {}, h("tr", {}, heads.map((each) => (each === null ? h("td", { class: "bar-cell" }) : h("th", { scope: "col" }, each)))));
  const whole = (some, label) => h("div", { class: "figures", tabindex: "0", role: "region", "aria-label": `${words}: ${label}` }, h("table", {}, head(), h("tbody", {}, some)));
  return [whole(rows.slice(0, ROWS_SHOWN), "table"), rows.length > ROWS_SHOWN ? h("details", { "data-id": words }, h("summary", {}, `${rows.length - ROWS_SHOWN} more`), whole(rows.slice(ROWS_SHOWN), "the rest")) : null];
}

function phases(list) {
  if (!list.length) return panel("Time in each phase", h("p", { class: "faint" }, "No phase has ended in these days."));
  const most = Math.max(...list.map((each) => each.p90_seconds)) || 1;
  const time = (seconds) => duration(1000 * Math.max(1, Math.round(seconds)));
  return panel(
    "Time in each phase",
    table(
      "Time in each phase",
      ["Phase", null, "Median", "90 % within", "Times"],
      list.map((each) =>
        h("tr", {}, h("th", { scope: "row", dir: "auto" }, visibleLine(each.phase, 60)), h("td", { class: "bar-cell" }, mini([each.p90_seconds / most, "bar-light"], [each.median_seconds / most, "bar"])), h("td", {}, time(each.median_seconds)), h("td", {}, time(each.p90_seconds)), h("td", {}, each.count.toLocaleString("en"))),
      ),
    ),
  );
}

const REASONS = { lease_expired: "not heard from (lease_expired)", cancelled: "cancelled by a person", unknown: "without a reason" };

function failures(list) {
  if (!list.length) return panel("Failures by reason", h("p", { class: "faint" }, "Nothing has failed in these days."));
  const most = Math.max(...list.map((each) => each.count)) || 1;
  return panel(
    "Failures by reason",
    table(
      "Failures by reason",
      ["Reason", null, "Times"],
      list.map((each) => h("tr", {}, h("th", { scope: "row", dir: "auto" }, REASONS[each.reason] ?? visibleLine(each.reason, 80)), h("td", { class: "bar-cell" }, mini([each.count / most, "bar-bad"])), h("td", {}, each.count.toLocaleString("en")))),
    ),
  );
}

function figures(words, head, list, nameOf) {
  const most = Math.max(...list.map((each) => each.cost_usd)) || 0;
  const mostTokens = Math.max(...list.map(spent)) || 1;
  const made = panel(
    words,
    table(
      words,
      [head, null, "Cost", "Tokens", "Attempts", "Shipped", "Failed"],
      list.map((each) =>
        h("tr", {}, h("th", { scope: "row", dir: "auto" }, nameOf(each)), h("td", { class: "bar-cell" }, mini([most ? each.cost_usd / most : spent(each) / mostTokens, "bar"])), h("td", {}, dollars(each.cost_usd)), h("td", {}, tokens(spent(each))), h("td", {}, each.attempts.toLocaleString("en")), h("td", {}, each.shipped.toLocaleString("en")), h("td", {}, each.failed.toLocaleString("en"))),
      ),
    ),
  );
  made.classList.add("wide");
  return made;
}
