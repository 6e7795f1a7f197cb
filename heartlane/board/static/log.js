// A run's log, live: followed or paused, searched, filtered by kind. Of any number of events a few hundred are in the page.

import { h, put, setText } from "./dom.js";
import { KINDS, TYPES, EventLog, eventCount, eventText, kindOf, searchText } from "./events.js";
import { clockTime, count, dateTime } from "./format.js";
import { outside, safeUrl, visible } from "./hostile.js";
import { onFrame } from "./store.js";
import { toast } from "./ui.js";

const NODES_MAX = 400;
const STEP = 100;
const LINE_MAX = 700;
const WHOLE_MAX = 100_000;
const EDGE = 80;

export class LogView {
  /**
   * eventsNow()     how many events the run has, as far as is known
   */
  constructor(runId, eventsNow) {
    this.log = new EventLog(runId);
    this.eventsNow = eventsNow;
    this.shown = []; // the events that pass the filter
    this.start = 0; // the window of them that is in the page
    this.end = 0;
    this.following = true;
    this.detached = false;
    this.unseen = 0;
    this.kinds = { ...KINDS };
    this.words = "";
    this.abort = new AbortController();
    this.build();
  }

  build() {
    this.search = h("input", { type: "search", placeholder: "Search the log", "aria-label": "Search the log", "aria-keyshortcuts": "/", autocomplete: "off", spellcheck: "false" });
    this.search.addEventListener("input", () => {
      this.words = this.search.value.trim().toLowerCase();
      this.filter();
    });
    this.follow = h("button", { type: "button", "aria-pressed": "true", "aria-keyshortcuts": "s", class: "follow", onclick: () => this.setFollowing(!this.following) }, "Following");
    this.toggles = Object.keys(KINDS).map((kind) => {
      const box = h("input", { type: "checkbox", checked: this.kinds[kind] });
      box.addEventListener("change", () => {
        this.kinds[kind] = box.checked;
        this.filter();
      });
      return h("label", { class: "check" }, box, kind);
    });
    this.news = h("button", { type: "button", class: "news primary", hidden: true, onclick: () => this.setFollowing(true) });
    this.lines = h("div", { class: "log-lines", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Events, oldest first" });
    this.lines.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.sum = h("p", { class: "note", role: "status" });
    this.element = h(
      "section",
      { class: "panel log", "aria-label": "Log" },
      h("header", {}, h("h2", {}, "Log"), this.follow, this.search, h("fieldset", { class: "kinds" }, h("legend", { class: "sr" }, "Kinds of events"), this.toggles)),
      h("div", { class: "log-box" }, this.lines, this.news),
      this.sum,
    );
  }

  unmount() {
    this.abort.abort();
  }

  /** Read the end of the log: as many pages as it takes to fill the view with something other than heartbeats. */
  async open(total) {
    this.log.reset(Math.max(0, total - 200));
    while (!(await this.log.readAfter(this.abort.signal)));
    for (let pages = 0; pages < 5 && this.log.first > 1 && this.log.events.filter((event) => this.passes(event)).length < 50; pages += 1) {
      await this.log.readBefore(this.abort.signal);
    }
    this.log.trimOldest();
    this.detached = false;
    this.filter();
  }

  /** An event came by the stream. */
  hear(event) {
    if (this.detached) {
      this.unseen += this.passes(event) ? 1 : 0;
    } else if (this.log.append(event)) {
      this.fresh ??= [];
      this.fresh.push(event);
    } else return;
    if (this.framed) return;
    this.framed = true;
    onFrame(() => {
      this.framed = false;
      this.showFresh();
    });
  }

  passes(event) {
    return this.kinds[kindOf(event)] && (!this.words || searchText(event).includes(this.words));
  }

  showFresh() {
    const fresh = (this.fresh ?? []).filter((event) => this.passes(event));
    this.fresh = null;
    this.shown.push(...fresh);
    if (this.following) {
      if (this.log.trimOldest()) this.dropShown();
      this.toEnd();
    } else {
      this.unseen += fresh.length;
      // What is read while the view stands still is bounded too: then the newest go, and are read again on return.
      if (this.log.trimNewest()) this.detach();
    }
    this.say();
  }

  dropShown() {
    const first = this.log.first;
    let gone = 0;
    while (gone < this.shown.length && this.shown[gone].seq < first) gone += 1;
    this.shown.splice(0, gone);
    this.start = Math.max(0, this.start - gone);
    this.end = Math.max(0, this.end - gone);
  }

  detach() {
    this.detached = true;
    const last = this.log.last;
    while (this.shown.length && this.shown.at(-1).seq > last) this.shown.pop();
    this.end = Math.min(this.end, this.shown.length);
  }

  filter() {
    this.shown = this.log.events.filter((event) => this.passes(event));
    this.start = Math.max(0, this.shown.length - NODES_MAX);
    this.end = this.shown.length;
    this.unseen = 0;
    put(this.lines, this.shown.slice(this.start, this.end).map((event) => this.line(event)));
    this.lines.scrollTop = this.lines.scrollHeight;
    this.say();
  }

  /** Show the end of what there is, adding and dropping only what has changed. */
  toEnd() {
    const from = Math.max(this.end, this.shown.length - NODES_MAX);
    this.lines.append(...this.shown.slice(from).map((event) => this.line(event)));
    this.end = this.shown.length;
    this.start = Math.max(0, this.end - NODES_MAX);
    while (this.lines.childElementCount > this.end - this.start) this.lines.firstChild.remove();
    this.lines.scrollTop = this.lines.scrollHeight;
  }

  async setFollowing(on) {
    this.following = on;
    this.follow.setAttribute("aria-pressed", String(on));
    setText(this.follow, on ? "Following" : "Follow");
    if (on) {
      if (this.detached) {
        try {
          await this.open(this.eventsNow());
        } catch (error) {
          if (error.name !== "AbortError") toast(error.message, { tone: "bad" });
        }
      } else this.toEnd();
      this.unseen = 0;
    }
    this.say();
  }

  async scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.lines;
    const below = scrollHeight - scrollTop - clientHeight;
    // Who scrolls up wants to read; who comes back to the end wants to follow.
    if (this.following && below > EDGE && scrollTop < (this.scrollBefore ?? 0)) this.setFollowing(false);
    else if (!this.following && below < 4 && this.end === this.shown.length && !this.detached && this.unseen === 0) this.setFollowing(true);
    this.scrollBefore = scrollTop;
    if (scrollTop < EDGE) await this.earlier();
    else if (below < EDGE && this.end < this.shown.length) this.later();
  }

  /** Show what stands before, reading it where it must be. */
  async earlier() {
    if (this.reading || (this.start === 0 && this.log.first <= 1)) return;
    this.reading = true;
    try {
      if (this.start === 0) {
        const found = (await this.log.readBefore(this.abort.signal)).filter((event) => this.passes(event));
        this.shown.unshift(...found);
        this.start += found.length;
        this.end += found.length;
        if (this.log.trimNewest()) {
          if (this.following) await this.setFollowing(false);
          this.detach();
        }
        this.say();
        if (!found.length && this.log.first > 1 && this.lines.scrollTop < EDGE) {
          this.reading = false;
          await this.earlier();
          return;
        }
      }
      const from = Math.max(0, this.start - STEP);
      const height = this.lines.scrollHeight;
      const top = this.lines.scrollTop;
      this.lines.prepend(...this.shown.slice(from, this.start).map((event) => this.line(event)));
      this.lines.scrollTop = top + this.lines.scrollHeight - height;
      this.start = from;
      while (this.lines.childElementCount > NODES_MAX) {
        this.lines.lastChild.remove();
        this.end -= 1;
      }
      if (this.following && this.end < this.shown.length) await this.setFollowing(false);
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, { tone: "bad" });
    } finally {
      this.reading = false;
    }
  }

