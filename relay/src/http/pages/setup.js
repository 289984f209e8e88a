"use strict";
// The set-up code travels in the fragment: browsers do not send it, so it stands in no log.
const token = new URLSearchParams(location.hash.slice(1)).get("k") || "";
const form = document.getElementById("setup");
const message = document.getElementById("message");
history.replaceState(null, "", location.pathname);
if (!token) {
  form.hidden = document.getElementById("intro").hidden = true;
  message.textContent = form.dataset.noToken;
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
      form.hidden = document.getElementById("intro").hidden = true;
      document.getElementById("open").hidden = false;
      message.textContent = form.dataset.done.replace("{email}", () => result.email).replace("{address}", () => location.origin);
      return;
    }
    message.textContent = result.detail;
  } catch (error) {
    message.textContent = form.dataset.unreachable;
  }
  button.disabled = false;
});
