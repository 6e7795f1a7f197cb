// A project's budget in words, and a person's word to go on beyond it.

import { post } from "./api.js";
import { h } from "./dom.js";
import { dateTime } from "./format.js";
import { field, form, number } from "./form.js";
import { visibleLine } from "./hostile.js";
import { show, toast } from "./ui.js";

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