  later() {
    const to = Math.min(this.shown.length, this.end + STEP);
    this.lines.append(...this.shown.slice(this.end, to).map((event) => this.line(event)));
    this.end = to;
    while (this.lines.childElementCount > NODES_MAX) {
      const top = this.lines.scrollTop - this.lines.firstChild.offsetHeight;
      this.lines.firstChild.remove();
      this.lines.scrollTop = top;
      this.start += 1;
    }
  }

  say() {
    this.news.hidden = this.following || this.unseen === 0;
    if (!this.news.hidden) setText(this.news, `${count(this.unseen, "new line")} ↓`);
    const total = this.eventsNow();
    const parts = [];
    if (this.words) parts.push(`${count(this.shown.length, "event fits", "events fit")}`);
    if (this.log.first > 1) parts.push(`the last ${eventCount(this.log.events.length)} of ${total.toLocaleString("en")} are here; scroll up for earlier ones`);
    else parts.push(eventCount(total));
    const text = parts.join(", of which ");
    setText(this.sum, this.words && this.log.first > 1 ? `${text}. Search looks at these.` : text);
  }

  line(event) {
    const type = event.type in TYPES ? event.type : "unknown";
    const at = event.at && !Number.isNaN(Date.parse(event.at)) ? event.at : event.recorded_at;
    return h(
      "div",
      { class: "event", "data-type": type, "data-bad": event.type === "error" || event.type === "lease_expired" || event.payload?.ok === false ? "" : null },
      h("time", { datetime: at, title: `${dateTime(at)}, attempt ${event.attempt}, event ${event.seq}` }, clockTime(at)),
      h("span", { class: "event-type" }, TYPES[event.type]?.[0] ?? visible(event.type, 30)),
      this.text(event),
    );
  }

  text(event) {
    const whole = eventText(event);
    const body = h("span", { class: "event-text", dir: "auto" });
    if (event.type === "ship_complete" && safeUrl(event.payload?.pr_url)) body.append(outside(event.payload.pr_url), " ");
    const rest = event.type === "ship_complete" && body.childElementCount ? whole.replace(event.payload.pr_url, "").replace(/^ · /, "") : whole;
    if (rest.length <= LINE_MAX) {
      body.append(...marked(visible(rest), this.words));
      return body;
    }
    const more = h("button", { type: "button", class: "quiet" }, `Show all ${rest.length.toLocaleString("en")} characters`);
    more.addEventListener("click", () => put(body, visible(rest, WHOLE_MAX)));
    body.append(...marked(visible(rest.slice(0, LINE_MAX)), this.words), " … ", more);
    return body;
  }
}

/** Text with what was searched for marked in it. */
function marked(text, words) {
  if (!words) return [text];
  const low = text.toLowerCase();
  const parts = [];
  let from = 0;
  // Small letters of some alphabets are longer than their capitals: then nothing is marked rather than the wrong part.
  for (let at = low.indexOf(words); at >= 0 && low.length === text.length && parts.length < 100; at = low.indexOf(words, from)) {
    parts.push(text.slice(from, at), h("mark", {}, text.slice(at, at + words.length)));
    from = at + words.length;
  }
  parts.push(text.slice(from));
  return parts;
}
