// The page of `forebay ops`: reads /api/stream, draws what it says, changes nothing.
"use strict";

const KEPT_SAMPLES = 1200;
const KEPT_EVENTS = 40;
const SILENCE_MS = 5000;

const find = (id) => document.getElementById(id);
const history_ = new Map(); // window's name -> samples
const refused = new Map(); // window's name -> count of rate limits at the last look
const granted = new Map(); // window's name -> {at, count, rate}
const rowOf = new Map(); // window's name -> its table row
let fleet = null;
let opened = null; // {provider, model, domain} of the dialog
let heardAt = 0;
let problem = "connecting";

const nameOf = (row) => `${row.provider}/${row.model} ${row.domain}`;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

function minuteOf(samples, field) {
  if (!samples.length) return 0;
  const since = samples[samples.length - 1][0] - 60;
  return samples.reduce((sum, sample) => (sample[0] > since ? sum + sample[field] : sum), 0);
}

// -- what comes from the server

async function start() {
  for (;;) {
    try {
      const [past, events] = await Promise.all([get("api/history"), get("api/events")]);
      for (const [name, samples] of Object.entries(past)) history_.set(name, samples);
      showEvents(events);
      break;
    } catch (error) {
      problem = `cannot read from forebay ops: ${error.message}`;
      showState();
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
  listen();
}

async function get(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || `status ${answer.status}`);
  return body;
}

function listen() {
  const source = new EventSource("api/stream");
  source.onmessage = (message) => take(JSON.parse(message.data));
  source.onerror = () => {
    problem = "forebay ops does not answer; trying again";
    showState();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

function take(message) {
  heardAt = Date.now();
  problem = message.error;
  if (message.fleet) {
    fleet = message.fleet;
    noteSamples();
    if (fleet.events.length) showEvents(fleet.events);
    show();
  }
  showState();
}

function noteSamples() {
  const names = new Set(fleet.models.map(nameOf));
  for (const kept of [history_, refused, granted])
    for (const name of kept.keys()) if (!names.has(name)) kept.delete(name);
  for (const row of fleet.models) {
    const name = nameOf(row);
    const before = refused.get(name) ?? row.rate_limited;
    refused.set(name, row.rate_limited);
    const samples = history_.get(name) ?? [];
    history_.set(name, samples);
    const last = samples[samples.length - 1];
    if (last && last[0] >= fleet.at - 0.001) continue;
    samples.push([fleet.at, row.window, row.in_flight, row.waiting, Math.max(0, row.rate_limited - before)]);
    if (samples.length > KEPT_SAMPLES) samples.splice(0, samples.length - KEPT_SAMPLES);
    noteRate(name, row.granted);
  }
}

function noteRate(name, count) {
  const past = granted.get(name);
  if (!past || count < past.count) {
    granted.set(name, { at: fleet.at, count, rate: null });
  } else if (fleet.at - past.at >= 3) {
    granted.set(name, { at: fleet.at, count, rate: (count - past.count) / (fleet.at - past.at) });
  }
}

// -- what is shown

function showState() {
  const state = find("state");
  const silent = heardAt && Date.now() - heardAt > SILENCE_MS;
  const said = problem || (silent ? `nothing heard for ${duration((Date.now() - heardAt) / 1000)}` : null);
  setText(state, said || `live, ${new Date(fleet.at * 1000).toLocaleTimeString()}`);
  state.className = said ? "bad" : "good";
}

function show() {
  showTotals();
  showProblems();
  showModels();
  showPools();
  showRuns();
  if (opened) showDetail();
}

function showTotals() {
  const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);
  const totals = [
    ["in flight", sum(fleet.models, "in_flight")],
    ["attempts waiting", sum(fleet.models, "waiting")],
    ["429s a minute", fleet.models.reduce((total, row) => total + minuteOf(history_.get(nameOf(row)) ?? [], 4), 0)],
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

function showProblems() {
  const said = [...fleet.problems];
  if (fleet.unread) said.push(`${fleet.unread} more shards are not shown`);
  for (const row of fleet.models) {
    const wrong = Object.entries(row.out_of_order).filter(([, count]) => count);
    for (const [name, count] of wrong) said.push(`${nameOf(row)}: ${name.replaceAll("_", " ")} ${count}`);
    if (row.overdue_members) said.push(`${nameOf(row)}: ${row.overdue_members} members without a heartbeat`);
  }
  const box = find("problems");
  if (box.dataset.said === said.join("\n")) return;
  box.dataset.said = said.join("\n");
  box.replaceChildren(...said.map((text) => element("p", text)));
}

function nowOf(row) {
  if (row.blocked_for) return `waits for ${row.blocked_for.replaceAll("_", " ")}, ${duration(row.cooldown_seconds)}`;
  if (row.cooldown_seconds > 0) return `cooldown, ${row.cooldown_seconds.toFixed(1)} s`;
  return row.outlook;
}

const SORTS = {
  name: (a, b) => nameOf(a).localeCompare(nameOf(b)),
  waiting: (a, b) => b.waiting - a.waiting || SORTS.name(a, b),
  in_flight: (a, b) => b.in_flight - a.in_flight || SORTS.name(a, b),
  refusals: (a, b) => refusals(b) - refusals(a) || SORTS.name(a, b),
};
const refusals = (row) => minuteOf(history_.get(nameOf(row)) ?? [], 4);

function showModels() {
  const filter = find("filter").value.toLowerCase();
  const body = find("models").tBodies[0];
  const rows = fleet.models.filter((row) => nameOf(row).toLowerCase().includes(filter));
  rows.sort(SORTS[find("sort").value]);
  const names = new Set(rows.map(nameOf));
  for (const [name, line] of rowOf) {
    if (!names.has(name)) {
      line.remove();
      rowOf.delete(name);
    }
  }
  rows.forEach((row, index) => {
    const line = rowOf.get(nameOf(row)) ?? newLine(row);
    if (body.children[index] !== line) body.insertBefore(line, body.children[index] ?? null);
    fill(line, row);
  });
  find("no-models").hidden = fleet.models.length > 0;
}

function newLine(row) {
  const line = element("tr");
  line.tabIndex = 0;
  line.append(element("td"), element("td"));
  for (const label of ["window", "in flight", "waiting", "calls a second", "429s a minute"]) {
    const cell = element("td", "", "n");
    cell.dataset.label = label;
    line.append(cell);
  }
  line.append(element("td"));
  const canvas = element("canvas");
  canvas.setAttribute("aria-hidden", "true");
  line.children[1].append(canvas);
  const which = { provider: row.provider, model: row.model, domain: row.domain };
  line.addEventListener("click", () => open(which));
  rowOf.set(nameOf(row), line);
  return line;
}

function fill(line, row) {
  const samples = history_.get(nameOf(row)) ?? [];
  const rate = granted.get(nameOf(row))?.rate;
  const [name, , window_, flight, waiting, calls, refusals_, now] = line.children;
  setText(name, nameOf(row));
  setText(window_, `${row.window} of ${row.window_max}`);
  setText(flight, String(row.in_flight));
  setText(waiting, String(row.waiting));
  setText(calls, rate === null || rate === undefined ? "" : rate.toFixed(1));
  setText(refusals_, String(refusals(row)));
  refusals_.classList.toggle("hot", refusals(row) > 0);
  setText(now, nowOf(row));
  now.classList.toggle("hot", row.cooldown_seconds > 0);
  drawChart(line.querySelector("canvas"), samples, { axes: false });
}

function showPools() {
  const box = find("pools");
  if (!fleet.pools.length) {
    box.replaceChildren(element("p", "No task pool has been used on this server yet.", "empty"));
    return;
  }
  box.replaceChildren(...fleet.pools.map(poolOf));
}

function poolOf(pool) {
  const panel = element("div", null, "pool");
  const counts = `${pool.running} running, ${pool.queued} queued, ${pool.delayed} delayed, ${pool.parked} parked`;
  panel.append(element("h3", `${pool.pool}: ${pool.state}, ${pool.policy}`), element("div", counts));
  const blocked = Object.entries(pool.blocked).map(([reason, count]) => `${reason.replaceAll("_", " ")} ${count}`);
  if (blocked.length) panel.append(element("div", `not admitted now: ${blocked.join(", ")}`, "quiet"));
  const table = element("table");
  for (const row of pool.resources) {
    const line = element("tr");
    line.append(element("td", row.resource), meter(row.leased, row.limit), element("td", `${row.leased} of ${row.limit}`, "n"));
    table.append(line);
  }
  const weights = pool.groups.reduce((sum, row) => sum + (row.waiting ? row.weight ?? 0 : 0), 0);
  const running = pool.groups.reduce((sum, row) => sum + row.running, 0);
  for (const row of pool.groups) {
    const fair = row.waiting && weights ? (row.weight ?? 0) / weights : null;
    const line = element("tr");
    const share = running ? `${Math.round((100 * row.running) / running)} % of what runs` : "";
    const due = fair === null ? "" : `, by weight ${Math.round(100 * fair)} %`;
    line.append(
      element("td", row.group), meter(row.running, running, fair),
      element("td", `${row.running} running, ${row.waiting} waiting; ${share}${due}`));
    table.append(line);
  }
  panel.append(table);
  if (pool.group_count > pool.groups.length)
    panel.append(element("div", `${pool.group_count - pool.groups.length} more groups`, "quiet"));
  return panel;
}

// A bar of a part in a whole; the mark is the fair share, as a fraction.
function meter(part, whole, mark) {
  const cell = element("td");
  const bar = element("span", null, "bar");
  const filled = element("i");
  filled.style.width = `${whole ? Math.min(100, (100 * part) / whole) : 0}%`;
  bar.append(filled);
  if (mark !== null && mark !== undefined) {
    const line = element("b");
    line.style.left = `calc(${Math.min(100, 100 * mark)}% - 1px)`;
    bar.append(line);
  }
  cell.append(bar);
  return cell;
}

function showRuns() {
  const lines = fleet.runs.map((run) => {
    const line = element("tr");
    line.append(element("td", `${run.run} (${run.workflow})`));
    const cells = [
      ["tenant", run.tenant], ["", run.problem ? `${run.state}: ${run.problem}` : run.state],
      ["driver", run.driver ?? "nobody"], ["records", `${run.done} of ${run.records}`],
      ["dropped", run.dropped], ["age", duration(run.age_seconds)],
    ];
    for (const [label, text] of cells) {
      const cell = element("td", text, label === "dropped" || label === "age" ? "n" : "");
      if (label) cell.dataset.label = label;
      line.append(cell);
    }
    return line;
  });
  find("runs").tBodies[0].replaceChildren(...lines);
  find("runs").hidden = lines.length === 0;
  find("no-runs").hidden = lines.length > 0;
}

function eventLine(event) {
  const line = element("li");
  const fields = Object.entries(event.fields).filter(
    ([name, value]) => name !== "sequence" && value !== "" && !(name.endsWith("_us") && value === "0"));
  line.append(
    element("time", new Date(event.at * 1000).toLocaleTimeString()),
    ` ${event.shard} ${event.kind.replaceAll("_", " ")} ${fields.map(([name, value]) => `${name}=${value}`).join(" ")}`);
  return line;
}

function showEvents(events) {
  const list = find("events");
  for (const event of events) list.prepend(eventLine(event));
  while (list.children.length > KEPT_EVENTS) list.lastChild.remove();
}

// -- one model

function open(which) {
  opened = which;
  find("facts").replaceChildren();
  find("detail").showModal();
  showDetail();
  readDetail();
}

function close() {
  opened = null;
  find("detail").close();
}

function showDetail() {
  const name = nameOf(opened);
  const row = fleet.models.find((candidate) => nameOf(candidate) === name);
  setText(find("detail-title"), name);
  drawChart(find("chart"), history_.get(name) ?? [], { axes: true });
  if (!row) return;
  find("chart").setAttribute("aria-label", `window ${row.window} of ${row.window_max}, in flight ${row.in_flight}`);
  setText(find("outlook"), `Window ${row.window} of ${row.window_max}, cap ${row.cap}. ${nowOf(row)}`);
}

async function readDetail() {
  const which = opened;
  if (!which) return;
  const query = new URLSearchParams({ provider: which.provider, model: which.model });
  try {
    const found = await get(`api/model?${query}`);
    if (opened === which) showFacts(found, which.domain);
  } catch (error) {
    if (opened === which) find("facts").replaceChildren(element("p", error.message, "hot"));
  }
  if (opened === which) setTimeout(readDetail, 1000);
}

function showFacts({ snapshot, events }, domain) {
  const window_ = snapshot.domains[domain];
  const parts = [];
  if (window_.waiting_groups.length) {
    parts.push(element("h3", `Waiting, in order (${window_.waiting_group_count} groups)`));
    parts.push(table(["group", "weight", "waiting"], window_.waiting_groups.slice(0, 20).map((row) => [row.group, row.weight, row.waiting])));
  }
  if (snapshot.budgets.length) {
    parts.push(element("h3", "Quotas"));
    parts.push(table(["quota", "limit", "left"], snapshot.budgets.map((row) => [row.budget, row.limit, Math.round(row.level)])));
  }
  parts.push(element("h3", `Members (${snapshot.member_count})`));
  parts.push(table(["member", "program", "since", "leases", "waiting", "heartbeat due in"], snapshot.members.slice(0, 20).map((row) => [
    row.host === null ? row.member_id : `${row.host} pid ${row.pid}`, row.program,
    row.since === null ? "" : duration(snapshot.captured_at - row.since), row.lease_count, row.waiters, row.expires_in_seconds > 0 ? duration(row.expires_in_seconds) : "overdue"])));
  parts.push(element("h3", "Last events"));
  const list = element("ol");
  list.className = "events";
  list.append(...events.map(eventLine));
  parts.push(list);
  find("facts").replaceChildren(...parts);
}

function table(titles, rows) {
  const made = element("table");
  const head = element("tr");
  head.append(...titles.map((title) => element("th", title)));
  made.append(head);
  for (const row of rows) {
    const line = element("tr");
    line.append(...row.map((value) => element("td", value)));
    made.append(line);
  }
  return made;
}

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
  if (typing || opened) return;
  if (event.key === "j" || event.key === "ArrowDown") move(1);
  else if (event.key === "k" || event.key === "ArrowUp") move(-1);
  else if (event.key === "/") find("filter").focus();
  else if (event.key === "Enter" && event.target.matches("#models tbody tr")) event.target.click();
  else return;
  event.preventDefault();
});
find("close").addEventListener("click", close);
find("detail").addEventListener("close", () => { opened = null; });
find("filter").addEventListener("input", () => fleet && showModels());
find("sort").addEventListener("change", () => fleet && showModels());
window.addEventListener("resize", () => fleet && show());
setInterval(() => fleet && showState(), 1000);
start();
