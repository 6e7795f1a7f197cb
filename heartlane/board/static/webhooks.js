// Where a project's news goes: its webhooks, and the log of what was sent to each.

import { get, patch, post, readPages, remove } from "./api.js";
import { h, put } from "./dom.js";
import { count, dateTime } from "./format.js";
import { boxes, field, form, ticked } from "./form.js";
import { visible, visibleLine } from "./hostile.js";
import { query, withParameters } from "./router.js";
import { agoText, ask, command, empty, failure, loading, panel, show, toast } from "./ui.js";

const PAGE = 25;
const AGAIN_MILLISECONDS = 3_000;
const FORMATS = [
  ["standard", "JSON, signed by Standard Webhooks"],
  ["slack", "Slack's incoming webhooks"],
  ["discord", "Discord's incoming webhooks"],
];
const EVENTS = [
  ["*", "Everything, also what is added later"],
  ["notice.*", "Every notice"],
  ["plan.*", "Everything about plans"],
  ["run.*", "Everything about lanes"],
  ["run.shipped", "A lane shipped"],
  ["run.failed", "A lane failed"],
  ["run.waiting", "A worker waits for a person"],
  ["run.lease_expired", "A lane was taken back"],
  ["plan.created", "A plan waits for approval"],
  ["notice.budget_100", "A budget is used up"],
];
const DISABLED = { by_hand: "disabled by hand", gone: "disabled: its address is gone (410)", failing: "disabled: nothing reached it for a day" };
const STATES = { pending: "On its way", delivered: "Delivered", failed: "Given up", dropped: "Dropped" };

export function webhooksPart(place, rights) {
  const id = query().get("webhook");
  return id ? deliveries(place, rights, id) : list(place, rights);
}

function list(place, { project, admin, gone }) {
  const path = `/api/projects/${project.id}/webhooks`;
  const box = h("div", {}, loading());
  put(
    place,
    panel(
      "Webhooks",
      h("p", { class: "faint" }, "News of the project goes to these addresses as it happens, at least once, and is tried again for 24 hours."),
      box,
      admin ? h("p", {}, h("button", { type: "button", class: "primary", onclick: () => create(path, read) }, "New webhook …")) : h("p", { class: "faint" }, "You may look, test and send again. An admin's token may change them."),
    ),
  );

  async function read() {
    const found = [];
    try {
      await readPages(path, "webhooks", {}, (webhooks) => found.push(...webhooks));
      if (!gone()) put(box, found.length ? h("ul", { class: "rows-list" }, found.map(row)) : empty("No webhooks", "Chat rooms and programs can hear what happens here: lanes that ship or fail, plans to approve, notices."));
    } catch (error) {
      if (!gone()) put(box, failure(error, read));
    }
  }

  function row(webhook) {
    const name = nameOf(webhook);
    const act = (word, run, { tone = "" } = {}) => h("button", { type: "button", class: tone, "aria-label": `${word}: ${name}`, onclick: run }, word);
    return h(
      "li",
      {},
      h(
        "div",
        {},
        h("h3", { dir: "auto" }, name, h("b", { class: "tag", "data-tone": webhook.enabled ? (webhook.failures ? "warn" : "good") : "bad" }, webhook.enabled ? (webhook.failures ? `failing, ${count(webhook.failures, "attempt")}` : "on") : (DISABLED[webhook.disabled_reason] ?? "disabled"))),
        h("p", { class: "faint" }, h("span", { class: "path" }, visibleLine(webhook.url, 200)), ` · ${visibleLine(webhook.format, 30)}`),
        h("p", {}, webhook.events.map((each) => [h("code", {}, visibleLine(each, 60)), " "])),
        webhook.old_secret_until ? h("p", { class: "faint" }, `Signed with the old secret, too, until ${dateTime(webhook.old_secret_until)}.`) : null,
      ),
      h(
        "div",
        { class: "row-buttons" },
        h("a", { class: "button", href: withParameters({ webhook: webhook.id }) }, "Log", h("span", { class: "sr" }, ` of ${name}`)),
        act("Test", () => test(webhook)),
        admin ? act(webhook.enabled ? "Disable" : "Enable", () => turn(webhook)) : null,
        admin && webhook.format === "standard" ? act("New secret", () => rotate(webhook)) : null,
        admin ? act("Delete", () => drop(webhook), { tone: "bad-quiet" }) : null,
      ),
    );
  }

  async function tell(work, words) {
    try {
      const answer = await work();
      if (words) toast(words);
      await read();
      return answer;
    } catch (error) {
      toast(error.message, { tone: "bad" });
      return null;
    }
  }

  const test = (webhook) => tell(() => post(`${path}/${webhook.id}/test`), "A test is on its way. Its log says how it went.");

  async function turn(webhook) {
    const sure = await ask({
      title: `${webhook.enabled ? "Disable" : "Enable"} “${nameOf(webhook)}”?`,
      body: [h("p", {}, webhook.enabled ? "Nothing is sent there any more, and what still waits to be sent is dropped." : "It begins anew: what happens from now on is sent there; what happened meanwhile isn't.")],
      action: webhook.enabled ? "Disable" : "Enable",
    });
    if (sure !== null) tell(() => patch(`${path}/${webhook.id}`, { enabled: !webhook.enabled }), webhook.enabled ? "Disabled." : "Enabled.");
  }

  async function rotate(webhook) {
    const sure = await ask({
      title: `A new secret for “${nameOf(webhook)}”?`,
      body: [h("p", {}, "It is shown once. Messages are signed with both secrets for a day; then the old one is no good any more.")],
      action: "Make a secret",
    });
    if (sure === null) return;
    const answer = await tell(() => post(`${path}/${webhook.id}/secret`, {}));
    if (answer) showSecret(answer);
  }

  async function drop(webhook) {
    const sure = await ask({
      title: `Delete “${nameOf(webhook)}”?`,
      body: [h("p", {}, "Its log goes with it, and what still waits to be sent is dropped. That can't be taken back.")],
      action: "Delete",
      tone: "bad",
    });
    if (sure !== null) tell(() => remove(`${path}/${webhook.id}`), "Deleted.");
  }

  read();
}

