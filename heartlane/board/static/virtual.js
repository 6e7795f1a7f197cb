// A long list of which only what is seen is in the page. The window scrolls; every kind of row has one fixed height.

import { setAttribute } from "./dom.js";

const BEYOND = 600; // pixels drawn above and below what is seen

/**
 * A virtual list in `container`.
 *
 * make(item)              the element of an item
 * update(element, item)   bring an element up to date
 * heights()               {kind: pixels}, read again when the window's size changes
 */
export class VirtualList {
  constructor(container, { make, update, heights }) {
    this.container = container;
    this.make = make;
    this.update = update;
    this.readHeights = heights;
    this.items = [];
    this.offsets = [0];
    this.places = new Map();
    this.shown = new Map();
    this.onScroll = () => this.soon();
    this.onResize = () => {
      this.measure();
      this.draw();
    };
    addEventListener("scroll", this.onScroll, { passive: true });
    addEventListener("resize", this.onResize);
    this.measure();
  }

  destroy() {
    removeEventListener("scroll", this.onScroll);
    removeEventListener("resize", this.onResize);
  }

  measure() {
    this.heights = this.readHeights();
    this.lay();
  }

  /** Show these items: [{key, kind, …}], each key once. */
  set(items) {
    this.items = items;
    this.lay();
    this.draw();
  }

  lay() {
    let offset = 0;
    this.offsets = [0];
    this.places.clear();
    for (const [index, item] of this.items.entries()) {
      this.places.set(item.key, index);
      offset += this.heights[item.kind];
      this.offsets.push(offset);
    }
    this.container.style.height = `${offset}px`;
  }

  soon() {
    if (this.framed) return;
    this.framed = true;
    requestAnimationFrame(() => {
      this.framed = false;
      this.draw();
    });
  }

  /** The index of the item at a distance from the top. */
  at(distance) {
    let low = 0;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.offsets[middle + 1] <= distance) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  draw() {
    const top = this.container.getBoundingClientRect().top;
    const first = this.at(Math.max(0, -top - BEYOND));
    const last = Math.min(this.items.length, this.at(Math.max(0, innerHeight - top + BEYOND)) + 1);
    const wanted = new Map();
    for (let index = first; index < last; index += 1) wanted.set(this.items[index].key, index);
    // Who stands on a row keeps it, wherever it has gone.
    const focused = this.container.contains(document.activeElement) ? document.activeElement.closest("[data-key]") : null;
    const kept = focused && this.places.get(focused.dataset.key);
    if (kept !== null && kept !== undefined) wanted.set(focused.dataset.key, kept);
    for (const [key, element] of this.shown) {
      if (!wanted.has(key)) {
        element.remove();
        this.shown.delete(key);
      }
    }
    let before = null;
    for (const [key, index] of [...wanted].sort((one, other) => one[1] - other[1])) {
      const item = this.items[index];
      let element = this.shown.get(key);
      if (!element) {
        element = this.make(item);
        element.dataset.key = key;
        this.shown.set(key, element);
      }
      this.update(element, item);
      const offset = `${this.offsets[index]}px`;
      if (element.style.top !== offset) element.style.top = offset;
      setAttribute(element, "aria-rowindex", index + 2);
      // The order in the page is the order that is read out.
      const next = before ? before.nextSibling : this.container.firstChild;
      if (next !== element) {
        const active = document.activeElement;
        this.container.insertBefore(element, next);
        if (element.contains(active) && document.activeElement !== active) active.focus({ preventScroll: true });
      }
      before = element;
    }
  }

  /** Bring what is seen of these keys (null: all) up to date, without looking at the rest. */
  refresh(keys) {
    for (const [key, element] of this.shown) {
      if (keys === null || keys.has(key)) this.update(element, this.items[this.places.get(key)]);
    }
  }

  /** Scroll an item into view and put the focus on it. */
  focus(index) {
    const item = this.items[index];
    if (!item) return;
    const top = this.container.getBoundingClientRect().top + this.offsets[index];
    const bottom = top + this.heights[item.kind];
    const head = 120;
    if (top < head) scrollBy(0, top - head);
    else if (bottom > innerHeight - 80) scrollBy(0, bottom - innerHeight + 80);
    this.draw();
    this.shown.get(item.key)?.querySelector("a, button")?.focus({ preventScroll: true });
  }

  /** The index of the item that has the focus; -1 without. */
  focused() {
    const element = this.container.contains(document.activeElement) ? document.activeElement.closest("[data-key]") : null;
    return element ? (this.places.get(element.dataset.key) ?? -1) : -1;
  }
}
