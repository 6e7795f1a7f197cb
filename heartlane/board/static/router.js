// Real addresses: every page and every filter can be bookmarked, shared, and gone back to.

const nav = [...document.querySelectorAll("nav.main-nav a")];
const routes = [
  { name: "lane", pattern: /^\/lanes\/([^/]+)$/ },
  { name: "plan", pattern: /^\/plans\/([^/]+)$/ },
  ...nav.map((link) => ({ name: link.dataset.page, pattern: new RegExp(`^${link.dataset.path}$`) })),
];

/** The page of an address: its module's name and what its path names; null for one that isn't the board's. */
export function match(path) {
  for (const { name, pattern } of routes) {
    const found = pattern.exec(path);
    if (found) return { name, id: found[1] ?? null };
  }
  return null;
}

/** What the address's query says. */
export function query() {
  return new URLSearchParams(location.search);
}

/** The address with some parameters set, others (null or "") taken away. */
export function withParameters(changes, path = location.pathname, search = location.search) {
  const parameters = new URLSearchParams(search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") parameters.delete(name);
    else parameters.set(name, value);
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

let onChange = () => {};

/** Go to an address of the board. `replace`: without a step to go back to. */
export function go(address, { replace = false } = {}) {
  const before = location.pathname + location.search;
  if (address === before) return;
  if (replace) history.replaceState(history.state, "", address);
  else {
    history.replaceState({ ...history.state, scroll: scrollY }, "");
    history.pushState({}, "", address);
  }
  onChange({ samePage: address.split("?")[0] === before.split("?")[0], back: false });
}

/** Start: `listener({samePage, back})` after every change of address; clicks on links of the board stay on the page. */
export function start(listener) {
  onChange = listener;
  history.scrollRestoration = "manual";
  let path = location.pathname;
  const told = (change) => {
    path = location.pathname;
    listener(change);
  };
  onChange = told;
  addEventListener("popstate", () => told({ samePage: location.pathname === path, back: true }));
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
      return;
    const link = event.target.closest?.("a[href]");
    if (!link || link.target || link.origin !== location.origin || link.hash || !match(link.pathname)) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
