// The notices: what a person should know, each told once, until it is over or somebody says that it was seen.

import { get, may, post } from "./api.js";
import { h, put } from "./dom.js";
import { count } from "./format.js";
import { visibleLine } from "./hostile.js";
import { news } from "./news.js";
import { title } from "./page.js";
import { query, withParameters } from "./router.js";
import { store } from "./store.js";
import { agoText, ask, chip, empty, failure, heading, loading, toast } from "./ui.js";

const PAGE = 50;

/** Each kind in two or three words, and how bad it is. */
export const KINDS = {
  lane_failed: ["Lane failed", "bad"],
  attempts_used_up: ["Attempts used up", "bad"],
  lane_waiting: ["Waits for a person", "warn"],
  lane_stalled: ["Lane stalled", "warn"],
  worker_silent: ["Worker silent", "bad"],
  plan_waiting: ["Plan waits", "warn"],
  budget_80: ["80 % of a budget", "warn"],
  budget_100: ["Budget used up", "bad"],
  webhook_disabled: ["Webhook disabled", "bad"],
};

export async function mount(main) {
  title("Notices");
  return new Notices(main, await may("operator").catch(() => false));
}

class Notices {
  constructor(main, operator) {
    this.operator = operator;
    this.chips = h("nav", { class: "chips", "aria-label": "Which notices" });
    this.all = h("div", { class: "hand" });
    this.body = h("div", {}, loading("Reading the notices …"));
    put(main, heading("Notices", this.chips, this.all), this.body);
    this.unsubscribe = news.subscribe(() => this.draw());
    this.changed();
    news.read();
  }

  unmount() {
    this.unsubscribe();
    this.gone = true;
  }

  changed() {
    this.closed = query().get("show") === "closed";
    this.key = null;
    this.past = null;
    if (this.closed) {
      put(this.body, loading("Reading the notices …"));
      this.readPast();
    }
    this.draw();
  }

  async readPast(cursor = null) {
    try {
      const answer = await get("/api/agents/notices", { open: "false", limit: PAGE, project_id: query().get("project"), cursor });
      this.past = [...(cursor ? this.past : []), ...answer.notices];
      this.cursor = answer.next_cursor;
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    if (!this.gone) this.draw();
  }

  draw() {
    const open = news.open;
    const chipsKey = `${this.closed} ${open?.length} ${location.search}`;
    if (this.chipsKey !== chipsKey) {
      this.chipsKey = chipsKey;
      put(
        this.chips,
        chip("Open", open?.length ?? null, { href: withParameters({ show: null }), on: !this.closed, tone: open?.length ? "hand" : "" }),
        chip("Closed", null, { href: withParameters({ show: "closed" }), on: this.closed }),
      );
      put(this.all, !this.closed && this.operator && open?.length > 1 ? h("button", { type: "button", "data-focus": "all", onclick: () => this.dismissAll() }, "Dismiss all") : null);
    }
    const error = this.closed ? this.error : news.error;
    const list = this.closed ? this.past : open;
    if (error && !list) {
      put(this.body, failure(error, () => (this.closed ? this.readPast() : news.read())));
      return;
    }
    if (!list) return;
    const key = JSON.stringify([this.closed, list.map((notice) => [notice.id, notice.closed_at, store.runs.has(notice.run_id)]), this.cursor]);
    if (key === this.key) return;
    this.key = key;
    const focused = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    const place = [...this.body.querySelectorAll("[data-focus]")].findIndex((each) => each.dataset.focus === focused);
    put(
      this.body,
      list.length ? h("ul", { class: "notices" }, list.map((notice) => this.card(notice))) : this.nothing(),
      this.closed && this.cursor ? h("p", { class: "center" }, h("button", { type: "button", "data-focus": "more", onclick: () => this.readPast(this.cursor) }, "Older notices")) : null,
    );
    // The button that was pressed may be gone: the next one stands in its place.
    if (focused && place >= 0) {
      const left = [...this.body.querySelectorAll("[data-focus]")];
      (left.find((each) => each.dataset.focus === focused) ?? left[Math.min(place, left.length - 1)] ?? document.getElementById("main")).focus();
    }
  }

  nothing() {
    if (this.closed) return empty("Nothing closed", "Notices that are over, or that somebody dismissed, stay here for ninety days.");
    const project = query().get("project");
    return [
      empty("Nothing to tell", "A lane that fails or stalls, a worker that falls silent, a plan that waits too long: it is told here, once."),
      h("p", { class: "center" }, h("a", { href: withParameters({ project }, "/settings", "") }, "Choose what is told, and where it is sent")),
    ];
  }

  card(notice) {
    const [word, tone] = KINDS[notice.kind] ?? [visibleLine(notice.kind, 40), "warn"];
    const run = store.runs.get(notice.run_id);
    const project = store.projects.size > 1 ? store.projects.get(notice.project_id)?.name : null;
    const links = [
      notice.run_id ? h("a", { href: `/lanes/${notice.run_id}` }, run ? visibleLine(run.lane_key, 60) : "The lane") : null,
      notice.plan_id && !notice.run_id ? h("a", { href: `/plans/${notice.plan_id}` }, "The plan") : null,
      notice.webhook_id || notice.kind.startsWith("budget_") ? h("a", { href: `/settings?project=${notice.project_id}` }, "The project's settings") : null,
      notice.worker_id ? h("span", { dir: "auto" }, visibleLine(notice.worker_id, 80)) : null,
      project ? visibleLine(project, 60) : null,
    ].filter(Boolean);
    return h(
      "li",
      { class: "notice-card", "data-tone": notice.closed_at ? "" : tone },
      h(
        "div",
        {},
        h("h2", {}, word),
        h("p", { dir: "auto", class: "notice-text" }, visibleLine(notice.text, 1_000)),
        h("p", { class: "faint" }, links.map((link) => [link, " · "]), agoText(notice.raised_at), notice.closed_at ? [" · ", notice.closed_by === "dismissed" ? `dismissed by ${visibleLine(notice.dismissed_by ?? "somebody", 60)} ` : "over ", agoText(notice.closed_at)] : null),
      ),
      notice.closed_at || !this.operator
        ? null
        : h("button", { type: "button", "data-focus": notice.id, "aria-label": `Dismiss: ${visibleLine(notice.text, 100)}`, title: "It isn't told again", onclick: (event) => this.dismiss(notice, event.currentTarget) }, "Dismiss"),
    );
  }

  async dismiss(notice, button) {
    button.disabled = true;
    try {
      await post(`/api/agents/notices/${notice.id}/dismiss`);
      news.drop(notice.id);
    } catch (error) {
      button.disabled = false;
      toast(error.message, { tone: "bad" });
    }
  }

  async dismissAll() {
    const list = news.open;
    const sure = await ask({
      title: `Dismiss ${count(list.length, "notice")}?`,
      body: [h("p", {}, "They are not told again, to nobody. What they are about stays as it is: a lane that needs a hand stands first under “Lanes”."), h("p", {}, "They can still be read under “Closed”.")],
      action: "Dismiss all",
    });
    if (sure === null) return;
    for (const notice of list) {
      try {
        await post(`/api/agents/notices/${notice.id}/dismiss`);
        news.drop(notice.id);
      } catch (error) {
        toast(error.message, { tone: "bad" });
        return;
      }
    }
    toast(`Dismissed ${count(list.length, "notice")}.`);
  }
}
