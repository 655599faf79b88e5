// Small parts of the page: elements, tables, bars and spans of time. Text is never read as HTML.

export const find = (id) => document.getElementById(id);

export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export const words = (name) => name.replaceAll("_", " ");

// A cell that names its column where the table has no head: on narrow screens.
export function labelled(label, value, className) {
  const cell = element("td", value, className);
  if (label) cell.dataset.label = label;
  return cell;
}

export function table(titles, rows) {
  const made = element("table", null, "list");
  const head = element("thead"), line = element("tr"), body = element("tbody");
  line.append(...titles.map((title) => element("th", title)));
  head.append(line);
  for (const row of rows) {
    const cells = element("tr");
    cells.append(...row.map((value, index) => labelled(titles[index], value)));
    body.append(cells);
  }
  made.append(head, body);
  return made;
}

// A bar of a part in a whole; the mark is the fair share, as a fraction.
export function meter(part, whole, mark) {
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

export function eventLine(event) {
  const line = element("li");
  line.dataset.id = `${event.shard} ${event.id}`;
  const fields = Object.entries(event.fields).filter(
    ([name, value]) => name !== "sequence" && value !== "" && !(name.endsWith("_us") && value === "0"));
  line.append(
    element("time", new Date(event.at * 1000).toLocaleTimeString()),
    ` ${event.shard} ${words(event.kind)} ${fields.map(([name, value]) => `${name}=${value}`).join(" ")}`);
  return line;
}
