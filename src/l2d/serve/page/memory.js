/** A live view of the memory, which rests while nobody looks. */

import { ask } from "./api.js";
import { byId, element, fill } from "./dom.js";
import { ago, count } from "./figures.js";
import { pause } from "./patience.js";

const EVERY = 2000;
const AFTER_TROUBLE = 8000;

let wake = null;
const shown = {};

/** Looks again at once. */
export const lookNow = () => wake?.abort();

/**
 * @param {(data: object) => object} chosen which of the runs to show.
 * @param {(trouble: Error | null) => void} heard whether the server answered.
 */
export async function watchMemory(chosen, heard) {
  document.addEventListener("visibilitychange", lookNow);
  for (;;) {
    let wait = EVERY;
    if (document.hidden) fill(byId("memory-state"), "paused");
    else {
      try {
        const { data } = await ask("GET", "v1/memory");
        const run = chosen(data);
        show(run, data.read_only);
        heard(null, run);
      } catch (trouble) {
        wait = AFTER_TROUBLE;
        fill(byId("memory-state"), trouble.busy ? "busy" : "no answer");
        heard(trouble);
      }
    }
    await rested(document.hidden ? 2 ** 30 : wait);
  }
}

async function rested(ms) {
  wake = new AbortController();
  await pause(ms, wake.signal, true).catch(() => {});
}

function show(run, readOnly) {
  fill(byId("memory-state"), readOnly ? "live, read only" : "live");
  byId("memory-numbers").replaceChildren(
    told("entries", count(run.entries)),
    told("items", count(run.items), `of ${count(run.catalog)}`),
    told("users", count(run.users)),
    told("version", run.memory_version, `${count(run.versions)} kept`),
    told("size", size(run.bytes)),
  );
  const writes = run.last_writes.slice(0, 5).map(write);
  const none = element("li", { class: "hint" }, "none since the server started");
  byId("memory-writes").replaceChildren(...(writes.length ? writes : [none]));
}

function told(name, figure, note) {
  const changed = shown[name] !== undefined && figure !== shown[name];
  shown[name] = figure;
  return element(
    "div",
    { class: changed ? "changed" : null },
    element("dt", {}, name),
    element("dd", { id: `memory-${name}` }, figure, note ? element("small", {}, ` ${note}`) : null),
  );
}

function size(bytes) {
  const mebibytes = bytes / 2 ** 20;
  if (mebibytes >= 1024) return `${(mebibytes / 1024).toFixed(1)} GiB`;
  return `${mebibytes.toFixed(mebibytes < 10 ? 1 : 0)} MiB`;
}

function write({ kind, count: many, seconds_ago, memory_version }) {
  return element(
    "li",
    {},
    element("span", {}, `${count(many)} ${kind}`),
    element("span", { class: "version" }, memory_version),
    element("span", { class: "when" }, ago(Date.now() / 1000 - seconds_ago)),
  );
}
