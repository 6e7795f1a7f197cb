// Who is logged in, and the way out, on every page.

import { me } from "./api.js";
import { h } from "./dom.js";
import { visibleLine } from "./hostile.js";
import { ask, toast } from "./ui.js";

export const LEAVE_KEYS = "g q";

/** Log this browser out, once it is sure, and go to the login. Nothing leads back from there: leaving was wanted. */
export async function leave() {
  try {
    const { name, csrf_token: proof } = await me();
    const sure = await ask({
      title: "Log this browser out?",
      body: [h("p", {}, "You are logged in as ", h("b", { dir: "auto" }, visibleLine(name, 80)), ". This browser can do nothing more then; the token itself goes on to count.")],
      action: "Log out",
    });
    if (sure === null) return;
    // The login's own way out, which takes the cookie away as well; it answers by leading to the login.
    const answer = await fetch("/logout", { method: "POST", body: new URLSearchParams({ csrf_token: proof }), redirect: "manual" });
    if (answer.type !== "opaqueredirect" && answer.status !== 401) throw new Error("The server didn't log this browser out. Load the page anew, and try again.");
    location.assign("/login");
  } catch (error) {
    toast(error.message, { tone: "bad" });
  }
}

/** Have the button in the top bar do it, and say as whom. */
export function startLeave() {
  const button = document.getElementById("leave");
  button.addEventListener("click", leave);
  me().then(
    ({ name }) => (button.title = `Log out (${visibleLine(name, 80)})`),
    () => {}, // Whoever is nobody here is at the login in a moment.
  );
}
