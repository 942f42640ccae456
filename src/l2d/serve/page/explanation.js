/** Why an item stands in the list, as small bars with words. */

import { element, hint, titled } from "./dom.js";
import { count, counted, percent } from "./figures.js";

const NAMED = 2;
const MOST = 8;

/**
 * One form for both kinds of answer: with the audit scope, shares by entry; without, rounded shares of many people,
 * which are null where they could tell of one of them.
 *
 * @returns {{parts: object[], common: object[], told: string}} what the score is made of; what stood in the histories
 *   of those who took the item; a sentence.
 */
function read(why) {
  return "people" in why ? ofPeople(why) : ofEntries(why);
}

function ofPeople({ cold, people, thought, counts, history, evidence }) {
  const led = history.map(({ title, share }) => ({ kind: "counts", title, share }));
  const unnamed = counts && !led.length ? [{ kind: "counts", title: null, share: counts }] : [];
  const many = people ? `${count(people)} or more people` : "fewer than three people";
  return {
    parts: [...(thought === null ? [] : [{ kind: "thought", title: null, share: thought }]), ...led, ...unnamed],
    whole: { thought, counts },
    common: evidence.map((one) => ({ ...one, note: `${count(one.people)} or more people` })),
    told: cold ? `taken by ${many}` : `taken by ${many} whose history is like this one; shares are rounded`,
  };
}

function ofEntries({ evidence, carriers, share, entries, neighbours }) {
  const thought = evidence.find(({ kind }) => kind === "thought")?.share ?? 0;
  const voters = `${count(entries)} of ${counted(neighbours, "neighbour")}`;
  return {
    parts: evidence.map((one) => ({ ...one, title: one.kind === "thought" ? null : one.title })),
    whole: { thought, counts: 1 - thought },
    common: carriers.map((one) => ({ ...one, note: counted(one.entries, "entry", "entries") })),
    told: entries ? `${percent(share)} of the vote, by ${voters}` : "no neighbour votes for it",
  };
}

/** A bar of shares behind each other. The words beside it say the same. */
export function bar(parts) {
  const pieces = parts.map(({ kind, share }) => {
    const piece = element("span", { class: `piece ${kind}` });
    piece.style.inlineSize = `${100 * Math.max(0, share)}%`;
    return piece;
  });
  return element("span", { class: "bar", "aria-hidden": "true" }, ...pieces);
}

/** One line: what thought and counts gave, or who took it where that is not known. */
export function inShort(why) {
  if (!why) return [];
  const { parts, whole, told: sentence } = read(why);
  if (!parts.length) return [words(sentence)];
  const counts = parts.filter(({ kind }) => kind === "counts");
  const said = counts.slice(0, NAMED).map((part) => [titled(part.title ?? "counts", "bdi"), share(part)]);
  if (whole.thought) said.unshift([`thought ${percent(whole.thought)}`]);
  if (counts.length > NAMED) said.push([`${counts.length - NAMED} more`]);
  const told = words(...said.flatMap((one, place) => (place ? [" · ", ...one] : one)));
  if (whole.thought === null) return [told];
  return [bar(Object.entries(whole).map(([kind, share]) => ({ kind, share }))), told];
}

const words = (...told) => element("span", { class: "words" }, ...told);

const share = (part) => (part.share === null ? "" : ` ${percent(part.share)}`);

/** All of it. */
export function inFull(why, decoder) {
  const { parts, common, told } = read(why);
  const rests = decoder === "auto" ? "What it rests on" : "What it rests on, as auto weighs it";
  const made = [];
  if (parts.length) {
    const lines = parts.map((part) => line(part, part.title ?? called[part.kind], share(part)));
    made.push(element("h4", {}, rests), element("ul", { class: "shares" }, ...lines));
  }
  if (common.length) {
    const figure = (one) => [one.note, share(one).trim()].filter(Boolean).join(", ");
    const lines = common.slice(0, MOST).map((one) => line({ ...one, kind: "thought" }, one.title, figure(one)));
    made.push(element("h4", {}, "What stood in the histories of those who took it"));
    made.push(element("ul", { class: "shares" }, ...lines));
  }
  return [...made, hint(`${told[0].toUpperCase()}${told.slice(1)}.`)];
}

const called = { thought: "the backbone’s thought", counts: "counts" };

function line(part, title, figure) {
  const name = titled(title, "span", { class: "title" });
  const shown = part.share === null ? null : bar([part]);
  return element("li", {}, name, element("span", { class: "figure" }, figure), shown);
}
