// Asks the user for an API key. api.js stores the key.

import { byId } from "./dom.js";

/** Returns the key that was typed, or null. `rejected` is the reason why the last key was not accepted. */
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
