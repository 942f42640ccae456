/** What is said where something cannot be answered, and what can be done about it. */

import { byId, element, fill } from "./dom.js";
import { enterKey } from "./key.js";

/** A trouble as elements: what, got, expected, cure; and a way out where there is one. */
export function told(trouble, again) {
  const { what, more } = inWords(trouble);
  const made = [element("p", {}, element("strong", {}, what))];
  if (more) made.push(element("p", {}, more));
  if (trouble.status === 401 || trouble.status === 403) {
    const give = async () => {
      if (await enterKey()) again();
    };
    made.push(element("button", { type: "button", on: { click: give } }, "Enter a key"));
  } else if (again) made.push(element("button", { type: "button", on: { click: again } }, "Try again"));
  return made;
}

/** A trouble in one line. */
export function inWordsOf(trouble) {
  const { what, more } = inWords(trouble);
  return more ? `${what} ${more}` : what;
}

function inWords(trouble) {
  if (trouble.offline) return { what: "The server cannot be reached.", more: "" };
  const facts = [trouble.got && `got ${trouble.got}`, trouble.expected && `expected ${trouble.expected}`, trouble.cure];
  if (trouble.status >= 500 && trouble.request) facts.push(`request ${trouble.request}`);
  const what = trouble.message.charAt(0).toUpperCase() + trouble.message.slice(1);
  return { what: /[.!?]$/.test(what) ? what : `${what}.`, more: facts.filter(Boolean).join("; ") };
}

/** What is said while waiting: `Busy, again in 3 s`. */
export function waiting(trouble, seconds) {
  return trouble.busy ? `Busy, again in ${seconds} s.` : `The server cannot be reached; again in ${seconds} s.`;
}

const notice = () => byId("notice");

export function showNotice(kind, ...children) {
  notice().dataset.kind = kind;
  fill(notice(), ...children);
}

export const hideNotice = () => fill(notice());
