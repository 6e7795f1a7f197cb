// A one-time link has its secret behind the "#" of the address: out of there into the form, and out of the history.

const secret = new URLSearchParams(location.hash.slice(1)).get("link");

if (secret) {
  history.replaceState(null, "", location.pathname + location.search);
  const field = document.getElementById("token");
  field.value = secret;
  for (const part of document.querySelectorAll(".by-token")) part.hidden = true;
  for (const part of document.querySelectorAll(".by-link")) part.hidden = false;
  document.getElementById("problem")?.remove();
  document.querySelector("#login button").focus();
}
