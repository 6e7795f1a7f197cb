// One plan: which tickets become which lanes, how far they are, and whether it is approved.

import { get, may, post } from "./api.js";
import { h, put } from "./dom.js";
import { count } from "./format.js";
import { field, form } from "./form.js";
import { outside, visible, visibleLine } from "./hostile.js";
import { title } from "./page.js";
import { progressBar, showProgress, statusMark } from "./plans.js";
import { REASONS } from "./reasons.js";
import { go } from "./router.js";
import { attention, store } from "./store.js";
import { agoText, ask, failure, loading, show, stateMark, toast } from "./ui.js";

const TICKETS_MAX = 60;

export async function mount(main, { id }) {
  title("Plan");
  put(main, loading("Reading the plan …"));
  try {
    const answer = await get(`/api/agents/plans/${encodeURIComponent(id)}`);
    return new PlanPage(main, answer, await may("operator").catch(() => false));
  } catch (error) {
    put(main, h("h1", {}, "Plan"), failure(error, error.status === 404 ? null : () => location.reload()), h("p", { class: "center" }, h("a", { href: "/plans" }, "All plans")));
    return {};
  }
}

class PlanPage {
  constructor(main, { plan, runs }, operator) {
    this.operator = operator;
    this.tickets = new Map();
    this.take(plan, runs);
    this.head = h("header", { class: "page-head lane-head" });
    this.why = h("p", { class: "why" });
    this.progress = h("section", { class: "panel", "aria-label": "Progress" }, h("h2", {}, "Progress"), (this.bar = progressBar(plan.id)), h("p", { class: "note" }, h("a", { href: `/?plan=${plan.id}` }, "See them among the lanes")));
    this.facts = h("dl", { class: "facts" });
    this.sources = h("section", { class: "panel", "aria-label": "Tickets", hidden: true });
    this.lanes = h("section", { class: "panel", "aria-label": "Lanes" });
    put(
      main,
      h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "/plans" }, "Plans")),
      this.head,
      this.why,
      h("div", { class: "lane-page" }, h("div", { class: "lane-main" }, this.progress, this.lanes), h("div", { class: "lane-side" }, h("section", { class: "panel", "aria-label": "About the plan" }, this.facts), this.sources)),
    );
    this.keys = [
      { keys: "a", text: "Approve the plan", run: () => this.operator && this.plan.status === "pending" && this.approve() },
      { keys: "x", text: "Reject the plan", run: () => this.operator && this.plan.status === "pending" && this.reject() },
      { keys: "u", text: "Up to all plans", run: () => go("/plans") },
    ];
    this.unsubscribe = store.subscribe((changed) => this.hear(changed));
    title(visibleLine(plan.title, 80));
    this.draw();
    this.readTickets();
  }

  unmount() {
    this.unsubscribe();
    this.gone = true;
  }

  take(plan, runs) {
    this.plan = plan;
    if (runs) {
      this.runs = new Map(runs.map((run) => [run.id, run]));
      for (const run of runs) store.put(run);
    }
  }

  /** The plan's runs as they are known now. */
  current() {
    return [...this.runs.values()].map((run) => store.runs.get(run.id) ?? run);
  }

  hear(changed) {
    const told = store.plans.get(this.plan.id);
    if (told?.updated_at > this.plan.updated_at) {
      this.plan = told;
      this.reread();
    } else if (changed === null || [...changed].some((id) => this.runs.has(id))) this.draw();
  }

  async reread() {
    try {
      const answer = await get(`/api/agents/plans/${this.plan.id}`);
      this.take(answer.plan, answer.runs);
    } catch {
      // What is shown is from before; the next message asks again.
    }
    if (!this.gone) this.draw();
  }

  tick() {
    this.draw();
  }

  draw() {
    this.drawHead();
    this.drawLanes();
    this.progress.hidden = this.plan.status !== "approved";
    if (this.plan.status === "approved") showProgress(this.bar, this.plan, this.current());
  }

  drawHead() {
    const { plan } = this;
    const key = `${plan.status} ${plan.updated_at}`;
    if (this.headKey === key) return;
    this.headKey = key;
    const pending = plan.status === "pending";
    const had = this.head.contains(document.activeElement);
    put(
      this.head,
      h("h1", { dir: "auto" }, visibleLine(plan.title, 300)),
      statusMark(plan.status),
      pending && this.operator
        ? h(
            "div",
            { class: "hand", role: "group", "aria-label": "What can be decided" },
            h("button", { type: "button", class: "primary", "aria-keyshortcuts": "a", onclick: () => this.approve() }, "Approve"),
            h("button", { type: "button", class: "bad-quiet", "aria-keyshortcuts": "x", onclick: () => this.reject() }, "Reject"),
          )
        : null,
    );
    if (had) document.getElementById("main").focus({ preventScroll: true });
    const words = {
      pending: this.operator ? "Nothing of it is worked before somebody approves it." : "It waits for an operator to approve it. You may look.",
      rejected: plan.rejection_reason ? `Rejected: ${visible(plan.rejection_reason, 2_000)}` : "Rejected.",
    }[plan.status];
    this.why.hidden = !words;
    put(this.why, words ?? "");
    const project = store.projects.get(plan.project_id)?.name;
    const rows = [
      ["Project", project ? visibleLine(project, 100) : null],
      ["Lanes", String(plan.lanes.length)],
      ["Tickets", plan.source_ticket_ids.length ? String(plan.source_ticket_ids.length) : null],
      ["Made", agoText(plan.created_at)],
      ["Approved", plan.approved_at && agoText(plan.approved_at)],
      ["Rejected", plan.rejected_at && agoText(plan.rejected_at)],
      ["Id", h("span", { class: "path" }, plan.id)],
    ];
    put(this.facts, rows.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  drawLanes() {
    const { plan } = this;
    const byKey = new Map(this.current().map((run) => [run.lane_key, run]));
    const key = JSON.stringify([plan.updated_at, this.tickets.size, [...byKey.values()].map((run) => [run.state, run.worker_id, attention(run), run.attempt])]);
    if (this.lanesKey === key) return;
    this.lanesKey = key;
    const focused = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    const opened = new Set([...this.lanes.querySelectorAll("details[open]")].map((each) => each.dataset.lane));
    put(
      this.lanes,
      h("h2", {}, count(plan.lanes.length, "lane")),
      h("ol", { class: "plan-lanes" }, plan.lanes.map((lane) => this.lane(lane, byKey.get(lane.laneKey)))),
    );
    for (const each of this.lanes.querySelectorAll("details")) each.open = opened.has(each.dataset.lane);
    if (focused) this.lanes.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  lane(lane, run) {
    const name = visibleLine(lane.title, 200);
    const why = run ? attention(run) : null;
    const facts = [
      lane.role,
      lane.priority ? `priority ${lane.priority}` : null,
      ...Object.entries(lane.labels ?? {}).map(([label, value]) => visibleLine(`${label}=${value}`, 80)),
      run?.worker_id && !run.finished_at ? `worked by ${visibleLine(run.worker_id.split(":")[0], 60)}` : null,
      run?.attempt > 1 ? `attempt ${run.attempt}` : null,
    ];
    return h(
      "li",
      { id: `lane-${encodeURIComponent(lane.laneKey)}` },
      h("span", { class: "plan-lane-state" }, run ? stateMark(run.state) : h("span", { class: "faint" }, "Planned")),
      h("div", {}, run ? h("a", { href: `/lanes/${run.id}`, "data-focus": run.id, class: "lane-title", dir: "auto" }, name) : h("b", { dir: "auto" }, name), " ", h("code", {}, visibleLine(lane.laneKey, 80))),
      h("p", { class: "faint" }, facts.filter(Boolean).join(" · "), why && why !== run.state ? h("b", { class: "bad-text" }, ` · ${REASONS[why] ?? visibleLine(why, 60)}`) : null),
      lane.after?.length ? h("p", { class: "faint" }, "After ", lane.after.map((each, place) => [place ? ", " : "", h("code", {}, visibleLine(each, 80))])) : null,
      lane.ticketIds?.length ? h("ul", { class: "plan-tickets" }, lane.ticketIds.map((id) => h("li", { dir: "auto" }, this.ticketName(id)))) : null,
      this.task(lane),
    );
  }

  /** What a lane asks for, read when somebody wants to see it. */
  task(lane) {
    const text = h("pre", { class: "prose", tabindex: "0", dir: "auto" });
    const details = h("details", { "data-lane": lane.laneKey }, h("summary", { "data-focus": `task ${lane.laneKey}` }, "What is asked for", h("span", { class: "sr" }, ` of ${visibleLine(lane.laneKey, 80)}`)), text);
    const fill = async () => {
      if (!details.open) return;
      if (!this.prompts) put(text, "Reading …");
      try {
        this.prompts ??= (await get(`/api/agents/plans/${this.plan.id}/prompts`)).prompts;
        put(text, Object.hasOwn(this.prompts, lane.laneKey) ? visible(this.prompts[lane.laneKey], 50_000) : "Nothing more than its title.");
      } catch (error) {
        put(text, error.message);
      }
    };
    details.addEventListener("toggle", fill);
    return details;
  }

  ticketName(id) {
    const ticket = this.tickets.get(id);
    if (!ticket) return h("span", { class: "faint" }, `Ticket ${id.slice(0, 8)}`);
    return visibleLine(ticket.title, 200);
  }

  /** Tickets are read one by one, and shown as they come: a plan holds few of them. */
  async readTickets() {
    const { plan } = this;
    const wanted = plan.source_ticket_ids.slice(0, TICKETS_MAX);
    if (!wanted.length) return;
    await Promise.allSettled(
      wanted.map(async (id) => {
        const { ticket } = await get(`/api/projects/${plan.project_id}/tickets/${id}`);
        this.tickets.set(id, ticket);
      }),
    );
    if (this.gone) return;
    this.sources.hidden = false;
    const rest = plan.source_ticket_ids.length - wanted.length;
    put(
      this.sources,
      h("h2", {}, count(plan.source_ticket_ids.length, "ticket")),
      h(
        "ul",
        { class: "plain" },
        wanted.map((id) => {
          const ticket = this.tickets.get(id);
          if (!ticket) return h("li", { class: "faint" }, `${id} can't be read`);
          const lanes = plan.lanes.filter((lane) => lane.ticketIds.includes(id)).map((lane) => lane.laneKey);
          return h("li", {}, h("span", { dir: "auto" }, visibleLine(ticket.title, 200)), " ", ticket.external_url ? outside(ticket.external_url) : null, h("div", { class: "faint" }, `→ ${lanes.map((each) => visibleLine(each, 60)).join(", ")}`));
        }),
      ),
      rest > 0 ? h("p", { class: "note" }, `${count(rest, "ticket")} more are not shown here.`) : null,
    );
    this.drawLanes();
  }

  async approve() {
    const { plan } = this;
    const first = plan.lanes.filter((lane) => !lane.after?.length).length;
    const sure = await ask({
      title: `Approve “${visibleLine(plan.title, 120)}”?`,
      body: [
        h("p", {}, `${count(plan.lanes.length, "lane is", "lanes are")} queued at once, and any worker that fits may claim ${plan.lanes.length === 1 ? "it" : "them"}.`),
        first < plan.lanes.length ? h("p", {}, `${count(first, "lane")} can begin now; the others wait for those named under “After”.`) : null,
        h("p", {}, "An approved plan can't be taken back; its lanes can be cancelled one by one."),
      ],
      action: "Approve",
    });
    if (sure === null) return;
    try {
      const answer = await post(`/api/agents/plans/${plan.id}/approve`);
      this.take(answer.plan, answer.runs);
      store.plans.set(plan.id, answer.plan);
      toast(`Approved: ${count(answer.runs.length, "lane is", "lanes are")} queued.`);
    } catch (error) {
      toast(error.message, { tone: "bad" });
      await this.reread();
    }
    this.draw();
  }

  reject() {
    const { plan } = this;
    const dialog = show(
      `Reject “${visibleLine(plan.title, 120)}”?`,
      h("p", {}, "Nothing of it is worked, and that can't be taken back; a new plan can be made. Whoever made it reads your reason."),
      form(`reject:${plan.id}`, {
        fields: [field("reason", "Reason", h("textarea", { rows: 4, autofocus: true }), "What would have to be different")],
        action: "Reject the plan",
        tone: "bad",
        cancel: h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"),
        submit: async ({ reason }) => {
          const answer = await post(`/api/agents/plans/${plan.id}/reject`, { reason: reason.trim() });
          dialog.close();
          this.plan = answer.plan;
          store.plans.set(plan.id, answer.plan);
          toast("Rejected.");
          this.draw();
        },
      }),
    );
  }
}
