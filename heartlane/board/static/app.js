// The frame: which page is shown, what all pages share, and what the top bar says.

import { h, put, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { news } from "./news.js";
import { startLeave } from "./leave.js";
import { pageKeys, startKeys } from "./keys.js";
import { titleHands } from "./page.js";
import { match, query, start, withParameters, go } from "./router.js";
import { attention, onFrame, store } from "./store.js";
import { banner, failure, tick, toast } from "./ui.js";

const main = document.getElementById("main");
const nav = [...document.querySelectorAll("nav.main-nav a")];
const LAZY = {
  lane: () => import("./lane.js"),
  lanes: () => import("./lanes.js"),
  plan: () => import("./plan.js"),
  plans: () => import("./plans.js"),
  workers: () => import("./workers.js"),
  overview: () => import("./overview.js"),
  notices: () => import("./notices.js"),
  settings: () => import("./settings.js"),
};

let shown = null;
let turn = 0;

/** Show the page of the address. */
async function show({ samePage = false, back = false } = {}) {
  const place = match(location.pathname);
  if (place === null) {
    location.reload();
    return;
  }
  const project = query().get("project");
  if (needsLanes(place)) store.follow(project);
  news.follow(project);
  linkNavigation(place.name, project);
  if (samePage && shown?.name === place.name && shown.id === place.id && shown.page?.changed) {
    shown.page.changed(place);
    return;
  }
  const mine = (turn += 1);
  shown?.page?.unmount?.();
  shown = { ...place, page: null };
  pageKeys([]);
  document.body.dataset.page = place.name;
  try {
    const module = await LAZY[place.name]();
    if (mine !== turn) return;
    put(main);
    shown.page = (await module.mount(main, place)) ?? {};
    if (mine !== turn) {
      shown.page?.unmount?.();
      return;
    }
    pageKeys(shown.page.keys ?? []);
  } catch (error) {
    if (mine === turn) put(main, h("h1", {}, "The board"), failure(error, () => show()));
    console.error(error);
  }
  const restored = back ? (history.state?.scroll ?? 0) : 0;
  scrollTo(0, restored);
  // Who goes on by keyboard or ear begins at the new page; not at the first one, where nobody has gone anywhere.
  if (mine > 1 && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
}

function needsLanes(place) {
  return place.name !== "lane" || store.live;
}

function linkNavigation(name, project) {
  for (const link of nav) {
    const here = link.dataset.page === name || (name === "lane" && link.dataset.page === "lanes") || (name === "plan" && link.dataset.page === "plans");
    setAttribute(link, "aria-current", here ? "page" : null);
    link.href = withParameters({ project }, link.dataset.path, "");
  }
  const select = document.getElementById("project");
  if (select.value !== (project ?? "")) select.value = project ?? "";
}

let hands = 0;

// --- the top bar ---

const WORDS = {
  connecting: ["Connecting", "The board is connecting to the server."],
  live: ["Live", "Changes are shown as they happen."],
  broken: ["Not live", "The connection broke. The board tries again by itself; what is shown may be old."],
  refused: ["Not live", "The server refuses to tell of changes here."],
};

function showConnection(state) {
  const element = document.getElementById("connection");
  const [word, words] = WORDS[state];
  element.dataset.state = state;
  element.title = words;
  setText(element.lastElementChild, word);
  clearTimeout(showConnection.timer);
  // A moment without a connection is no news.
  if (state === "broken") {
    showConnection.timer = setTimeout(() => banner("The connection to the server broke. What is shown may be old; the board tries again by itself.", "warn"), 2000);
  } else if (state === "live") banner(null);
}

async function fillProjects() {
  const select = document.getElementById("project");
  let projects;
  try {
    projects = await store.loadProjects();
  } catch {
    return;
  }
  if (projects.size < 2) return;
  put(
    select,
    h("option", { value: "" }, "All projects"),
    [...projects.values()]
      .sort((one, other) => one.name.localeCompare(other.name))
      .map((project) => h("option", { value: project.id }, project.name)),
  );
  select.value = query().get("project") ?? "";
  select.closest("label").hidden = false;
  select.addEventListener("change", () => {
    const path = match(location.pathname).id ? "/" : location.pathname;
    go(withParameters({ project: select.value, plan: null }, path));
  });
}

const THEMES = ["", "light", "dark"];
const THEME_WORDS = { "": "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };

function startTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const label = () => {
    const words = THEME_WORDS[root.dataset.theme ?? ""];
    button.setAttribute("aria-label", words);
    button.title = words;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "") + 1) % THEMES.length];
    if (next) root.dataset.theme = next;
    else delete root.dataset.theme;
    label();
    try {
      if (next) localStorage.setItem("heartlane-theme", next);
      else localStorage.removeItem("heartlane-theme");
    } catch {
      // It holds until the page is left.
    }
  });
  label();
}

// How many lanes need a hand stands in the navigation and in the window's title, on every page.
let announced = 0;

function countHands() {
  let found = 0;
  // Of lanes that are not followed only some are known, and their number says nothing.
  if (store.live) for (const run of store.runs.values()) if (attention(run)) found += 1;
  if (found !== hands) {
    hands = found;
    showBadge("lanes", found, found === 1 ? "lane needs a hand" : "lanes need a hand");
    titleHands(found);
  }
  // Sparing: said when there are more than before, and not more than twice a minute.
  const now = Date.now();
  if (store.loading === "done" && found > (countHands.before ?? found) && now - announced > 30_000) {
    announced = now;
    setText(document.getElementById("announce"), `${count(found, "lane needs", "lanes need")} a hand`);
  }
  if (store.loading === "done") countHands.before = found;
}

/** A number beside a page's name in the navigation; none for nothing. */
function showBadge(page, number, words) {
  const link = nav.find((each) => each.dataset.page === page);
  if (!link) return;
  let badge = link.querySelector(".badge");
  if (!badge) link.append((badge = h("b", { class: "badge" })));
  badge.hidden = number === 0;
  put(badge, number > 99 ? "99+" : String(number), h("span", { class: "sr" }, ` ${words}`));
}

function second() {
  if (!document.hidden) {
    tick();
    shown?.page?.tick?.();
    onFrame(countHands);
  }
}

document.getElementById("banner").after(h("p", { id: "announce", class: "sr", role: "status", "aria-live": "polite" }));
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name !== "AbortError") toast(event.reason?.message ?? "Something went wrong in the board.", { tone: "bad" });
});
startTheme();
startLeave();
startKeys();
store.subscribe(countHands);
news.subscribe(() => news.open && showBadge("notices", news.open.length, news.open.length === 1 ? "open notice" : "open notices"));
store.onConnection(showConnection);
start(show);
show();
fillProjects();
setInterval(second, 1000);
