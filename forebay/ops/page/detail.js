// The dialog of one model: its chart, waiters, quotas, members and last events, read each second.
import { drawChart } from "./chart.js";
import { duration, element, eventLine, find, setText, table } from "./dom.js";
import { nowOf } from "./overview.js";
import { nameOf, samplesOf } from "./samples.js";

const MOST_ROWS = 20;

let opened = null; // {provider, model, domain}

export const isOpen = () => opened !== null;

export function open(which, fleet, get) {
  opened = which;
  find("facts").replaceChildren();
  setText(find("outlook"), "");
  find("detail").showModal();
  showDetail(fleet);
  readDetail(which, get);
}

export function showDetail(fleet) {
  if (!opened) return;
  const name = nameOf(opened);
  const row = fleet.models.find((candidate) => nameOf(candidate) === name);
  setText(find("detail-title"), name);
  drawChart(find("chart"), samplesOf(name), { axes: true });
  if (!row) {
    setText(find("outlook"), "The last look did not show this window.");
    return;
  }
  const now = nowOf(row);
  find("chart").setAttribute("aria-label", `window ${row.window} of ${row.window_max}, in flight ${row.in_flight}`);
  setText(find("outlook"), `Window ${row.window} of ${row.window_max}, cap ${row.cap}. ${now.charAt(0).toUpperCase()}${now.slice(1)}.`);
}

async function readDetail(which, get) {
  const query = new URLSearchParams({ provider: which.provider, model: which.model });
  while (opened === which) {
    let parts;
    try {
      parts = factsOf(await get(`api/model?${query}`), which.domain);
    } catch (error) {
      parts = [element("p", error.message, "hot")];
    }
    if (opened === which) find("facts").replaceChildren(...parts);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function factsOf({ snapshot, events }, domain) {
  const window_ = snapshot.domains[domain];
  const parts = [];
  if (window_.waiting_groups.length) {
    parts.push(element("h3", `Waiting, in order (${counted(window_.waiting_group_count, "group")})`));
    parts.push(table(["group", "weight", "waiting"], window_.waiting_groups.slice(0, MOST_ROWS).map(
      (row) => [row.group, row.weight, row.waiting])));
  }
  if (snapshot.budgets.length) {
    parts.push(element("h3", "Quotas"));
    parts.push(table(["quota", "limit", "left"], snapshot.budgets.map(
      (row) => [row.budget, row.limit, Math.round(row.level)])));
  }
  parts.push(element("h3", `Members (${snapshot.member_count})`));
  if (snapshot.members.length)
    parts.push(table(["member", "program", "since", "leases", "waiting", "heartbeat due in"], snapshot.members.slice(0, MOST_ROWS).map((row) => [
      row.host === null ? row.member_id : `${row.host} pid ${row.pid}`, row.program,
      row.since === null ? "" : duration(snapshot.captured_at - row.since), row.lease_count, row.waiters,
      row.expires_in_seconds > 0 ? duration(row.expires_in_seconds) : "overdue"])));
  if (snapshot.member_count > MOST_ROWS)
    parts.push(element("p", `${snapshot.member_count - MOST_ROWS} more members`, "quiet"));
  parts.push(element("h3", "Last events"));
  const list = element("ol", null, "events");
  list.append(...events.map(eventLine));
  parts.push(events.length ? list : element("p", "None.", "empty"));
  return parts;
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

find("close").addEventListener("click", () => find("detail").close());
find("detail").addEventListener("close", () => { opened = null; });
