// Images from the user: chosen, dropped anywhere on the page, or pasted. Independent of the models.

import { byId } from "./dom.js";

/** Calls `onFiles` with an array of files. Files that are not images are included, because the service reports best what is wrong. */
export function onImageFiles(onFiles) {
  const input = byId("files");
  input.addEventListener("change", () => {
    if (input.files.length) onFiles([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    onFiles(files);
  });
  listenForDrops(onFiles);
}

function listenForDrops(onFiles) {
  const { body } = document;
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    body.classList.remove("dragging");
    const files = [...event.dataTransfer.files];
    if (files.length) onFiles(files);
  });
}
