/** The filter as it is typed: `price<20 brand=Sony|LG genre!=live`, or the API's own JSON. */

const PART = /([^\s"=!<>|]+)\s*(!=|<=|>=|=|<|>)\s*("[^"]*"(?:\|"?[^\s"|]+"?)*|[^\s"]+)(?:\s+|$)/y;
const EXPECTED = "write column=value, or !=, <, <=, >, >= for =";
const RANGES = { "<": "lt", "<=": "lte", ">": "gt", ">=": "gte" };

/**
 * @param {string} text as typed.
 * @returns {object | null} the filter as the API takes it; null where there is none.
 * @throws {SyntaxError} where it says nothing.
 */
export function readFilter(text) {
  const typed = text.trim();
  if (!typed) return null;
  if (typed.startsWith("{")) return JSON.parse(typed);
  const filter = {};
  PART.lastIndex = 0;
  while (PART.lastIndex < typed.length) {
    const at = PART.lastIndex;
    const part = PART.exec(typed);
    if (!part) throw new SyntaxError(`cannot be read from “${typed.slice(at)}” on: ${EXPECTED}`);
    const [, column, sign, given] = part;
    const values = given.match(/"[^"]*"|[^|]+/g).map(value);
    if (sign in RANGES) filter[column] = { ...ranges(filter[column]), [RANGES[sign]]: values[0] };
    else if (sign === "!=") filter[column] = { not: values.length > 1 ? values : values[0] };
    else filter[column] = values.length > 1 ? values : values[0];
  }
  return filter;
}

const ranges = (former) => (former && typeof former === "object" && !Array.isArray(former) ? former : {});

function value(text) {
  if (text.startsWith('"')) return text.slice(1, -1);
  if (text === "true" || text === "false") return text === "true";
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}
