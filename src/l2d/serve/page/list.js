/** The recommended items: a line each, with its reasons to unfold. Lines stay the same elements as the list changes. */

import { MOST_EXPLAINED, reason } from "./asking.js";
import { byId, element, fill, hint } from "./dom.js";
import { inFull, inShort } from "./explanation.js";
import { score } from "./figures.js";
import { recordForm } from "./record.js";
import { add } from "./store.js";

const lines = new Map();
let answer = null;
let makes = 0;

const list = () => byId("recommended");

/** Shows an answer. With `former`, the ids before a write, it says what moved. */
export function showList(data, former = null) {
  answer = data;
  const focused = document.activeElement;
  const kept = new Set(data.items.map(({ item_id }) => item_id));
  for (const [id, line] of lines) if (!kept.has(id)) drop(id, line);
  const nodes = data.items.map((item, place) => {
    const line = lines.get(item.item_id) ?? made(item);
    line.score.textContent = score(item.score);
    mark(line, former ? wayOf(former.indexOf(item.item_id), place) : "");
    line.why = null;
    if (data.cold || place >= MOST_EXPLAINED) fill(line.short);
    else line.short.hidden = false; // its place is kept, so that nothing jumps when the reasons come
    if (!line.full.hidden && (data.cold || place >= MOST_EXPLAINED)) unfold(line);
    return line.node;
  });
  const shown = [...list().children];
  const same = shown.length === nodes.length && nodes.every((node, place) => node === shown[place]);
  if (!same) list().replaceChildren(...nodes);
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
  else if (focused && !focused.isConnected) list().focus({ preventScroll: true });
  list().setAttribute("aria-busy", "false");
}

/** Lines without content while the first answer is awaited. */
export function showWaiting(count) {
  if (list().children.length) return;
  const blank = () => element("li", { class: "blank", "aria-hidden": "true" }, element("span"), element("span"));
  list().replaceChildren(...Array.from({ length: count }, blank));
}

export function showNothing() {
  for (const [id, line] of lines) drop(id, line);
  list().replaceChildren();
  list().setAttribute("aria-busy", "false");
}

/** Adds the reasons to the lines that are there. */
export function showReasons(items) {
  for (const { item_id, explanation } of items) {
    const line = lines.get(item_id);
    if (!line) continue;
    line.why = explanation ?? null;
    fill(line.short, ...inShort(line.why));
    line.short.classList.remove("old");
    if (!line.full.hidden) unfold(line);
  }
}

/** Takes back reasons that belong to another answer. */
export function fadeReasons() {
  for (const line of lines.values()) line.short.classList.add("old");
}

function drop(id, line) {
  line.asking?.abort();
  lines.delete(id);
}

/** How an item moved between two lists. */
function wayOf(before, place) {
  if (before < 0) return "new";
  if (before === place) return "";
  return before > place ? `▲ ${before - place}` : `▼ ${place - before}`;
}

function mark(line, moved) {
  const spoken = moved.replace("▲", "up by").replace("▼", "down by");
  line.moved.textContent = moved;
  line.moved.dataset.way = moved.startsWith("▼") ? "down" : "up";
  if (moved) line.moved.setAttribute("aria-label", spoken);
  else line.moved.removeAttribute("aria-label");
}

function made(item) {
  makes += 1;
  const id = `why-${makes}`;
  const line = { id: item.item_id, item, why: null, asking: null };
  line.short = element("p", { class: "short", hidden: true });
  line.full = element("div", { class: "full", id, hidden: true });
  line.moved = element("span", { class: "moved" });
  line.score = element("span", { class: "score", title: "score" });
  const folds = { "aria-expanded": "false", "aria-controls": id, on: { click: () => toggle(line) } };
  line.button = element("button", { type: "button", class: "title", dir: "auto", ...folds }, item.title);
  const label = `Add ${item.title} to the history`;
  const adds = { "aria-label": label, title: label, on: { click: () => add(item) } };
  const plus = element("button", { type: "button", class: "sign", ...adds }, "+");
  const what = element("div", { class: "what" }, line.button, line.short);
  line.node = element("li", { class: "line" }, what, line.moved, line.score, plus, line.full);
  line.node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || line.full.hidden) return;
    toggle(line);
    line.button.focus();
  });
  lines.set(item.item_id, line);
  return line;
}

function toggle(line) {
  const open = line.full.hidden;
  line.button.setAttribute("aria-expanded", String(open));
  if (open) unfold(line);
  else line.full.hidden = true;
}

async function unfold(line) {
  line.reasons ??= element("div", { class: "reasons", "aria-live": "polite" });
  if (!line.full.children.length) line.full.append(line.reasons, recordForm(line.item));
  line.full.hidden = false;
  const tell = (...nodes) => line.reasons.replaceChildren(...nodes);
  if (answer.cold) return tell(hint("Without a history there is nothing to explain: it is popular."));
  if (!line.why) {
    line.asking?.abort();
    line.asking = new AbortController();
    const { signal } = line.asking;
    const asked = answer;
    if (!line.reasons.children.length) tell(hint("asking why …"));
    try {
      const why = await reason(line.id, signal);
      if (signal.aborted || asked !== answer) return;
      line.why = why;
    } catch (trouble) {
      if (!signal.aborted) tell(hint(trouble.message));
      return;
    }
  }
  tell(...(line.why ? inFull(line.why, answer.decoder) : [hint("There is no reason to show.")]));
}
