/** Numbers and times as they are shown. */

const whole = new Intl.NumberFormat("en-GB");

export const count = (number) => whole.format(number);

export const counted = (number, noun, nouns = `${noun}s`) => `${count(number)} ${number === 1 ? noun : nouns}`;

export const percent = (share) => (share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(share * 100)} %`);

export const milliseconds = (ms) => `${ms >= 100 ? whole.format(Math.round(ms)) : ms.toFixed(1)} ms`;

/** Three significant digits, without an exponent where none is needed. */
export const score = (number) =>
  Math.abs(number) >= 1e-4 || number === 0 ? number.toPrecision(3) : number.toExponential(2);

export const times = (ratio) => `${ratio >= 10 ? Math.round(ratio) : ratio.toFixed(1)}×`;

/** How long ago a moment was; unix seconds, or an ISO time. */
export function ago(moment, now = Date.now()) {
  const at = typeof moment === "number" ? moment * 1000 : Date.parse(moment);
  if (Number.isNaN(at)) return "";
  const seconds = Math.max(0, Math.round((now - at) / 1000));
  if (seconds < 5) return "now";
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(at).toISOString().slice(0, 10);
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
