// The open notices, for the page that shows them and for their number in the navigation. The streams don't tell of them,
// so they are read again now and then, and whenever another number of lanes needs a hand.

import { get } from "./api.js";
import { attention, store } from "./store.js";

const AGAIN_MILLISECONDS = 15_000;
const SOON_MILLISECONDS = 1_500;
const MOST = 200;

class News {
  constructor() {
    this.open = null;
    this.error = null;
    this.listeners = new Set();
    this.hands = "";
    document.addEventListener("visibilitychange", () => !document.hidden && this.project !== undefined && this.soon());
    store.subscribe(() => this.look());
  }

  /** Follow the notices of a project (null: of all). */
  follow(project) {
    if (this.project === project) return;
    this.project = project;
    this.open = null;
    this.read();
  }

  /** `listener()` after each reading. Returns how to stop. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  look() {
    const hands = [...store.runs.values()].filter((run) => attention(run)).map((run) => run.id).sort().join();
    if (hands === this.hands) return;
    this.hands = hands;
    if (this.project !== undefined) this.soon();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), SOON_MILLISECONDS);
  }

  async read() {
    clearTimeout(this.timer);
    const { project } = this;
    if (!document.hidden) {
      try {
        const answer = await get("/api/agents/notices", { open: "true", limit: MOST, project_id: project });
        if (project !== this.project) return;
        this.open = answer.notices;
        this.error = null;
      } catch (error) {
        if (project !== this.project) return;
        this.error = error;
      }
      for (const listener of this.listeners) listener();
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), AGAIN_MILLISECONDS);
  }

  /** A notice that was dismissed is open no more. */
  drop(id) {
    this.open = (this.open ?? []).filter((notice) => notice.id !== id);
    for (const listener of this.listeners) listener();
  }
}

export const news = new News();