function nameOf(webhook) {
  return visibleLine(webhook.name || webhook.url, 80);
}

function create(path, onDone) {
  const dialog = show(
    "New webhook",
    form(`webhook:${path}`, {
      fields: [
        field("url", "Address", h("input", { type: "url", autocomplete: "off", spellcheck: "false", autofocus: true }), "It may hold a secret, as Slack's and Discord's do: only its host is shown again."),
        field("name", "Name", h("input", { autocomplete: "off" }), "What people call it; may be left empty"),
        field("format", "Format", h("select", {}, FORMATS.map(([value, words]) => h("option", { value }, words)))),
        boxes("events", "It hears of", EVENTS.map(([value, words]) => [value, words, value === "*"])),
      ],
      action: "Create",
      cancel: h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"),
      submit: async (typed) => {
        const answer = await post(path, { url: typed.url.trim(), name: typed.name.trim() || null, format: typed.format, events: ticked("events", typed) });
        dialog.close();
        onDone();
        if (answer.secret) showSecret(answer);
        else toast("The webhook is there. “Test” sends something to it.");
      },
    }),
  );
}

/** The secret is answered once, and so it is shown once. */
function showSecret({ webhook, secret }) {
  show(
    `The secret of “${nameOf(webhook)}”`,
    h("p", {}, h("b", {}, "This is the only time that it is shown."), " Give it to the program that receives the messages: with it their signatures are verified, as Standard Webhooks says."),
    command(secret),
  );
}

// --- the log of one ---

