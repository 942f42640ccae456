/** The same request by beam search, timed in turn with the usual way. */

import { ask } from "./api.js";
import { byId, element, fill, hint, titled } from "./dom.js";
import { bar } from "./explanation.js";
import { median, milliseconds, times } from "./figures.js";
import { told, waiting } from "./notices.js";
import { untilAnswered } from "./patience.js";
import { listen, request } from "./store.js";

const TURNS = 3;
const PATIENCE_MS = 60_000;

let running = null;

export function startBeam() {
  byId("beam-ask").addEventListener("click", compare);
  listen(() => {
    running?.abort();
    byId("beam-ask").disabled = false;
    fill(byId("beam-state"));
    byId("beam-answer").replaceChildren();
  });
}

async function compare() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const status = byId("beam-state");
  const usual = { ms: [], own: [] };
  const beam = { ms: [], own: [] };
  byId("beam-ask").disabled = true;
  byId("beam-answer").replaceChildren();
  const one = async (side, more) => {
    const body = request({ ...more, deadline_ms: PATIENCE_MS });
    const { data, ms } = await untilAnswered(
      () => ask("POST", "v1/recommend", { body, signal }),
      signal,
      (trouble, left) => fill(status, waiting(trouble, left)),
    );
    side.ms.push(ms);
    side.own.push(data.milliseconds);
    side.data = data;
  };
  try {
    for (let turn = 0; turn < TURNS; turn += 1) {
      fill(status, `asking, turn ${turn + 1} of ${TURNS} …`);
      await one(usual, {});
      await one(beam, { decoder: "beam" });
    }
    if (signal.aborted) return;
    fill(status);
    show(usual, beam);
  } catch (trouble) {
    if (signal.aborted) return;
    fill(status);
    byId("beam-answer").replaceChildren(element("div", { class: "notice" }, ...told(trouble, compare)));
  } finally {
    if (!signal.aborted) byId("beam-ask").disabled = false;
  }
}

function show(usual, beam) {
  if (beam.data.cold) {
    const text = "Without a history neither has anything to go on: popularity answered both.";
    return byId("beam-answer").replaceChildren(hint(text));
  }
  const ratio = times(median(beam.own) / median(usual.own));
  const shared = beam.data.items.filter(({ item_id }) => placeIn(usual, item_id) >= 0).length;
  const lines = beam.data.items.map((item) => line(item, usual));
  byId("beam-answer").replaceChildren(
    element("p", { class: "ratio" }, element("strong", {}, ratio), ` as long as ${usual.data.decoder}`),
    timings(usual, beam),
    hint(`Medians of ${TURNS} turns. The lists share ${shared} of ${beam.data.items.length} items.`),
    element("ol", { class: "beamed", "aria-label": "Items by beam search" }, ...lines),
  );
}

const placeIn = (side, id) => side.data.items.findIndex(({ item_id }) => item_id === id);

function line(item, usual) {
  const place = placeIn(usual, item.item_id);
  const title = `number ${place + 1} by ${usual.data.decoder}`;
  const also = place < 0 ? null : element("span", { class: "also", title }, `#${place + 1}`);
  return element("li", {}, titled(item.title, "span", { class: "title" }), also);
}

/** Both latencies as bars of one scale, seen from here and from within the server. */
function timings(usual, beam) {
  const longest = Math.max(median(usual.ms), median(beam.ms));
  const row = (name, side, kind) => {
    const [ms, own] = [median(side.ms), median(side.own)];
    const track = bar([
      { kind, share: own / longest },
      { kind: "way", share: (ms - own) / longest },
    ]);
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, name, track),
      element("td", { class: "own" }, milliseconds(own)),
      element("td", { class: "seen" }, milliseconds(ms)),
    );
  };
  const head = ["", "server", "browser"].map((name) => element("th", { scope: "col" }, name));
  return element(
    "table",
    { class: "timings" },
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, row(usual.data.decoder, usual, "thought"), row("beam", beam, "counts")),
  );
}
