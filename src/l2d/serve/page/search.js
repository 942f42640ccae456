/** The search box: a combobox over the catalogue. */

import { ask } from "./api.js";
import { byId, debounced, element, fill, say, titled } from "./dom.js";
import { counted } from "./figures.js";
import { waiting } from "./notices.js";
import { untilAnswered } from "./patience.js";
import { ofRun } from "./store.js";

const SHOWN = 12;
const WAIT = 80;

/** Starts the box; `chosen` is called with an item. */
export function startSearch(chosen) {
  const input = byId("query");
  const list = byId("found");
  let items = [];
  let active = -1;
  let foundFor = "";
  let running = null;

  const open = () => !list.hidden;

  function mark(place) {
    active = place;
    [...list.children].forEach((option, index) => option.setAttribute("aria-selected", String(index === place)));
    const option = items.length ? list.children[place] : null;
    if (option) {
      input.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  }

  function close() {
    running?.abort();
    items = [];
    fill(list);
    input.setAttribute("aria-expanded", "false");
    mark(-1);
  }

  function show(children) {
    fill(list, ...children);
    input.setAttribute("aria-expanded", String(children.length > 0));
  }

  const message = (text) => element("li", { class: "none", role: "option", "aria-disabled": "true" }, text);

  async function look() {
    const query = input.value.trim();
    running?.abort();
    if (!query) return close();
    running = new AbortController();
    const { signal } = running;
    const path = `v1/items?${new URLSearchParams({ query, k: SHOWN, ...ofRun() })}`;
    try {
      const { data } = await untilAnswered(
        () => ask("GET", path, { signal }),
        signal,
        (trouble, left) => show([message(waiting(trouble, left))]),
      );
      if (signal.aborted) return;
      items = data.items;
      foundFor = query;
      const options = items.map((item, place) => option(item, place, query));
      show(options.length ? options : [message(`No title is like “${query}”.`)]);
      mark(items.length ? 0 : -1);
      say(items.length ? `${counted(items.length, "item")} found` : "nothing found");
    } catch (trouble) {
      if (signal.aborted) return;
      items = [];
      show([message(trouble.message)]);
    }
  }

  function option(item, place, query) {
    const pick = (event) => {
      event.preventDefault();
      take(place);
    };
    const about = [String(item.item_id)];
    about.push(item.entries ? counted(item.entries, "entry", "entries") : "not in the memory");
    const on = { mousedown: (event) => event.preventDefault(), click: pick };
    return element(
      "li",
      { id: `found-${place}`, role: "option", "aria-selected": "false", on },
      titled(marked(item.title, query), "span", { class: "title" }),
      element("span", { class: "about" }, about.join(" · ")),
    );
  }

  function take(place) {
    const item = items[place];
    if (!item) return;
    input.value = "";
    close();
    chosen(item);
  }

  input.addEventListener("input", debounced(look, WAIT));
  input.addEventListener("blur", () => close());
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !open()) look();
    else if (step && items.length) mark((active + step + items.length) % items.length);
    else if (event.key === "Enter" && items.length && input.value.trim() === foundFor) take(active);
    else if (event.key === "Enter" && input.value.trim()) look();
    else if (event.key === "Escape" && open()) close();
    else if (event.key === "Escape") input.value = "";
    else return;
    event.preventDefault();
  });
}

/** A title with the part that was searched for marked. */
function marked(title, query) {
  const at = title.toLowerCase().indexOf(query.toLowerCase());
  const end = at + query.length;
  const whole = document.createDocumentFragment();
  if (at < 0) whole.append(title);
  else whole.append(title.slice(0, at), element("mark", {}, title.slice(at, end)), title.slice(end));
  return whole;
}
