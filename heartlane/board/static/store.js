// The lanes as the board knows them: read page by page, kept up by the stream, told of once per frame.

import { get, readPages, withQuery } from "./api.js";
import { HELD, WAITING, now } from "./format.js";
import { Live } from "./live.js";

export const LANES_MAX = 20_000;
const ENDED_PAGES = 5;
const WITHOUT_STREAM_MILLISECONDS = 2_000;

/** Why a person should look at a lane now, or null. What time alone changes is worked out here as the server does. */
export function attention(run) {
  if (run.needs_attention && run.needs_attention !== "lease_running_out") return run.needs_attention;
  if (!HELD.has(run.state) || !run.lease_expires_at || !run.last_heartbeat) return null;
  const deadline = Date.parse(run.lease_expires_at);
  // With less than a third of the lease left, two renewals have gone missing.
  return (deadline - now()) * 3 < deadline - Date.parse(run.last_heartbeat) ? "lease_running_out" : null;
}

class Store {
  constructor() {
    this.runs = new Map();
    this.plans = new Map();
    this.projects = new Map();
    this.listeners = new Set();
    this.changed = new Set();
    this.framed = false;
    this.project = null;
    this.loading = "idle";
    this.error = null;
    this.more = { ended: false, lanes: false };
    this.connection = "connecting";
    this.connectionListeners = new Set();
  }

  /**
   * Follow the lanes of a project (null: of all). Already followed ones are kept. Nothing is followed before the first
   * call.
   */
  follow(project) {
    if (this.live && this.project === project && this.live.state !== "refused") return;
    this.unfollow();
    this.project = project;
    this.runs.clear();
    this.plans.clear();
    this.loading = "loading";
    this.live = new Live(withQuery("/api/agents/stream", { message: ["run", "plan"], leases: "true", project_id: project }), {
      onEvent: (type, data) => this.hear(type, data),
      onState: (state) => this.say(state),
      onResume: () => this.loading === "failed" && this.load(),
    });
    // The stream says when to read the lists, so that nothing falls between the two. Without it they are read as well.
    const followed = this.live;
    setTimeout(() => followed === this.live && this.reading === undefined && this.load(), WITHOUT_STREAM_MILLISECONDS);
    this.touch(null);
  }

  unfollow() {
    this.live?.stop();
    this.live = null;
    this.reading?.abort();
    this.reading = undefined;
  }

  say(state) {
    this.connection = state;
    for (const listener of this.connectionListeners) listener(state);
  }

  onConnection(listener) {
    this.connectionListeners.add(listener);
    listener(this.connection);
    return () => this.connectionListeners.delete(listener);
  }

  /** `listener(changed ids, or null for all)` once per frame in which something changed. Returns how to stop. */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Read the lanes: first those that somebody works and that failed, then what waits, then the last that ended. */
  async load() {
    this.reading?.abort();
    const reading = (this.reading = new AbortController());
    this.loading = "loading";
    this.error = null;
    this.touch(null);
    const query = { project_id: this.project };
    const add = (runs) => {
      for (const run of runs) this.put(run);
      return this.runs.size < LANES_MAX;
    };
    const read = (states, pages) =>
      readPages("/api/agents/runs", "runs", { ...query, state: states }, add, { signal: reading.signal, pages });
    try {
      await read([...HELD, "failed"], 100);
      this.loading = "first";
      this.touch(null);
      this.more.lanes = !(await read([...WAITING], 100));
      this.more.ended = !(await read(["shipped"], ENDED_PAGES));
      this.loading = "done";
    } catch (error) {
      if (error.name === "AbortError") return;
      this.loading = "failed";
      this.error = error;
      if (error.status === 0 || error.status >= 500 || error.status === 429) {
        setTimeout(() => this.reading === reading && this.load(), 1000 * Math.max(error.retryAfter ?? 0, 3));
      }
    }
    this.touch(null);
  }

  /** The projects that may be seen, by id; read once. */
  async loadProjects() {
    this.projectsRead ??= readPages("/api/projects", "projects", {}, (projects) => {
      for (const project of projects) this.projects.set(project.id, project);
    }).then(() => this.projects);
    return this.projectsRead;
  }

  /** A plan's title, read when it is asked for first; null until then. */
  planTitle(id) {
    if (!this.plans.has(id)) {
      this.plans.set(id, null);
      this.wantedPlans ??= this.readPlans();
    }
    return this.plans.get(id)?.title ?? null;
  }

  async readPlans() {
    await null; // all that a frame asks for is read at once
    try {
      await readPages("/api/agents/plans", "plans", { project_id: this.project, status: "approved" }, (plans) => {
        for (const plan of plans) this.plans.set(plan.id, plan);
        return [...this.plans.values()].includes(null);
      }, { pages: 10 });
    } catch {
      // Their titles stay unknown; the lanes are there all the same.
    }
    this.wantedPlans = null;
    this.touch(null);
  }

  hear(type, data) {
    if (type === "run") this.put(data);
    else if (type === "leases") this.renew(data);
    else if (type === "reset") this.load();
    else if (type === "plan") {
      this.plans.set(data.id, data);
      this.touch(null);
    }
  }

  /** Leases that were renewed: nothing else of their runs has changed. */
  renew(leases) {
    for (const [id, deadline, heard] of leases) {
      const run = this.runs.get(id);
      if (!run || !HELD.has(run.state) || (run.last_heartbeat ?? "") > heard) continue;
      this.runs.set(id, { ...run, lease_expires_at: deadline, last_heartbeat: heard });
      this.touch(id);
    }
  }

  /** Take a run, unless a newer one is known. */
  put(run) {
    const known = this.runs.get(run.id);
    if (known && isNewer(known, run)) return;
    if (this.project && run.project_id !== this.project) return;
    this.runs.set(run.id, run);
    this.touch(run.id);
  }

  /** Read one run anew. */
  async refresh(id) {
    this.put((await get(`/api/agents/runs/${id}`)).run);
  }

  touch(id) {
    if (id === null) this.changed = null;
    else this.changed?.add(id);
    if (this.framed) return;
    this.framed = true;
    onFrame(() => {
      this.framed = false;
      const changed = this.changed;
      this.changed = new Set();
      for (const listener of this.listeners) listener(changed);
    });
  }
}

/** Run once before the next frame is drawn; in a page that isn't drawn, soon. */
export function onFrame(work) {
  if (document.hidden) setTimeout(work, 100);
  else requestAnimationFrame(work);
}

function isNewer(known, run) {
  const difference = Date.parse(known.updated_at ?? 0) - Date.parse(run.updated_at ?? 0);
  if (difference !== 0) return difference > 0;
  return known.event_count > run.event_count || (known.last_heartbeat ?? "") > (run.last_heartbeat ?? "");
}

export const store = new Store();
