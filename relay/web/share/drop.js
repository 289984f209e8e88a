// The page of a link for uploads: sends files one after another, each in pieces. Nobody is logged in here; the address is the right to do it.

import { Sender } from "./sender.js";

const form = document.getElementById("drop");
const input = document.getElementById("files");
const sent = document.getElementById("sent");
const button = form.querySelector("button");
const sender = new Sender(`/s/${form.dataset.token}/upload/`, { words: form.dataset });

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  let failed = false;
  for (const file of [...input.files]) {
    // Its line above says so already.
    if (sender.has(file)) continue;
    const line = document.createElement("li");
    sent.append(line);
    const say = (what) => {
      line.textContent = `${file.name}: ${what}`;
    };
    try {
      await sender.send(file, say);
    } catch (error) {
      failed = true;
      say(error.message);
      line.className = "alert";
    }
  }
  if (!failed) {
    form.reset();
    sender.forget();
  }
  button.disabled = false;
});

// What is dropped anywhere on the page is chosen, as if it had been dropped onto the field: the browser would open it in place of the page.
const isFiles = (event) => [...event.dataTransfer.types].includes("Files");
addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!isFiles(event)) return;
  event.preventDefault();
  if (!button.disabled && event.dataTransfer.files.length) input.files = event.dataTransfer.files;
});
