// Messages in catalogues (i18n/*.json), numbers and dates by Intl. English is complete by definition; a test holds the others to it.

const LANGUAGES = ["en", "de"];
const CHOICE = "ferry.language";
let messages = {};
let language = "en";
/** Formats of the language in use: to make one takes longer than what it is for, and lists ask for hundreds. */
const formats = new Map();
let plurals = new Intl.PluralRules("en");

/** The languages that there are, with their own names. */
export const languages = () => LANGUAGES.map((code) => [code, new Intl.DisplayNames([code], { type: "language" }).of(code)]);

/** The language in use. */
export const currentLanguage = () => language;

/** The first language that we have of those that the person prefers. */
export function choose(wanted, have = LANGUAGES) {
  for (const one of wanted) {
    const base = String(one).toLowerCase().split("-")[0];
    if (have.includes(base)) return base;
  }
  return "en";
}

/** Loads the catalogue; `load(code)` gives it. */
export async function start(load) {
  const chosen = localStorage.getItem(CHOICE);
  use(choose([...(chosen ? [chosen] : []), ...navigator.languages]), {});
  use(language, await load(language));
  document.documentElement.lang = language;
}

/** Takes a catalogue into use. */
export function use(code, catalogue) {
  language = code;
  messages = catalogue;
  formats.clear();
  plurals = new Intl.PluralRules(code);
}

/** Keeps a choice for the next start. */
export const remember = (code) => localStorage.setItem(CHOICE, code);

/** A message; `{name}` is replaced by `values.name`, and `values.count` chooses between `key.one` and `key.other`. */
export function t(key, values = {}) {
  let text = messages[key];
  if (text === undefined && typeof values.count === "number") {
    text = messages[`${key}.${plurals.select(values.count)}`] ?? messages[`${key}.other`];
  }
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (hole, name) => {
    const value = values[name];
    if (value === undefined) return hole;
    return typeof value === "number" ? value.toLocaleString(language) : String(value);
  });
}

/** Whether there is such a message. */
export const has = (key) => messages[key] !== undefined;

function formatOf(Kind, style) {
  const key = Kind.name + JSON.stringify(style);
  if (!formats.has(key)) formats.set(key, new Kind(language, style));
  return formats.get(key);
}

const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

/** A size for people, in units of 1000. */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  const style = { style: "unit", unit: UNITS[unit], unitDisplay: unit === 0 ? "long" : "short", maximumFractionDigits: digits };
  return formatOf(Intl.NumberFormat, style).format(value);
}

/** A moment for people: the time for today, the date for other days. */
export function when(text, now = new Date()) {
  const date = new Date(text);
  if (!text || Number.isNaN(date.getTime())) return "";
  const sameDay = date.toDateString() === now.toDateString();
  const style = sameDay ? { hour: "numeric", minute: "2-digit" } : { day: "numeric", month: "short", year: "numeric" };
  return formatOf(Intl.DateTimeFormat, style).format(date);
}

/** A moment in full. */
export function moment(text) {
  const date = new Date(text);
  if (!text || Number.isNaN(date.getTime())) return "";
  return formatOf(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "short" }).format(date);
}

const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

/** How long ago something was. */
export function ago(text, now = Date.now()) {
  let value = (new Date(text).getTime() - now) / 1000;
  if (Number.isNaN(value)) return "";
  const format = formatOf(Intl.RelativeTimeFormat, { numeric: "auto" });
  for (const [unit, steps] of STEPS) {
    if (Math.abs(value) < steps) return format.format(Math.trunc(value), unit);
    value /= steps;
  }
  return "";
}

/** Compares names as people do: `a2` before `a10`. */
export const collate = () => new Intl.Collator(language, { numeric: true, sensitivity: "base" });