function deliveries(place, { project, gone }, id) {
  const path = `/api/projects/${project.id}/webhooks/${encodeURIComponent(id)}`;
  const head = h("h2", {}, "What was sent");
  const about = h("p", { class: "faint" });
  const box = h("div", {}, loading());
  put(place, h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: withParameters({ webhook: null }) }, "Webhooks")), h("section", { class: "panel", "aria-label": "What was sent" }, head, about, box));
  let older = [];
  let timer = 0;
  let key = "";

  async function read() {
    clearTimeout(timer);
    try {
      const [{ webhook }, answer] = await Promise.all([get(path), get(`${path}/deliveries`, { limit: PAGE })]);
      if (gone()) return;
      put(about, `To ${nameOf(webhook)}. What is finished stays for seven days.`);
      draw(answer.deliveries, answer.next_cursor);
      if (answer.deliveries.some((each) => each.state === "pending")) timer = setTimeout(read, AGAIN_MILLISECONDS);
    } catch (error) {
      if (!gone()) put(box, failure(error, read));
    }
  }

  function draw(newest, next) {
    const ids = new Set(newest.map((each) => each.id));
    const all = [...newest, ...older.filter((each) => !ids.has(each.id))];
    const now = JSON.stringify(all.map((each) => [each.id, each.state, each.attempts.length, each.next_attempt_at]));
    if (now === key) return;
    key = now;
    const focused = document.activeElement?.closest?.("[data-focus]")?.dataset.focus;
    const opened = new Set([...box.querySelectorAll("details[open]")].map((each) => each.dataset.id));
    put(
      box,
      all.length ? h("ul", { class: "rows-list" }, all.map((each) => row(each, opened.has(each.id)))) : empty("Nothing was sent yet", "News goes out as it happens; “Test” sends something at once."),
      next && !older.length ? h("p", { class: "center" }, h("button", { type: "button", "data-focus": "more", onclick: () => readOlder(next, newest) }, "Older ones")) : null,
    );
    if (focused) box.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  async function readOlder(cursor, newest) {
    try {
      const found = [];
      let next = cursor;
      for (let page = 0; page < 20 && next; page += 1) {
        const answer = await get(`${path}/deliveries`, { limit: 200, cursor: next });
        found.push(...answer.deliveries);
        next = answer.next_cursor;
      }
      older = found;
      draw(newest, null);
    } catch (error) {
      toast(error.message, { tone: "bad" });
    }
  }

  function row(delivery, open) {
    const last = delivery.attempts.at(-1);
    const tone = { delivered: "good", pending: "warn" }[delivery.state] ?? "bad";
    const details = h("details", { "data-id": delivery.id, open }, h("summary", {}, `${count(delivery.attempts.length, "attempt")}, and what is sent`), attempts(delivery));
    const load = async () => {
      if (!details.open || details.querySelector("pre.prose")) return;
      const body = h("pre", { class: "prose", tabindex: "0" }, "Reading …");
      details.append(body);
      try {
        const answer = await get(`${path}/deliveries/${delivery.id}`);
        put(body, visible(JSON.stringify(answer.delivery.body, null, 2), 20_000));
      } catch (error) {
        put(body, error.message);
      }
    };
    details.addEventListener("toggle", load);
    return h(
      "li",
      {},
      h(
        "div",
        {},
        h("h3", {}, h("code", {}, visibleLine(delivery.type, 60)), h("b", { class: "tag", "data-tone": tone }, STATES[delivery.state] ?? visibleLine(delivery.state, 30))),
        h("p", { class: "faint" }, agoText(delivery.created_at), last ? ` · ${last.error ? visibleLine(last.error, 200).replace(/\.$/, "") : `answered ${last.status}`} (${last.milliseconds.toLocaleString("en")} ms)` : " · not tried yet", delivery.state === "pending" && last && delivery.next_attempt_at ? ` · next at ${dateTime(delivery.next_attempt_at)}` : ""),
        details,
      ),
      h("div", { class: "row-buttons" }, h("button", { type: "button", "data-focus": delivery.id, "aria-label": `Send again: ${visibleLine(delivery.type, 60)} of ${dateTime(delivery.created_at)}`, onclick: (event) => again(delivery, event.currentTarget) }, "Send again")),
    );
  }

  async function again(delivery, button) {
    button.disabled = true;
    try {
      await post(`${path}/deliveries/${delivery.id}/resend`);
      toast("It is sent again, under the same id.");
      await read();
    } catch (error) {
      toast(error.message, { tone: "bad" });
    } finally {
      button.disabled = false;
    }
  }

  read();
  return () => clearTimeout(timer);
}

function attempts({ attempts: list, type, created_at: created }) {
  if (!list.length) return h("p", { class: "faint" }, "None yet.");
  return h(
    "div",
    { class: "scrolls", tabindex: "0", role: "region", "aria-label": `Attempts: ${visibleLine(type, 60)} of ${dateTime(created)}` },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["No.", "When", "Answer", "Time", "What was wrong"].map((word) => h("th", { scope: "col" }, word)))),
      h("tbody", {}, list.map((each) => h("tr", {}, h("td", {}, String(each.attempt)), h("td", {}, dateTime(each.at)), h("td", {}, each.status === null ? "none" : String(each.status)), h("td", {}, `${each.milliseconds.toLocaleString("en")} ms`), h("td", { dir: "auto" }, visibleLine(each.error ?? "", 300))))),
    ),
  );
}
