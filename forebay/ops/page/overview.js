// What the page shows of the whole fleet: totals, problems, models, pools, runs, events.
import { refreshColours, drawChart } from "./chart.js";
import { duration, element, eventLine, find, labelled, meter, setText, words } from "./dom.js";
import { callsASecond, nameOf, refusalsAMinute, samplesOf } from "./samples.js";

const KEPT_EVENTS = 40;
const SHOWN_PROBLEMS = 8;

const lineOf = new Map(); // window's name -> its table row
const seen = new Set(); // table rows that are on the screen: only their charts are drawn
const watching = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) {
      seen.add(target);
      drawLine(target);
    } else seen.delete(target);
  }
}, { rootMargin: "200px" });

export function showFleet(fleet, open) {
  refreshColours();
  showTotals(fleet);
  showProblems(fleet);
  showModels(fleet, open);
  showPools(fleet);
  showRuns(fleet);
}

function showTotals(fleet) {
  const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);
  const totals = [
    ["in flight", sum(fleet.models, "in_flight")],
    ["attempts waiting", sum(fleet.models, "waiting")],
    ["429s a minute", fleet.models.reduce((total, row) => total + refusalsAMinute(row), 0)],
    ["tasks running", sum(fleet.pools, "running")],
    ["tasks queued", sum(fleet.pools, "queued")],
    ["runs", fleet.runs.length],
  ];
  const list = find("totals");
  while (list.children.length < totals.length) {
    const item = element("li");
    item.append(element("strong"), element("span"));
    list.append(item);
  }
  totals.forEach(([label, value], index) => {
    setText(list.children[index].children[0], String(value));
    setText(list.children[index].children[1], label);
  });
}

function showProblems(fleet) {
  const said = [...fleet.problems];
  if (fleet.unread) said.push(`${fleet.unread} more shards are not shown`);
  for (const row of fleet.models) {
    const wrong = Object.entries(row.out_of_order).filter(([, count]) => count);
    for (const [name, count] of wrong) said.push(`${nameOf(row)}: ${words(name)} ${count}`);
    if (row.overdue_members) said.push(`${nameOf(row)}: ${row.overdue_members} members without a heartbeat`);
  }
  const more = said.length - SHOWN_PROBLEMS;
  if (more > 0) said.splice(SHOWN_PROBLEMS, more, `${more} more problems; api/fleet names each`);
  const box = find("problems");
  if (box.dataset.said === said.join("\n")) return;
  box.dataset.said = said.join("\n");
  box.replaceChildren(...said.map((text) => element("p", text)));
}

// What holds a window up, or what it does next; a sentence.
export function nowOf(row) {
  if (row.blocked_for) return `waits for ${words(row.blocked_for)}, ${duration(row.cooldown_seconds)}`;
  if (row.cooldown_seconds > 0) return `cooldown, ${row.cooldown_seconds.toFixed(1)} s`;
  return row.outlook;
}

const SORTS = {
  name: (a, b) => nameOf(a).localeCompare(nameOf(b)),
  waiting: (a, b) => b.waiting - a.waiting || SORTS.name(a, b),
  in_flight: (a, b) => b.in_flight - a.in_flight || SORTS.name(a, b),
  refusals: (a, b) => refusalsAMinute(b) - refusalsAMinute(a) || SORTS.name(a, b),
};

export function showModels(fleet, open) {
  const filter = find("filter").value.toLowerCase();
  const body = find("models").tBodies[0];
  const rows = fleet.models.filter((row) => nameOf(row).toLowerCase().includes(filter));
  rows.sort(SORTS[find("sort").value]);
  const names = new Set(rows.map(nameOf));
  for (const [name, line] of lineOf) {
    if (names.has(name)) continue;
    watching.unobserve(line);
    seen.delete(line);
    line.remove();
    lineOf.delete(name);
  }
  rows.forEach((row, index) => {
    const line = lineOf.get(nameOf(row)) ?? newLine(row, open);
    if (body.children[index] !== line) body.insertBefore(line, body.children[index] ?? null);
    fill(line, row);
  });
  const empty = find("no-models");
  setText(empty, fleet.models.length ? "No provider/model has this in its name." : "No provider/model has been used on this server yet.");
  empty.hidden = rows.length > 0;
}

