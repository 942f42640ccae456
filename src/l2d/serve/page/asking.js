/** Asks for recommendations whenever something changes: the last question wins, the others are called off. */

import { ask } from "./api.js";
import { debounced } from "./dom.js";
import { pause, untilAnswered } from "./patience.js";
import { request, state } from "./store.js";

const WAIT = 120;
/** Milliseconds until the reasons are asked for, which cost more than the list. */
const REASONS_AFTER = 200;
/** The API explains no more items at once. */
export const MOST_EXPLAINED = 20;
const EXPLAINING_MS = 20_000;

let running = null;

/**
 * @param {object} hear what is called as it happens: `start()`, `answer(data, ms)`, `reasons(items)`,
 *   `wait(trouble, seconds)`, `fail(trouble)`. Reasons that cannot be had are left out.
 * @returns {() => void} asks, soon; what was asked before is called off at once.
 */
export function asker(hear) {
  const soon = debounced(() => asked(hear), WAIT);
  return () => {
    running?.abort();
    hear.start();
    soon();
  };
}

async function asked(hear) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const body = request();
  const answered = (more, wait) =>
    untilAnswered(() => ask("POST", "v1/recommend", { body: { ...body, ...more }, signal }), signal, wait);
  try {
    const { data, ms } = await answered({}, hear.wait);
    if (signal.aborted) return;
    hear.answer(data, ms);
    if (data.cold || !data.items.length) return;
  } catch (trouble) {
    if (!signal.aborted) hear.fail(trouble);
    return;
  }
  try {
    await pause(REASONS_AFTER, signal);
    const explained = { k: Math.min(state.k, MOST_EXPLAINED), explain: true, deadline_ms: EXPLAINING_MS };
    const { data } = await answered(explained, () => {});
    if (!signal.aborted) hear.reasons(data.items);
  } catch {
    // The list stands without them.
  }
}

/** Why one item is recommended. */
export async function reason(id, signal) {
  const body = request({ k: 1, allow: [`id:${id}`], explain: true, deadline_ms: EXPLAINING_MS });
  const { data } = await ask("POST", "v1/recommend", { body, signal });
  return data.items[0]?.explanation ?? null;
}
