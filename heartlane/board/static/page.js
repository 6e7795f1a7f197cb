// What a page says of itself to the frame.

let shownTitle = "Lanes";
let hands = 0;

function nameWindow() {
  document.title = `${hands ? `(${hands}) ` : ""}${shownTitle} · Heartlane`;
}

/** The window's title. */
export function title(text) {
  shownTitle = text;
  nameWindow();
}

/** How many lanes need a hand: stands before the title. */
export function titleHands(number) {
  hands = number;
  nameWindow();
}