function newLine(row, open) {
  const line = element("tr");
  line.tabIndex = 0;
  line.dataset.name = nameOf(row);
  line.append(element("td"), element("td"));
  for (const label of ["window", "in flight", "waiting", "calls a second", "429s a minute"])
    line.append(labelled(label, "", "n"));
  line.append(element("td"));
  const canvas = element("canvas");
  canvas.setAttribute("aria-hidden", "true");
  line.children[1].append(canvas);
  const which = { provider: row.provider, model: row.model, domain: row.domain };
  line.addEventListener("click", () => open(which));
  lineOf.set(line.dataset.name, line);
  watching.observe(line);
  return line;
}

function fill(line, row) {
  const [name, , window_, flight, waiting, calls, refusals, now] = line.children;
  const rate = callsASecond(row), refused = refusalsAMinute(row);
  setText(name, nameOf(row));
  setText(window_, `${row.window} of ${row.window_max}`);
  setText(flight, String(row.in_flight));
  setText(waiting, String(row.waiting));
  setText(calls, rate === null ? "-" : rate.toFixed(1));
  setText(refusals, String(refused));
  refusals.classList.toggle("hot", refused > 0);
  setText(now, nowOf(row));
  now.classList.toggle("hot", row.cooldown_seconds > 0);
  if (seen.has(line)) drawLine(line);
}

function drawLine(line) {
  drawChart(line.querySelector("canvas"), samplesOf(line.dataset.name), { axes: false });
}

function showPools(fleet) {
  const none = "No task pool has been used on this server yet.";
  const panels = fleet.pools.length ? fleet.pools.map(poolOf) : [element("p", none, "empty")];
  find("pools").replaceChildren(...panels);
}

function poolOf(pool) {
  const panel = element("div", null, "pool");
  const counts = `${pool.running} running, ${pool.queued} queued, ${pool.delayed} delayed, ${pool.parked} parked`;
  panel.append(element("h3", `${pool.pool}: ${pool.state}, ${pool.policy}`), element("div", counts));
  const blocked = Object.entries(pool.blocked).map(([reason, count]) => `${words(reason)} ${count}`);
  if (blocked.length) panel.append(element("div", `not admitted now: ${blocked.join(", ")}`, "quiet"));
  const rows = element("table");
  for (const row of pool.resources) {
    const line = element("tr");
    line.append(element("td", row.resource), meter(row.leased, row.limit), element("td", `${row.leased} of ${row.limit}`));
    rows.append(line);
  }
  const weights = pool.groups.reduce((sum, row) => sum + (row.waiting ? row.weight ?? 0 : 0), 0);
  const running = pool.groups.reduce((sum, row) => sum + row.running, 0);
  for (const row of pool.groups) {
    const fair = row.waiting && weights ? (row.weight ?? 0) / weights : null;
    const share = running ? `; ${Math.round((100 * row.running) / running)} % of what runs` : "";
    const due = fair === null ? "" : `, by weight ${Math.round(100 * fair)} %`;
    const line = element("tr");
    line.append(
      element("td", row.group), meter(row.running, running, fair),
      element("td", `${row.running} running, ${row.waiting} waiting${share}${due}`));
    rows.append(line);
  }
  panel.append(rows);
  const more = pool.group_count - pool.groups.length;
  if (more > 0) panel.append(element("div", `${more} more groups`, "quiet"));
  return panel;
}

function showRuns(fleet) {
  const lines = fleet.runs.map((run) => {
    const line = element("tr");
    line.append(
      element("td", `${run.run} (${run.workflow})`), labelled("tenant", run.tenant),
      labelled("state", run.problem ? `${run.state}: ${run.problem}` : run.state, run.problem ? "hot" : ""),
      labelled("driver", run.driver ?? "nobody"), labelled("records", `${run.done} of ${run.records}`, "n"),
      labelled("dropped", run.dropped, "n"), labelled("age", duration(run.age_seconds), "n"));
    return line;
  });
  find("runs").tBodies[0].replaceChildren(...lines);
  find("runs").hidden = lines.length === 0;
  find("no-runs").hidden = lines.length > 0;
}

// Adds events above the others, the newest first; an event that is there already is not added.
export function addEvents(events) {
  const list = find("events");
  const there = new Set([...list.children].map((line) => line.dataset.id));
  for (const line of events.map(eventLine)) if (!there.has(line.dataset.id)) list.prepend(line);
  while (list.children.length > KEPT_EVENTS) list.lastChild.remove();
  find("no-events").hidden = list.children.length > 0;
}
