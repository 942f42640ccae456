/** Writes an item into the memory as somebody's interaction. */

import { ask } from "./api.js";
import { element } from "./dom.js";
import { counted } from "./figures.js";
import { inWordsOf, waiting } from "./notices.js";
import { untilAnswered } from "./patience.js";
import { state } from "./store.js";

let lastUser = "";
/** Users whose history this page has written already. */
const begun = new Set();
let written = () => {};

/** `done` is called after each write. */
export function onWrite(done) {
  written = done;
}

let made = 0;

export function recordForm(item) {
  made += 1;
  const id = `record-${made}`;
  const plain = { autocomplete: "off", spellcheck: "false", maxlength: "256" };
  const user = element("input", { id, required: true, placeholder: "user id", ...plain });
  const before = element("input", { type: "checkbox", checked: true });
  const outcome = element("p", { class: "hint", role: "status" });
  const button = element("button", {}, "Write");
  user.value = state.user || lastUser;
  const settle = () => {
    before.checked = !state.user && state.history.length > 0 && !begun.has(user.value.trim());
  };
  settle();
  user.addEventListener("input", settle);
  const form = element(
    "form",
    { class: "record" },
    element("label", { for: id }, "Write it into the memory as chosen by"),
    element("div", { class: "joined" }, user, button),
    element("label", { class: "tick" }, before, " the history above first, for a user who has none yet"),
    outcome,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    lastUser = user.value.trim();
    try {
      const rows = interactions(lastUser, item, before.checked);
      const body = { interactions: rows };
      const stop = new AbortController().signal;
      const { data } = await untilAnswered(() => ask("POST", "v1/interactions", { body }), stop, (trouble, left) => {
        outcome.textContent = waiting(trouble, left);
      });
      begun.add(lastUser);
      before.checked = false;
      const did = `${counted(data.added, "interaction")} written, ${counted(data.entries, "new entry", "new entries")}`;
      outcome.textContent = `${did}; memory ${data.memory_version}.`;
      written();
    } catch (trouble) {
      outcome.textContent = inWordsOf(trouble);
    } finally {
      button.disabled = false;
    }
  });
  return form;
}

/** The item, and the history before it if wanted: with times, so that repeating the request writes nothing twice. */
function interactions(user, item, withHistory) {
  const ids = [...(withHistory && !state.user ? state.history.map(({ id }) => id) : []), item.item_id];
  const now = Math.floor(Date.now() / 1000);
  return ids.map((item_id, place) => ({ user_id: user, item_id, timestamp: now - (ids.length - 1 - place) }));
}
