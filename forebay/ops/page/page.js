// The page of `forebay ops`: reads /api/stream, draws what it says, changes nothing.
import { isOpen, open, showDetail } from "./detail.js";
import { duration, find, setText } from "./dom.js";
import { addEvents, showFleet, showModels } from "./overview.js";
import { merge, note } from "./samples.js";

const SILENCE_MS = 5000;

let fleet = null;
let heardAt = 0;
let problem = "connecting";

async function get(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `status ${answer.status}`);
  return body;
}

function listen() {
  const source = new EventSource("api/stream");
  source.onopen = readPast;
  source.onmessage = (message) => take(JSON.parse(message.data));
  source.onerror = async () => {
    problem = "forebay ops does not answer; trying again";
    showState();
    if (source.readyState !== EventSource.CLOSED) return; // else it tries again by itself
    await sayWhyClosed();
    setTimeout(listen, 1000);
  };
}

// The stream's answer was no stream, such as one that asks for a token; only fetch tells why.
async function sayWhyClosed() {
  try {
    await get("api/events");
  } catch (error) {
    problem = `cannot read from forebay ops: ${error.message}`;
    showState();
  }
}

// What happened before the page was opened, and while it was cut off.
async function readPast() {
  try {
    const [past, events] = await Promise.all([get("api/history"), get("api/events")]);
    merge(past);
    addEvents(events);
    show();
  } catch (error) {
    problem = `cannot read from forebay ops: ${error.message}`;
    showState();
  }
}

function take(message) {
  heardAt = Date.now();
  problem = message.error;
  if (message.fleet) {
    fleet = message.fleet;
    note(fleet);
    addEvents(fleet.events);
    show();
  }
  showState();
}

function showState() {
  const silent = heardAt && Date.now() - heardAt > SILENCE_MS;
  const said = problem || (silent ? `nothing heard for ${duration((Date.now() - heardAt) / 1000)}` : null);
  setText(find("state"), said || `live, ${new Date(fleet.at * 1000).toLocaleTimeString()}`);
  find("state").className = said ? "bad" : "good";
}

function show() {
  if (!fleet || document.hidden) return;
  showFleet(fleet, openDetail);
  showDetail(fleet);
}

const openDetail = (which) => open(which, fleet, get);

// -- keys

function move(step) {
  const lines = [...find("models").tBodies[0].rows];
  if (!lines.length) return;
  const at = lines.indexOf(document.activeElement);
  lines[Math.max(0, Math.min(lines.length - 1, at < 0 ? 0 : at + step))].focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || isOpen()) return;
  if (event.key === "j" || event.key === "ArrowDown") move(1);
  else if (event.key === "k" || event.key === "ArrowUp") move(-1);
  else if (event.key === "/") find("filter").focus();
  else if (event.key === "Enter" && event.target.matches("#models tbody tr")) event.target.click();
  else return;
  event.preventDefault();
});
for (const [id, kind] of [["filter", "input"], ["sort", "change"]])
  find(id).addEventListener(kind, () => fleet && showModels(fleet, openDetail));
window.addEventListener("resize", show);
document.addEventListener("visibilitychange", show);
setInterval(() => (fleet || problem) && showState(), 1000);
listen();
