/** What is asked for. Changed through `change` alone, which tells everybody who listens what was changed. */

const listeners = [];

export const state = {
  /** Items of the history, oldest first: {id, title}. */
  history: [],
  /** A user whose history the server takes instead; empty for the history above. */
  user: "",
  /** Empty for the run that the server chooses. */
  run: "",
  /** Empty for the run's usual one. */
  decoder: "",
  k: 10,
  filter: null,
  excludeSeen: true,
};

export const listen = (told) => listeners.push(told);

export function change(part) {
  Object.assign(state, part);
  for (const told of listeners) told(Object.keys(part));
}

export function add(item) {
  change({ history: [...state.history, { id: item.item_id, title: item.title }], user: "" });
}

export function remove(place) {
  change({ history: state.history.filter((_, index) => index !== place) });
}

/** Moves a line up (-1) or down (+1); says whether there was room. */
export function move(place, by) {
  const history = [...state.history];
  const to = place + by;
  if (to < 0 || to >= history.length) return false;
  [history[place], history[to]] = [history[to], history[place]];
  change({ history });
  return true;
}

/** The part of a request that names the run, where one was chosen. */
export const ofRun = () => (state.run ? { run: state.run } : {});

/** An id as the API takes it for certain, whatever titles there are. */
export const named = (id) => `id:${id}`;

/** The body of a request for what is asked for now. */
export function request(more = {}) {
  const asked = { k: state.k, exclude_seen: state.excludeSeen, ...ofRun() };
  if (state.user) asked.user = state.user;
  else asked.history = state.history.map((item) => named(item.id));
  if (state.decoder) asked.decoder = state.decoder;
  if (state.filter) asked.filter = state.filter;
  return { ...asked, ...more };
}
