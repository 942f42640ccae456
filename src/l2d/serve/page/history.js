/** The history as a list whose lines move and go. */

import { byId, element, say, titled } from "./dom.js";
import { counted } from "./figures.js";
import { change, listen, move, remove, state } from "./store.js";

export function startHistory() {
  byId("clear").addEventListener("click", () => {
    change({ history: [], user: "" });
    byId("query").focus();
    say("history cleared");
  });
  byId("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const user = byId("user").value.trim();
    if (user) change({ user });
  });
  listen((parts) => {
    if (parts.includes("history") || parts.includes("user")) show();
  });
  show();
}

function show() {
  const lines = state.user ? [ofUser(state.user)] : state.history.map(line);
  byId("history").replaceChildren(...lines);
  byId("history").hidden = !lines.length;
  byId("history-empty").hidden = lines.length > 0;
  byId("history-tools").hidden = !lines.length;
}

function ofUser(user) {
  const back = button("×", "Back to the history put together here", () => change({ user: "" }));
  return element(
    "li",
    { class: "kept" },
    element("span", { class: "title" }, "what the server knows of user ", titled(user, "strong")),
    element("span", { class: "acts" }, back),
  );
}

function line(item, place) {
  const last = place === state.history.length - 1;
  const acts = [
    button("↑", `Move ${item.title} up`, () => moved(place, -1, "up"), { disabled: place === 0 }),
    button("↓", `Move ${item.title} down`, () => moved(place, 1, "down"), { disabled: last }),
    button("×", `Remove ${item.title}`, () => removed(place)),
  ];
  return element(
    "li",
    { on: { keydown: (event) => pressed(event, place) } },
    titled(item.title, "span", { class: "title" }),
    element("span", { class: "acts" }, ...acts),
  );
}

const button = (sign, label, click, more = {}) =>
  element("button", { type: "button", class: "sign", "aria-label": label, title: label, on: { click }, ...more }, sign);

function pressed(event, place) {
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (by && event.altKey) moved(place, by, by < 0 ? "up" : "down");
  else if (event.key === "Delete" || event.key === "Backspace") removed(place);
  else return;
  event.preventDefault();
}

function moved(place, by, word) {
  const { title } = state.history[place];
  if (!move(place, by)) return;
  focusOn(place + by, by < 0 ? 0 : 1);
  say(`${title} moved ${word}, now ${place + by + 1} of ${state.history.length}`);
}

function removed(place) {
  const { title } = state.history[place];
  remove(place);
  if (state.history.length) focusOn(Math.min(place, state.history.length - 1), 2);
  else byId("query").focus();
  say(`${title} removed, ${counted(state.history.length, "item")} left`);
}

/** Puts the focus on a button of a line, or on the next that can be pressed. */
function focusOn(place, which) {
  const buttons = [...byId("history").children[place].querySelectorAll("button")];
  (buttons[which].disabled ? buttons.find((one) => !one.disabled) : buttons[which]).focus();
}
