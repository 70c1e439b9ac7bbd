// Asks a person for the service's key. Where it is kept is api.js's business.

import { byId } from "./dom.js";

/** The key that was typed, or null; `rejected` says why the last one was not taken. */
export function promptForKey(rejected) {
  const dialog = byId("key-dialog");
  const message = byId("key-message");
  if (rejected) message.textContent = `${rejected} Try another one.`;
  byId("key").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    const onClose = () => resolve(dialog.returnValue === "use" ? byId("key").value.trim() : null);
    dialog.addEventListener("close", onClose, { once: true });
  });
}
