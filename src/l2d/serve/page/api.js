/** Calls of the HTTP API: the key, latencies, and what goes wrong as one class. */

import { currentKey, keyFor } from "./key.js";

/** A refusal or a failure. `status` is 0 where no answer came at all. */
export class Trouble extends Error {
  constructor(status, { what, got, expected, cure } = {}, { after = null, request = "" } = {}) {
    super(what ?? `the server answered ${status}`);
    Object.assign(this, { name: "Trouble", status, got, expected, cure, after, request });
  }

  get offline() {
    return this.status === 0;
  }

  get busy() {
    return this.status === 429 || this.status === 503;
  }
}

/**
 * Asks once, or again after a key was entered.
 *
 * @returns {Promise<{data: object, ms: number}>} the answer, and the milliseconds it took as seen from here.
 * @throws {Trouble} anything but an answer.
 */
export async function ask(method, path, { body, signal } = {}) {
  for (;;) {
    const key = currentKey();
    const started = performance.now();
    const response = await sent(method, path, body, key, signal);
    const data = await readable(response, signal);
    const ms = performance.now() - started;
    if (response.ok && data !== null) return { data, ms };
    const after = Number(response.headers.get("retry-after"));
    const fault = data === null ? { what: "the server's answer cannot be read" } : (data.error ?? {});
    const trouble = new Trouble(response.status, fault, {
      after: Number.isFinite(after) && after > 0 ? after : null,
      request: data?.request_id ?? "",
    });
    if (response.status !== 401) throw trouble;
    const other = currentKey();
    if (other === key && !(await keyFor(key ? "The server does not accept this key." : null))) throw trouble;
    signal?.throwIfAborted();
  }
}

async function sent(method, path, body, key, signal) {
  const headers = { accept: "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const rest = { body: JSON.stringify(body), cache: "no-store", credentials: "omit" };
  try {
    return await fetch(new URL(path, document.baseURI), { method, headers, signal, ...rest });
  } catch (error) {
    throw signal?.aborted ? error : new Trouble(0, { what: "the server cannot be reached" });
  }
}

async function readable(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    return null;
  }
}
