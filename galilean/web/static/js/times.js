// Times in the visitor's zone and language, and held times that tick without asking the server.
import { language as spoken, say } from "galilean/page";

// The page says which language; the browser says which of its habits: British or American dates.
const language = navigator.languages.find((name) => name.split("-")[0] === spoken.split("-")[0]) ?? spoken;

const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
const format = (options) => new Intl.DateTimeFormat(language, options);
const exact = format({ year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const clock = format({ hour: "2-digit", minute: "2-digit", hour12: false });
const weekday = format({ weekday: "short", hour: "2-digit", minute: "2-digit", hour12: false });
const time = format({ hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = format({ weekday: "short", day: "numeric", month: "short" });
const date = format({ day: "numeric", month: "short", year: "numeric" });

/** `18:00` today; with its day where it is another one, for an hour alone would be taken for today's. */
export function clockOf(moment) {
  const days = Math.abs(moment - now()) / 864e5;
  if (new Date(now()).toDateString() === moment.toDateString()) return clock.format(moment);
  return days < 6 ? weekday.format(moment) : `${day.format(moment)} ${clock.format(moment)}`;
}

/** The server's clock may differ from the browser's: the page's Date header sets the offset once. */
let offsetMs = 0;
export function setServerNow(seconds) { offsetMs = seconds * 1000 - Date.now(); }
const now = () => Date.now() + offsetMs;

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

const relativeWords = (n, unit) => relative.format(n, unit).replace(/\.(?= |$)/, "");

function ago(moment) {
  const seconds = (moment - now()) / 1000, size = Math.abs(seconds);
  if (size < 50) return say("just now");
  if (size < 3600) return relativeWords(Math.round(seconds / 60), "minute");
  if (size < 86400) return relativeWords(Math.round(seconds / 3600), "hour");
  if (size < 2 * 86400) return relativeWords(Math.round(seconds / 86400), "day");
  return (size < 300 * 86400 ? day : date).format(moment);
}

function write(element) {
  // A day is the site's, whatever the visitor's zone: it is only written in the visitor's way.
  const isDay = element.dataset.style === "day";
  const moment = new Date(isDay ? `${element.dateTime}T12:00` : element.dateTime);
  if (Number.isNaN(+moment)) return;
  const style = element.dataset.style;
  const text = style === "clock" ? clockOf(moment) : style === "time" ? time.format(moment)
    : style === "date" || isDay ? date.format(moment)
    : style === "exact" ? exact.format(moment) : ago(moment);
  if (element.textContent !== text) element.textContent = text;
  if (!isDay) element.title = exact.format(moment);
}

export function tick() {
  for (const element of document.querySelectorAll("[data-per-second]")) {
    const { amount, perSecond, at } = element.dataset;
    const text = (Number(amount) + Math.max(0, now() / 1000 - Number(at)) * Number(perSecond)).toFixed(2);
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll("time[data-since]")) {
    const text = duration(now() / 1000 - Number(element.dataset.since));
    if (element.textContent !== text) element.textContent = text;
  }
}

export function refreshTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-style]")) write(element);
  tick();
}

export function startTimes() {
  const served = Number(document.getElementById("page-data")?.dataset.now || 0);
  if (served) setServerNow(served);
  refreshTimes();
  setInterval(tick, 1000);
  setInterval(refreshTimes, 30000);
}
