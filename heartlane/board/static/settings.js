// The settings of a project, and what was done and who is logged in: one part of them at a time, named by the address.

import { may } from "./api.js";
import { auditPart } from "./audit.js";
import { h, put } from "./dom.js";
import { githubPart } from "./github.js";
import { visibleLine } from "./hostile.js";
import { limitsPart } from "./limits.js";
import { title } from "./page.js";
import { query, withParameters } from "./router.js";
import { rulesPart } from "./rules.js";
import { sessionsPart } from "./sessions.js";
import { store } from "./store.js";
import { failure, heading, loading } from "./ui.js";
import { webhooksPart } from "./webhooks.js";

/**
 * Each part: its words, and `show(place, {project, admin, operator, gone})`, which fills an element and may return how
 * to end it. `project` where it is of a project alone; `least` the scope that may look.
 */
const PARTS = {
  limits: { word: "Budget and caps", show: limitsPart, project: true },
  webhooks: { word: "Webhooks", show: webhooksPart, project: true, least: "operator" },
  github: { word: "GitHub", show: githubPart, project: true },
  notices: { word: "What is told", show: rulesPart, project: true },
  audit: { word: "Audit log", show: auditPart, least: "operator" },
  sessions: { word: "Sessions", show: sessionsPart },
};

export async function mount(main) {
  title("Settings");
  const [admin, operator] = await Promise.all([may("admin").catch(() => false), may("operator").catch(() => false)]);
  const page = new Settings(main, { admin, operator });
  await page.changed();
  return page;
}

class Settings {
  constructor(main, rights) {
    this.rights = rights;
    this.chips = h("nav", { class: "chips", "aria-label": "Parts of the settings" });
    this.body = h("div", {}, loading());
    put(main, heading("Settings", this.chips), this.body);
  }

  unmount() {
    this.end?.();
  }

  async changed() {
    this.end?.();
    const asked = query().get("part");
    const name = Object.hasOwn(PARTS, asked ?? "") ? asked : "limits";
    const part = PARTS[name];
    put(
      this.chips,
      Object.entries(PARTS).map(([each, { word }]) => h("a", { class: "chip", href: withParameters({ part: each === "limits" ? null : each, webhook: null, action: null }), "aria-current": each === name ? "true" : null }, word)),
    );
    // On a phone the parts stand in one line that is pushed along.
    this.chips.querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "nearest" });
    let ended = false;
    let endPart = null;
    this.end = () => {
      ended = true;
      endPart?.();
    };
    if (part.least && !this.rights[part.least]) {
      put(this.body, h("section", { class: "empty" }, h("h2", {}, "Not for this token"), h("p", {}, `${part.word}: that needs a token with the scope ${part.least}.`)));
      return;
    }
    let project = null;
    try {
      const projects = await store.loadProjects();
      if (ended) return;
      project = projects.get(query().get("project")) ?? (projects.size === 1 ? [...projects.values()][0] : null);
    } catch (error) {
      if (!ended) put(this.body, failure(error, () => this.changed()));
      return;
    }
    if (part.project && !project) {
      put(this.body, this.chooser());
      return;
    }
    const place = h("div", { class: "settings" });
    put(this.body, place);
    endPart = part.show(place, { project, ...this.rights, gone: () => ended });
  }

  chooser() {
    const projects = [...store.projects.values()].sort((one, other) => one.name.localeCompare(other.name));
    if (!projects.length) return h("section", { class: "empty" }, h("h2", {}, "No project yet"), h("p", {}, "Settings are those of a project. The first plan in a terminal makes one: ", h("code", {}, "heartlane plan create plan.yaml")));
    return h("section", { class: "panel" }, h("h2", {}, "Of which project?"), h("ul", { class: "plain chooser" }, projects.map((project) => h("li", {}, h("a", { href: withParameters({ project: project.id }), dir: "auto" }, visibleLine(project.name, 120))))));
  }
}
