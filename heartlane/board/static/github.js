// A project's link with its repository at GitHub: how it stands, and how it is made, mended and ended.

import { get, patch, post, put as putJson, readPages, remove } from "./api.js";
import { h, put } from "./dom.js";
import { ROLES, count } from "./format.js";
import { field, forget, form } from "./form.js";
import { outside, visibleLine } from "./hostile.js";
import { store } from "./store.js";
import { agoText, ask, failure, loading, panel, toast } from "./ui.js";

const AGAIN_MILLISECONDS = 3_000;
const MILESTONE_PAGES = 5;
const STATES = {
  running: ["", "Under way"],
  waiting: ["warn", "Waits for GitHub"],
  failed: ["bad", "Broken"],
  done: ["good", "Done"],
};

export function githubPart(place, { project, admin, operator, gone }) {
  const path = `/api/projects/${project.id}/github`;
  const key = `github:${project.id}`;
  const linkPanel = panel("GitHub", loading());
  const standing = h("div", { class: "standing" });
  const formPanel = panel("How it is linked");
  formPanel.hidden = true;
  put(place, linkPanel, formPanel);
  let timer = 0;
  let linked = null;
  let milestones = [];

  async function read(whole = true) {
    clearTimeout(timer);
    try {
      linked = await get(path).then(
        ({ github }) => github,
        (error) => {
          if (error.status === 404) return null;
          throw error;
        },
      );
      if (whole && admin) milestones = await openMilestones();
    } catch (error) {
      if (!gone()) put(linkPanel, h("h2", {}, "GitHub"), failure(error, read));
      return;
    }
    if (gone()) return;
    showStanding();
    if (whole) {
      put(linkPanel, h("h2", {}, "GitHub"), standing);
      formPanel.hidden = !admin;
      if (admin) put(formPanel, h("h2", {}, linked ? "How it is linked" : "Link it"), linkForm());
    }
    if (["running", "waiting"].includes(linked?.last_import?.state)) timer = setTimeout(() => read(false), AGAIN_MILLISECONDS);
  }

  async function openMilestones() {
    const found = [];
    await readPages(`/api/projects/${project.id}/milestones`, "milestones", {}, (each) => found.push(...each), { pages: MILESTONE_PAGES });
    return found.filter(({ id, status }) => status === "open" || id === linked?.milestone_id);
  }

  // --- how it stands ---

  function showStanding() {
    const had = standing.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    put(standing, linked ? [broken(), facts(), buttons()] : unlinked());
    if (had) standing.querySelector(`[data-act="${had}"]`)?.focus();
  }

  function unlinked() {
    return [
      h("p", {}, "Not linked. Linked with its repository, the project gets a ticket from each issue as it is labelled, and its lanes hear what becomes of their pull requests."),
      admin ? null : h("p", { class: "faint" }, "An admin's token may link it."),
    ];
  }

  function broken() {
    const why = linked.last_import?.state === "failed" ? linked.last_import.error : linked.repository === null ? "The project's repo_url is no repository at GitHub." : null;
    if (why === null) return null;
    return h(
      "div",
      { class: "why", "data-why": "failed", role: "alert" },
      h("p", {}, h("b", {}, "The link with GitHub is broken. "), visibleLine(why, 500)),
      h("p", {}, "Whoever runs the server gives it a token that sees the repository (", h("code", {}, "HEARTLANE_GITHUB_TOKEN"), ") and starts it anew; then link the project again here. Tickets stay as they are meanwhile."),
      admin && linked.repository !== null ? h("p", {}, h("button", { type: "button", class: "primary", "data-act": "relink", onclick: relink }, "Link again")) : null,
    );
  }

  function facts() {
    const last = linked.last_import;
    const [tone, word] = STATES[last?.state] ?? ["", last?.state ?? "None yet"];
    return h(
      "dl",
      { class: "facts" },
      fact("Repository", linked.repository === null ? "none" : outside(project.repo_url, visibleLine(linked.repository, 120))),
      fact("Issues", linked.label === null ? "every open one" : ["with the label ", h("code", { dir: "auto" }, visibleLine(linked.label, 100))]),
      fact("GitHub's webhooks", linked.hears ? "taken, at /api/hooks/github" : ["not taken: the server has no ", h("code", {}, "HEARTLANE_GITHUB_WEBHOOK_SECRET")]),
      fact("Last import", [
        h("b", { class: "tag", "data-tone": tone }, visibleLine(word, 40)),
        last ? [" ", agoText(last.updated_at), last.state === "waiting" && last.error ? `: ${visibleLine(last.error, 300)}` : ""] : null,
      ]),
      last ? fact("It read", `${count(last.read, "issue")}: ${last.created} new, ${last.updated} changed, ${last.unchanged} as before, ${last.skipped} skipped`) : null,
      last?.notes.length ? fact("Remarks", h("ul", { class: "plain" }, last.notes.map((each) => h("li", { dir: "auto" }, visibleLine(each, 300))))) : null,
    );
  }

  function fact(word, value) {
    return h("div", {}, h("dt", {}, word), h("dd", {}, value));
  }

  function buttons() {
    const busy = linked.last_import?.state === "running";
    return h(
      "p",
      { class: "ask-buttons start" },
      operator ? h("button", { type: "button", "data-act": "import", disabled: busy || linked.repository === null, onclick: bringIn }, busy ? "Imports …" : "Import issues now") : null,
      admin ? h("button", { type: "button", class: "bad-quiet", "data-act": "unlink", onclick: unlink }, "Unlink …") : null,
    );
  }

  // --- what is done ---

  async function bringIn() {
    for (const button of standing.querySelectorAll("button")) button.disabled = true;
    try {
      const { github } = await post(`${path}/import`);
      toast(github.last_import.state === "done" ? `Imported: ${github.last_import.created} new, ${github.last_import.updated} changed.` : "The import is under way, and goes on by itself.");
    } catch (error) {
      toast(error.message, { tone: "bad" });
    }
    if (!gone()) read(false);
  }

  async function relink() {
    try {
      await putJson(path, { label: linked.label, roles: linked.roles, milestone_id: linked.milestone_id });
    } catch (error) {
      toast(error.message, { tone: "bad" });
      return;
    }
    await bringIn();
  }

  async function unlink() {
    const sure = await ask({
      title: `Unlink the project from ${visibleLine(linked.repository ?? "GitHub", 120)}?`,
      body: [h("p", {}, "Issues there make no tickets here any more, and lanes hear nothing of their pull requests. Tickets that are here stay.")],
      action: "Unlink",
      tone: "bad",
    });
    if (sure === null) return;
    try {
      await remove(path);
      toast("The project is no longer linked with GitHub.");
      forget(key);
    } catch (error) {
      toast(error.message, { tone: "bad" });
    }
    if (!gone()) read();
  }

  function linkForm() {
    // The repository of a link that stands is changed by unlinking: what is under way there belongs to the old one.
    const named = linked?.repository ? null : h("input", { type: "url", autocomplete: "off", spellcheck: "false", value: project.repo_url ?? "" });
    const roles = Object.entries(linked?.roles ?? {}).flatMap(([role, labels]) => labels.map((label) => `${role} ${label}`));
    return form(key, {
      fields: [
        named ? field("repo_url", "Repository", named, "Its address, in any way that Git knows") : null,
        field("label", "Label", h("input", { autocomplete: "off", value: linked?.label ?? "", placeholder: "every open issue" }), "Issues with it become tickets."),
        field("roles", "Roles by label", h("textarea", { rows: 4, spellcheck: "false", ".value": roles.join("\n") }), `A role and a label in each line, such as: backend area/backend. * stands for anything. Labels that are called like a role count besides: ${ROLES.join(", ")}.`),
        field("milestone_id", "Milestone of new tickets", h("select", {}, h("option", { value: "" }, "none"), milestones.map(({ id, name }) => h("option", { value: id, selected: id === linked?.milestone_id }, visibleLine(name, 100))))),
      ],
      action: linked ? "Change the link" : "Link",
      cancel: linked ? h("button", { type: "button", onclick: () => (forget(key), read()) }, "As it was") : null,
      submit: async (typed) => {
        if (named && typed.repo_url.trim() !== (project.repo_url ?? "")) {
          const answer = await patch(`/api/projects/${project.id}`, { repo_url: typed.repo_url.trim() || null });
          project = answer.project;
          store.projects.set(project.id, project);
        }
        const answer = await putJson(path, { label: typed.label.trim() || null, roles: rolesOf(typed.roles), milestone_id: typed.milestone_id || null });
        toast(linked ? "The link is changed." : `Linked with ${visibleLine(answer.github.repository, 120)}.`);
        forget(key);
        read();
      },
    });
  }

  read();
  return () => clearTimeout(timer);
}

/** Role → labels, from a role and a label in each line. */
function rolesOf(text) {
  const roles = {};
  for (const line of text.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const [, role, label] = /^(\S+?)[\s:=]+(.+)$/.exec(line) ?? [null, line, ""];
    (roles[role] ??= []).push(label);
  }
  return roles;
}
