// Server-Sent Events by `fetch`: unlike EventSource it tells a lost session from a lost server, and says how it stands.

import { logIn } from "./api.js";

const QUIET_MILLISECONDS = 40_000; // the server says something every 15 s
const AGAIN_MILLISECONDS = [500, 1_000, 2_000, 3_000, 5_000, 10_000];
const HIDDEN_MILLISECONDS = 60_000;

/**
 * A stream that is followed until `stop()`. It comes back by itself, from behind the last event that it was told.
 *
 * path        of the stream, with its query
 * onEvent     (type, data, id) for each event; data is parsed JSON
 * onState     "connecting" | "live" | "broken" | "refused", and since when
 * onResume    called when a broken stream is live again
 */
export class Live {
  constructor(path, { onEvent, onState = () => {}, onResume = () => {} }) {
    this.path = path;
    this.onEvent = onEvent;
    this.onState = onState;
    this.onResume = onResume;
    this.lastId = null;
    this.tries = 0;
    this.wasLive = false;
    this.stopped = false;
    this.onVisible = () => this.visibility();
    document.addEventListener("visibilitychange", this.onVisible);
    this.loop();
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.onVisible);
    clearTimeout(this.hiding);
    this.controller?.abort();
    this.wake?.();
  }

  /** A page that nobody looks at lets its connection go: browsers have six of them for one server. */
  visibility() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        this.asleep = true;
        this.controller?.abort();
      }, HIDDEN_MILLISECONDS);
    } else if (this.asleep) {
      this.asleep = false;
      this.tries = 0;
      this.wake?.();
    }
  }

  async loop() {
    while (!this.stopped) {
      this.say(this.wasLive && this.tries > 0 ? "broken" : "connecting");
      try {
        await this.follow();
      } catch {
        // Whatever broke it, the answer is to come back.
      }
      if (this.stopped) return;
      if (this.refused) {
        this.say("refused");
        return;
      }
      if (!this.asleep) this.say("broken");
      await this.pause();
    }
  }

  async follow() {
    this.controller = new AbortController();
    const headers = { accept: "text/event-stream" };
    if (this.lastId !== null) headers["last-event-id"] = this.lastId;
    const response = await fetch(this.path, { headers, signal: this.controller.signal, credentials: "same-origin" });
    if (response.status === 401) {
      logIn();
      this.stopped = true;
    }
    if (response.status === 403 || response.status === 404) this.refused = true;
    if (!response.ok) {
      this.retryMilliseconds = 1000 * Number(response.headers.get("retry-after") ?? 0);
      return;
    }
    const back = this.wasLive;
    this.tries = 0;
    this.wasLive = true;
    this.say("live");
    if (back) this.onResume();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new Parser((type, data, id) => this.hear(type, data, id), (id) => (this.lastId = id));
    for (;;) {
      const timer = setTimeout(() => this.controller.abort(), QUIET_MILLISECONDS);
      try {
        const { value, done } = await reader.read();
        if (done) return;
        parser.feed(value);
      } finally {
        clearTimeout(timer);
      }
    }
  }

  hear(type, data, id) {
    let value;
    try {
      value = JSON.parse(data);
    } catch {
      return;
    }
    if (type === "end" && ["NOT_AUTHENTICATED", "TOKEN_EXPIRED", "TOKEN_REVOKED"].includes(value.code)) logIn();
    this.onEvent(type, value, id);
    // Only now: what fails to be heard is told again.
    if (id !== null) this.lastId = id;
  }

  async pause() {
    const least = AGAIN_MILLISECONDS[Math.min(this.tries, AGAIN_MILLISECONDS.length - 1)];
    this.tries += 1;
    const wait = Math.max(least * (0.75 + Math.random() / 2), this.retryMilliseconds ?? 0);
    this.retryMilliseconds = 0;
    await new Promise((resolve) => {
      this.wake = resolve;
      if (!this.asleep) setTimeout(resolve, wait);
    });
  }

  say(state) {
    if (this.state === state) return;
    this.state = state;
    this.onState(state);
  }
}

/** Splits a stream's text into events. Signs of life carry an id alone, which counts as well. */
export class Parser {
  constructor(onEvent, onId = () => {}) {
    this.onEvent = onEvent;
    this.onId = onId;
    this.parts = [];
    this.clear();
  }

  clear() {
    this.type = "message";
    this.data = [];
    this.id = null;
  }

  feed(text) {
    // Pieces are joined once per line, however many a long line comes in.
    const lines = text.split("\n");
    this.parts.push(lines[0]);
    for (let index = 1; index < lines.length; index += 1) {
      this.line(this.parts.join("").replace(/\r$/, ""));
      this.parts = [lines[index]];
    }
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.onEvent(this.type, this.data.join("\n"), this.id);
      else if (this.id !== null) this.onId(this.id);
      this.clear();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.type = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id") this.id = value;
  }
}
