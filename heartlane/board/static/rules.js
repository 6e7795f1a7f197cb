// What is told about a project: which kinds of notices, and when.

import { get, put as putJson } from "./api.js";
import { h, put } from "./dom.js";
import { boxes, field, forget, form, number, ticked } from "./form.js";
import { failure, loading, panel, toast } from "./ui.js";

const WORDS = {
  lane_waiting: "A worker waits for a person",
  lane_failed: "A lane failed: its worker said so",
  attempts_used_up: "A lane has failed as often as it may",
  lane_stalled: "A lane stalled: heartbeats come, and nothing else",
  worker_silent: "A worker that holds a lane has missed two renewals",
  plan_waiting: "A plan waits long for somebody to decide",
  budget_80: "80 % of a budget are spent",
  budget_100: "A budget is used up",
  webhook_disabled: "A webhook was disabled, for nothing reached it",
};

export function rulesPart(place, { project, admin, gone }) {
  const path = `/api/projects/${project.id}/notice-rules`;
  const key = `rules:${project.id}`;
  const box = panel("What is told", loading());
  put(place, box);

  async function read() {
    try {
      const answer = await get(path);
      if (!gone()) put(box, h("h2", {}, "What is told"), rulesForm(answer.notice_rules));
    } catch (error) {
      if (!gone()) put(box, h("h2", {}, "What is told"), failure(error, read));
    }
  }

  function rulesForm(rules) {
    const minutes = rules.plan_waiting?.after_seconds === undefined ? "" : rules.plan_waiting.after_seconds / 60;
    const element = form(key, {
      fields: [
        h("p", { class: "faint" }, "Each is told once, not with every heartbeat: under “Notices”, and to the webhooks that chose it."),
        boxes("kinds", "Tell when", Object.keys(rules).map((kind) => [kind, WORDS[kind] ?? kind, rules[kind].enabled])),
        field("plan_waiting.after_seconds", "Minutes until a plan waits long", h("input", { inputmode: "decimal", autocomplete: "off", value: minutes, class: "short" })),
      ],
      action: "Set the rules",
      cancel: h("button", { type: "button", onclick: () => (forget(key), read()) }, "As it was"),
      submit: async (typed) => {
        const on = ticked("kinds", typed);
        const body = Object.fromEntries(Object.keys(rules).map((kind) => [kind, { enabled: on.includes(kind) }]));
        const after = number(typed["plan_waiting.after_seconds"]);
        if (after !== null) body.plan_waiting.after_seconds = typeof after === "number" ? Math.round(after * 60) : after;
        await putJson(path, body);
        toast("The rules are set. They count for notices to come.");
      },
    });
    if (!admin) {
      for (const input of element.elements) input.disabled = true;
      put(element.querySelector(".ask-buttons"), h("span", { class: "faint" }, "You may look. An admin's token may change it."));
    }
    return element;
  }

  read();
}
