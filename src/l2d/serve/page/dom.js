/** Elements made and changed. Text always goes in as text: nothing here, or in any other file, parses HTML. */

export const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners (`on`), and children: elements, or text. */
export function element(tag, { on = {}, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  for (const [event, heard] of Object.entries(on)) made.addEventListener(event, heard);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A title from the catalogue, which may be of any length and run in any direction. */
export const titled = (title, tag = "span", attributes = {}) => element(tag, { dir: "auto", ...attributes }, title);

/** A quiet line of text. */
export const hint = (text) => element("p", { class: "hint" }, text);

/** Shows a node with these children, or hides it where there are none. */
export function fill(node, ...children) {
  const kept = children.filter((child) => ![null, undefined, false, ""].includes(child));
  node.replaceChildren(...kept);
  node.hidden = kept.length === 0;
}

let saying = 0;

/** Tells a screen reader, once the last thing said is no longer being changed. */
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    byId("said").textContent = text;
  }, 150);
}

/** Calls `done` once nothing more was asked for `wait` milliseconds. */
export function debounced(done, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => done(...given), wait);
  };
}
