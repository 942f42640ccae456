/** Decoder, length, filter and run. */

import { byId, debounced, element, fill } from "./dom.js";
import { readFilter } from "./filter.js";
import { change, state } from "./store.js";

const LONGEST = 100;
/** Answers in language space are asked for beside the others. */
const BESIDE = ["beam"];

export function startChoices() {
  byId("choices").addEventListener("submit", (event) => event.preventDefault());
  byId("decoder").addEventListener("change", () => change({ decoder: byId("decoder").value }));
  byId("run").addEventListener("change", () => change({ run: byId("run").value, decoder: "" }));
  byId("exclude-seen").addEventListener("change", () => change({ excludeSeen: byId("exclude-seen").checked }));
  byId("k").addEventListener("input", () => {
    const k = Math.round(Number(byId("k").value));
    if (k >= 1 && k <= LONGEST && k !== state.k) change({ k });
  });
  byId("k").addEventListener("blur", () => {
    byId("k").value = state.k;
  });
  byId("filter").addEventListener("input", debounced(filtered, 250));
}

function filtered() {
  const input = byId("filter");
  try {
    const filter = readFilter(input.value);
    input.removeAttribute("aria-invalid");
    fill(byId("filter-note"), filter && JSON.stringify(filter));
    if (JSON.stringify(filter) !== JSON.stringify(state.filter)) change({ filter });
  } catch (error) {
    input.setAttribute("aria-invalid", "true");
    fill(byId("filter-note"), `The filter ${error.message}`);
  }
}

/** Offers what the server says there is. */
export function offer(runs, shown) {
  const decoders = shown.decoders.filter((name) => !BESIDE.includes(name));
  options(byId("decoder"), [["", `usual (${shown.decoder})`], ...decoders.map((name) => [name, name])], state.decoder);
  byId("beside").hidden = !shown.decoders.some((name) => BESIDE.includes(name));
  byId("run-choice").hidden = runs.length < 2;
  options(byId("run"), [["", "by user"], ...runs.map(({ run }) => [run, run])], state.run);
}

function options(select, pairs, chosen) {
  const made = JSON.stringify(pairs);
  if (select.dataset.made !== made) {
    select.dataset.made = made;
    select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
  }
  select.value = chosen;
}
