/** The page: its parts joined. */

import { asker } from "./asking.js";
import { startBeam } from "./beam.js";
import { offer, startChoices } from "./choices.js";
import { byId, element, fill, say } from "./dom.js";
import { counted, milliseconds } from "./figures.js";
import { startHistory } from "./history.js";
import { startKey } from "./key.js";
import { fadeReasons, showList, showNothing, showReasons, showWaiting } from "./list.js";
import { lookNow, watchMemory } from "./memory.js";
import { hideNotice, showNotice, told, waiting } from "./notices.js";
import { onWrite } from "./record.js";
import { startSearch } from "./search.js";
import { add, listen, state } from "./store.js";

let listed = [];
let before = null;

const again = asker({
  start() {
    document.body.dataset.asking = "";
    byId("recommended").setAttribute("aria-busy", "true");
    showWaiting(state.k);
    fadeReasons();
  },
  answer(data, ms) {
    delete document.body.dataset.asking;
    hideNotice();
    showList(data, before);
    before = null;
    listed = data.items.map(({ item_id }) => item_id);
    const took = `${milliseconds(ms)} here, ${milliseconds(data.milliseconds)} in the server`;
    fill(byId("figures"), `${data.decoder} · ${took} · memory ${data.memory_version}`);
    fill(byId("cold"), data.cold && "Without a history the list is what is popular lately, the same for everybody.");
    byId("legend").hidden = true;
    if (!data.items.length) showNotice("empty", element("p", {}, "No item is left: nothing passes the filter."));
    say(`${counted(data.items.length, "recommendation")} by ${data.decoder}`);
  },
  reasons(items) {
    showReasons(items);
    if (items.some(({ explanation }) => explanation?.evidence?.length)) showLegend();
  },
  wait(trouble, seconds) {
    if (byId("notice").hidden) say(waiting(trouble, seconds));
    showNotice(trouble.busy ? "busy" : "offline", element("p", {}, waiting(trouble, seconds)));
  },
  fail(trouble) {
    delete document.body.dataset.asking;
    showNothing();
    for (const id of ["figures", "cold", "legend"]) byId(id).hidden = true;
    showNotice("wrong", ...told(trouble, again));
    say(byId("notice").textContent);
  },
});

function showLegend() {
  const swatch = (kind) => element("span", { class: `swatch ${kind}`, "aria-hidden": "true" });
  const named = (kind, text) => element("span", {}, swatch(kind), text);
  const counts = named("counts", "counts of what stood near the history’s items");
  fill(byId("legend"), named("thought", "the backbone’s thought"), counts);
}

const words = (trouble) => (trouble?.busy ? "busy" : trouble?.status < 500 ? "no access" : "in trouble");

function health(trouble, run) {
  const state = trouble ? (trouble.offline ? "away" : "trouble") : "ready";
  byId("health").dataset.state = state;
  byId("health-text").textContent = { ready: "ready", away: "no connection", trouble: words(trouble) }[state];
  if (run) byId("run-name").textContent = run.run;
}

function chosen(data) {
  const run = data.runs.find(({ run }) => run === state.run) ?? data.runs[0];
  offer(data.runs, run);
  return run;
}

startHistory();
startChoices();
startSearch((item) => {
  add(item);
  say(`${item.title} added, ${counted(state.history.length, "item")} in the history`);
});
startBeam();
startKey(() => {
  again();
  lookNow();
});
onWrite(() => {
  before = listed;
  again();
  lookNow();
});
listen(again);
again();
watchMemory(chosen, health);
