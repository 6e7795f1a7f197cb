// What a project may cost, and how much of it may be worked at once.

import { get, patch, put as putJson } from "./api.js";
import { goOn } from "./budget.js";
import { h, put, s } from "./dom.js";
import { ROLES, dateTime, dollars } from "./format.js";
import { field, forget, form, number } from "./form.js";
import { visibleLine } from "./hostile.js";
import { store } from "./store.js";
import { failure, loading, panel, toast } from "./ui.js";

const AGAIN_MILLISECONDS = 15_000;
const CEILINGS = [
  ["usd_per_day", "usd_today", "Dollars a day", (amount) => dollars(amount)],
  ["usd_total", "usd_total", "Dollars in all", (amount) => dollars(amount)],
  ["tokens_per_day", "tokens_today", "Tokens a day", (amount) => amount.toLocaleString("en")],
  ["tokens_total", "tokens_total", "Tokens in all", (amount) => amount.toLocaleString("en")],
];
const STATE_TONES = { exceeded: "failed", warned: "paused", waived: "paused" };

export function limitsPart(place, { project, admin, operator, gone }) {
  const budgetPanel = panel("Budget", loading());
  const capsPanel = panel("Lanes at once", loading());
  put(place, budgetPanel, capsPanel);
  let timer = 0;
  const standing = h("div", { class: "standing" });

  const showStanding = (budget) => put(standing, standingOf(budget), budget.state === "exceeded" && operator ? h("p", {}, h("button", { type: "button", class: "primary", onclick: () => goOn(project, showStanding) }, "Go on …")) : null);

  async function readBudget(whole) {
    clearTimeout(timer);
    try {
      const { budget } = await get(`/api/projects/${project.id}/budget`);
      if (gone()) return;
      if (!standing.contains(document.activeElement)) showStanding(budget);
      if (whole) put(budgetPanel, h("h2", {}, "Budget"), standing, budgetForm(budget));
    } catch (error) {
      if (gone()) return;
      if (whole) put(budgetPanel, h("h2", {}, "Budget"), failure(error, () => readBudget(true)));
    }
    timer = setTimeout(() => readBudget(false), AGAIN_MILLISECONDS);
  }

  function budgetForm(budget) {
    const key = `budget:${project.id}`;
    const input = (value) => h("input", { inputmode: "decimal", autocomplete: "off", value: value ?? "", placeholder: "no ceiling", disabled: !admin });
    const choice = h(
      "select",
      { disabled: !admin },
      [["pause", "Workers keep their lanes and stand still"], ["stop", "Workers stop and give their lanes back, to be gone on with later"]].map(([value, words]) => h("option", { value, selected: budget.on_exceeded === value }, words)),
    );
    const element = form(key, {
      fields: [
        h("div", { class: "field-row" }, CEILINGS.map(([name, , words]) => field(name, words, input(budget[name])))),
        field("on_exceeded", "When a ceiling is reached", choice, "No new lane can be claimed then, until somebody raises it or says “go on”. Days are days of UTC. A notice comes at 80 %."),
      ],
      action: "Set the budget",
      cancel: h("button", { type: "button", onclick: () => (forget(key), readBudget(true)) }, "As it was"),
      submit: async (typed) => {
        const body = { on_exceeded: typed.on_exceeded };
        for (const [name] of CEILINGS) body[name] = number(typed[name]);
        const answer = await putJson(`/api/projects/${project.id}/budget`, body);
        showStanding(answer.budget);
        toast("The budget is set, and counts at once.");
      },
    });
    return admin ? element : viewOnly(element);
  }

  async function readCaps() {
    try {
      const answer = await get(`/api/projects/${project.id}`);
      if (gone()) return;
      store.projects.set(project.id, answer.project);
      put(capsPanel, h("h2", {}, "Lanes at once"), capsForm(answer.project));
    } catch (error) {
      if (!gone()) put(capsPanel, h("h2", {}, "Lanes at once"), failure(error, readCaps));
    }
  }

  function capsForm(now) {
    const key = `caps:${project.id}`;
    const input = (value, of = "") => h("input", { class: of, inputmode: "numeric", autocomplete: "off", value: value ?? "", placeholder: "no cap", disabled: !admin });
    const sources = Object.entries(now.max_active_by_source ?? {}).map(([host, most]) => `${host} ${most}`);
    const element = form(key, {
      fields: [
        field("max_active", "Of the whole project", input(now.max_active, "short"), "At most so many lanes are held by workers at once. Lanes that are held stay; only new claims wait."),
        h("p", { class: "group-label" }, "Of each role"),
        h("div", { class: "field-row narrow" }, ROLES.map((role) => field(`max_active_by_role.${role}`, role, input(now.max_active_by_role?.[role])))),
        field("max_active_by_source", "Of each source of tickets", h("textarea", { rows: 3, disabled: !admin, spellcheck: "false", ".value": sources.join("\n") }), "A host and a number in each line, such as: github.com 8"),
      ],
      action: "Set the caps",
      cancel: h("button", { type: "button", onclick: () => (forget(key), readCaps()) }, "As it was"),
      submit: async (typed) => {
        const roles = {};
        for (const role of ROLES) {
          const most = number(typed[`max_active_by_role.${role}`]);
          if (most !== null) roles[role] = most;
        }
        const hosts = {};
        for (const line of typed.max_active_by_source.split("\n").map((each) => each.trim()).filter(Boolean)) {
          const [, host, most] = /^(.*?)[\s:=]+(\S+)$/.exec(line) ?? [null, line, "nothing"];
          hosts[host] = number(most);
        }
        const answer = await patch(`/api/projects/${project.id}`, { max_active: number(typed.max_active), max_active_by_role: roles, max_active_by_source: hosts });
        store.projects.set(project.id, answer.project);
        toast("The caps are set, and count from the next claim on.");
      },
    });
    return admin ? element : viewOnly(element);
  }

  readBudget(true);
  readCaps();
  return () => clearTimeout(timer);
}

function viewOnly(element) {
  put(element.querySelector(".ask-buttons"), h("span", { class: "faint" }, "You may look. An admin's token may change it."));
  return element;
}

/** Where a budget stands: its words, and a bar for each ceiling. */
function standingOf(budget) {
  const tone = STATE_TONES[budget.state];
  return [
    budget.words ? h("p", { class: "why", "data-why": tone ?? null, role: "status" }, visibleLine(budget.words, 500)) : null,
    h(
      "dl",
      { class: "meters" },
      CEILINGS.map(([name, spent, words, shown]) => {
        const most = budget[name];
        const used = budget.spent[spent] ?? 0;
        const part = most === null ? 0 : most === 0 ? 1 : Math.min(1, used / most);
        return h(
          "div",
          { "data-tone": most !== null && part >= 1 ? "bad" : part >= 0.8 ? "warn" : "" },
          h("dt", {}, words),
          h("dd", {}, h("b", {}, shown(used)), most === null ? " spent, no ceiling" : ` of ${shown(most)}`, s("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }, s("rect", { x: 0, y: 0, height: 1, width: (100 * part).toFixed(1) }))),
        );
      }),
    ),
    budget.changes_at ? h("p", { class: "note" }, `That changes by itself ${dateTime(budget.changes_at)}.`) : null,
  ];
}
