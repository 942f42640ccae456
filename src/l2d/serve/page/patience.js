/** Asking until there is an answer: waits while the server is busy or away, and says for how long. */

const LONGEST = 30;

/**
 * @param {() => Promise<T>} attempt what may fail.
 * @param {AbortSignal} signal ends it.
 * @param {(trouble: import("./api.js").Trouble, seconds: number) => void} tell called each second of waiting.
 * @returns {Promise<T>} what the attempt that did not fail gave.
 * @throws what is not to be helped by waiting; the signal's reason.
 * @template T
 */
export async function untilAnswered(attempt, signal, tell) {
  for (let failed = 0; ; failed += 1) {
    try {
      return await attempt();
    } catch (trouble) {
      if (signal.aborted || !(trouble.busy || trouble.offline)) throw trouble;
      const backoff = Math.min(LONGEST, 2 ** Math.min(failed, 5));
      const seconds = Math.ceil(Math.min(LONGEST, trouble.after ?? backoff));
      for (let left = seconds; left > 0; left -= 1) {
        tell(trouble, left);
        await pause(1000, signal, trouble.offline);
      }
    }
  }
}

/** Waits; ends at once when aborted. With `network`, also when the browser finds its network again. */
export function pause(ms, signal, network = false) {
  return new Promise((done, failed) => {
    const timer = setTimeout(finish, ms);
    const stop = () => finish(signal.reason);
    const again = () => finish();
    function finish(reason) {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
      window.removeEventListener("online", again);
      if (reason === undefined) done();
      else failed(reason);
    }
    if (signal.aborted) return stop();
    signal.addEventListener("abort", stop);
    if (network) window.addEventListener("online", again);
  });
}
