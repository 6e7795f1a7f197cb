// A project's budget in words, and a person's word to go on beyond it.

import { get, may, post } from "./api.js";
import { h, put } from "./dom.js";
import { dateTime } from "./format.js";
import { field, form, number } from "./form.js";
import { visibleLine } from "./hostile.js";
import { news } from "./news.js";
import { query, withParameters } from "./router.js";
import { attention, store } from "./store.js";
import { show, toast } from "./ui.js";

const AGAIN_MILLISECONDS = 30_000;
const SOON_MILLISECONDS = 1_000;
const PROJECTS_MAX = 5;

/** Ask for how long, then let a project go on. `onDone(budget)` after it. */
export function goOn(project, onDone) {
  const dialog = show(
    `Let “${visibleLine(project.name, 80)}” go on?`,
    h("p", {}, "Lanes that stand still for the budget go on within a second, and new ones can be claimed, whatever they cost. The ceilings stay as they are, and count again when the time is over."),
    form(`go-on:${project.id}`, {
      fields: [field("hours", "For how many hours", h("input", { inputmode: "decimal", autocomplete: "off", autofocus: true }), "Empty: until the day (UTC) ends")],
      action: "Go on",
      cancel: h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"),
      submit: async ({ hours }) => {
        const wanted = number(hours);
        const { budget } = await post(`/api/projects/${project.id}/budget/go-on`, wanted === null ? {} : { hours: wanted });
        dialog.close();
        toast(budget.waived_until ? `It goes on until ${dateTime(budget.waived_until)}.` : "It goes on.");
        onDone(budget);
      },
    }),
  );
}

/**
 * Say in `place` which budgets are used up, of the projects that are looked at, and let people go on. Returns how to end
 * it. With many projects those are asked about that something tells of: a lane that stands still for it, or a notice.
 */
export function watchBudgets(place) {
  let timer = 0;
  let ended = false;
  let asked = "";

  function wanted() {
    const chosen = query().get("project") ?? (store.projects.size === 1 ? [...store.projects.keys()][0] : null);
    if (chosen) return [chosen];
    const found = new Set((news.open ?? []).filter((notice) => notice.kind === "budget_100").map((notice) => notice.project_id));
    for (const run of store.runs.values()) if (attention(run) === "budget") found.add(run.project_id);
    return [...found].sort().slice(0, PROJECTS_MAX);
  }

  async function read() {
    clearTimeout(timer);
    const ids = wanted();
    asked = ids.join();
    const answers = await Promise.allSettled(ids.map((id) => get(`/api/projects/${id}/budget`)));
    const operator = await may("operator").catch(() => false);
    if (ended) return;
    const told = answers.filter(({ value }) => value?.budget.state === "exceeded").map(({ value }) => value.budget);
    draw(told, operator);
    timer = setTimeout(read, AGAIN_MILLISECONDS);
  }

  let key = "";
  function draw(told, operator) {
    const now = JSON.stringify(told.map((budget) => [budget.project_id, budget.words]));
    if (now === key) return;
    key = now;
    put(
      place,
      told.map((budget) => {
        const project = store.projects.get(budget.project_id) ?? { id: budget.project_id, name: "the project" };
        return h(
          "div",
          { class: "budget-banner" },
          h("p", {}, store.projects.size > 1 ? h("b", { dir: "auto" }, `${visibleLine(project.name, 80)}: `) : null, visibleLine(budget.words ?? "The budget is used up.", 300), budget.on_exceeded === "stop" ? " Its workers are told to stop and give their lanes back, and none can be claimed." : " Its workers stand still, and no lane can be claimed."),
          h("div", { class: "row-buttons" }, operator ? h("button", { type: "button", class: "primary", onclick: () => goOn(project, read) }, "Go on …") : null, h("a", { class: "button", href: withParameters({ project: project.id }, "/settings", "") }, "The budget")),
        );
      }),
    );
  }

  const look = () => {
    if (wanted().join() === asked) return;
    asked = wanted().join();
    clearTimeout(timer);
    timer = setTimeout(read, SOON_MILLISECONDS);
  };
  const endings = [store.subscribe(look), news.subscribe(look)];
  store.loadProjects().then(() => !ended && read(), () => {});
  return () => {
    ended = true;
    clearTimeout(timer);
    for (const end of endings) end();
  };
}
