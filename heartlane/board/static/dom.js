// Elements made by hand. Everything becomes text or attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: attributes (`class`, `data-…`, `aria-…`), properties of the DOM by `.name`, listeners by `onclick` and
 * the like, and children. Strings become text; null, undefined and false are left out.
 */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for a drawing. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key.startsWith(".")) element[key.slice(1)] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...kept(children));
  return element;
}

function kept(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Put these children in place of what an element holds. */
export function put(element, ...children) {
  element.replaceChildren(...kept(children));
  return element;
}

/** Set an element's text, touching the page only where it changes. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute, or take it away with null; touching the page only where it changes. */
export function setAttribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Text that is read out, and not shown. */
export function spoken(text) {
  return h("span", { class: "sr" }, text);
}

/** An icon of one path, 20 by 20. */
export function icon(path) {
  return s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true", class: "icon" }, s("path", { d: path }));
}
