// Who did what: the audit log, a page at a time.

import { get } from "./api.js";
import { h, put } from "./dom.js";
import { dateTime } from "./format.js";
import { visibleLine } from "./hostile.js";
import { go, query, withParameters } from "./router.js";
import { agoText, choice, command, empty, failure, loading, panel } from "./ui.js";

const PAGE = 50;
const KINDS = [
  ["", "everything"],
  ["plan", "plans"],
  ["run", "lanes"],
  ["project", "projects"],
  ["ticket", "tickets"],
  ["milestone", "milestones"],
  ["budget", "budgets"],
  ["notice", "notices"],
  ["notice_rules", "rules of notices"],
  ["webhook", "webhooks"],
  ["token", "tokens"],
  ["session", "sessions"],
];

export function auditPart(place, { gone }) {
  const project = query().get("project");
  const action = query().get("action") ?? "";
  const kinds = KINDS.some(([value]) => value === action) ? KINDS : [...KINDS, [action, action]];
  const list = h("div", {}, loading());
  const rows = [];
  put(
    place,
    panel(
      "Audit log",
      h("div", { class: "filters" }, choice("Show", action, kinds, (value) => go(withParameters({ action: value || null })))),
      list,
      h("p", { class: "note" }, "Nothing of it is ever changed or deleted. All of it, one entry a line:"),
      command("heartlane audit --output jsonl"),
    ),
  );

  async function read(cursor = null) {
    try {
      const answer = await get("/api/audit", { project_id: project, action: action || null, limit: PAGE, cursor });
      if (gone()) return;
      const before = rows.length;
      rows.push(...answer.entries);
      const next = answer.next_cursor;
      put(
        list,
        rows.length ? h("ul", { class: "rows-list audit" }, rows.map(entry)) : empty("Nothing like that", "What people decide is kept here: who approved, paused, cancelled, changed settings."),
        next ? h("p", { class: "center" }, h("button", { type: "button", onclick: () => read(next) }, "Older entries")) : null,
      );
      if (before) list.querySelectorAll(".audit > li")[before]?.querySelector("summary, a")?.focus();
    } catch (error) {
      if (!gone()) put(list, failure(error, () => read(cursor)));
    }
  }

  read();
}

function entry(each) {
  const details = Object.entries(each.details ?? {});
  return h(
    "li",
    {},
    h(
      "div",
      {},
      h("p", { class: "audit-line" }, h("b", { dir: "auto" }, visibleLine(each.actor_name ?? "somebody", 60)), " ", h("code", {}, visibleLine(each.action, 60)), " ", object(each)),
      h("p", { class: "faint" }, agoText(each.at), ` · ${dateTime(each.at)} · by ${visibleLine(each.actor_kind, 30)}${each.address ? ` from ${visibleLine(each.address, 60)}` : ""}`),
      details.length ? h("details", {}, h("summary", {}, "Details"), h("dl", { class: "facts" }, details.map(([name, value]) => h("div", {}, h("dt", {}, visibleLine(name, 60)), h("dd", { dir: "auto" }, visibleLine(typeof value === "string" ? value : JSON.stringify(value), 500)))))) : null,
    ),
  );
}

function object(each) {
  const name = visibleLine(each.object_name ?? each.object_id ?? "", 120);
  const path = { run: "/lanes/", plan: "/plans/" }[each.object_type];
  return path && each.object_id ? h("a", { href: `${path}${each.object_id}`, dir: "auto" }, name) : h("span", { dir: "auto" }, name);
}
