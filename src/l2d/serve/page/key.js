/** The API key: asked for in a dialog when the server wants one, kept for this tab alone. */

import { byId } from "./dom.js";

const PLACE = "l2d key";

let asking = null;
let declined = false;

export const currentKey = () => sessionStorage.getItem(PLACE) ?? "";

/** Asks for a key. Resolves to whether one was given; after a refusal only `enterKey` asks again. */
export function keyFor(reason) {
  if (declined) return Promise.resolve(false);
  asking ??= opened(reason).finally(() => {
    asking = null;
  });
  return asking;
}

/** Asks for a key because the user wants to give one. */
export function enterKey(reason = "Requests are sent with this key.") {
  declined = false;
  return keyFor(reason);
}

function opened(reason) {
  const dialog = byId("key-dialog");
  byId("key-heading").textContent = currentKey() ? "The key" : "A key is needed";
  byId("key-reason").textContent = reason ?? "This server answers only with a key.";
  byId("key").value = "";
  byId("key-forget").hidden = !currentKey();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(settled(dialog.returnValue)), { once: true });
  });
}

function settled(choice) {
  if (choice === "forget") sessionStorage.removeItem(PLACE);
  if (choice === "use") sessionStorage.setItem(PLACE, byId("key").value.trim());
  declined = !choice;
  return Boolean(choice);
}

export function startKey(changed) {
  const dialog = byId("key-dialog");
  byId("key-open").addEventListener("click", async () => {
    if (await enterKey()) changed();
  });
  byId("key-cancel").addEventListener("click", () => dialog.close(""));
  byId("key-forget").addEventListener("click", () => dialog.close("forget"));
}
