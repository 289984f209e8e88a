"use strict";
// The set-up code travels in the fragment: browsers do not send it, so it stands in no log.
const token = new URLSearchParams(location.hash.slice(1)).get("k") || "";
const form = document.getElementById("setup");
const message = document.getElementById("message");
history.replaceState(null, "", location.pathname);
if (!token) {
  form.hidden = true;
  message.textContent = "This page needs the set-up link that the relay printed at its start. For a new one run: ferry-relay setup-url";
}
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const field = (name) => form.elements.namedItem(name).value;
  const body = { token, email: field("email"), password: field("password") };
  if (field("name")) body.name = field("name");
  button.disabled = true;
  message.textContent = "";
  try {
    const answer = await fetch("/api/v1/setup", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const result = await answer.json();
    if (answer.ok) {
      form.hidden = true;
      message.textContent = "Done. " + result.email + " is the administrator of this relay. Link a device with: ferry login --relay " + location.origin;
      return;
    }
    message.textContent = result.detail;
  } catch (error) {
    message.textContent = "The relay does not answer. Try again.";
  }
  button.disabled = false;
});
