// Browsers that are logged in, and how to end what they may.

import { logIn, me, readPages, remove } from "./api.js";
import { h, put } from "./dom.js";
import { dateTime } from "./format.js";
import { visibleLine } from "./hostile.js";
import { agoText, ask, failure, loading, panel, toast } from "./ui.js";

const PAGES = 5;
const METHODS = { link: "by a one-time link", token: "by its token" };

export function sessionsPart(place, { admin, gone }) {
  const list = h("div", {}, loading());
  put(place, panel("Browsers that are logged in", h("p", { class: "faint" }, admin ? "Those of every token that you may see." : "Those of your token.", " A session that ends is over on every server within two seconds."), list));

  async function read() {
    const found = [];
    try {
      const own = (await me()).session?.id;
      await readPages("/api/sessions", "sessions", {}, (sessions) => found.push(...sessions), { pages: PAGES });
      if (!gone()) put(list, h("ul", { class: "rows-list" }, found.map((session) => row(session, session.id === own))));
    } catch (error) {
      if (!gone()) put(list, failure(error, read));
    }
  }

  function row(session, own) {
    const name = visibleLine(session.token_name, 80);
    return h(
      "li",
      {},
      h(
        "div",
        {},
        h("h3", { dir: "auto" }, name, own ? h("b", { class: "tag" }, "This browser") : null),
        h("p", { class: "faint" }, `${session.scope} · ${browserName(session.user_agent)}${session.address ? ` · ${visibleLine(session.address, 60)}` : ""}`),
        h("p", { class: "faint" }, `Logged in ${METHODS[session.method] ?? ""} `, agoText(session.created_at), " · last used ", agoText(session.last_used_at), ` · until ${dateTime(session.expires_at)}`),
      ),
      h("button", { type: "button", class: "bad-quiet", "aria-label": `End the session of ${name}${own ? " in this browser" : ""}`, onclick: () => end(session, own) }, own ? "Log out" : "End"),
    );
  }

  async function end(session, own) {
    const sure = await ask({
      title: own ? "Log this browser out?" : `End the session of “${visibleLine(session.token_name, 80)}”?`,
      body: [h("p", {}, `${own ? "This" : "That"} browser can do nothing more from then on, and asks for a login. The token itself goes on to count; who has it can log in anew.`)],
      action: own ? "Log out" : "End the session",
      tone: "bad",
    });
    if (sure === null) return;
    try {
      await remove(`/api/sessions/${session.id}`);
      if (own) logIn();
      else {
        toast("The session is over.");
        read();
      }
    } catch (error) {
      toast(error.message, { tone: "bad" });
    }
  }

  read();
}

/** A browser's name in its own long one. */
function browserName(agent) {
  const text = agent ?? "";
  const name = /(Firefox|Edg|OPR|Chrome|Safari)\/(\d+)/.exec(text);
  const system = /(Windows|Mac OS X|Android|iPhone|iPad|Linux)/.exec(text);
  if (!name) return visibleLine(text || "an unknown browser", 60);
  return `${{ Edg: "Edge", OPR: "Opera" }[name[1]] ?? name[1]} ${name[2]}${system ? ` on ${system[1]}` : ""}`;
}
