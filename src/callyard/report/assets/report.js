// The parts of a report that move: the timeline, the table of calls, and the details of a call.
// All texts reach the page as textContent, so none can be taken for HTML.
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const {calls, texts, states, lanes} = data;
const total = calls.name.length;
const get = (id) => document.getElementById(id);
const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

// ---------------------------------------------------------------- values of a call, by its row in the columns

const text = (column, row) => texts[calls[column][row]];
const stateOf = (row) => states[calls.state[row]];
const began = (row) => calls.started[row];
const ended = (row) => calls.ended[row] ?? data.end;
const place = (row) => [text("host", row), text("worker", row)].filter(Boolean).join(" · ");

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.9995) return seconds < 0.0009995 ? `${+(seconds * 1e6).toPrecision(3)} us` : `${+(seconds * 1e3).toPrecision(3)} ms`;
  if (seconds < 99.5) return `${+seconds.toPrecision(3)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds) % 60} s`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h`;
}
function memory(bytes) {
  if (bytes === null || bytes === undefined) return "";
  let unit = 0;
  for (; bytes >= 1000 && unit < 4; unit++) bytes /= 1024;
  return `${+bytes.toPrecision(3)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}
const clock = (seconds) => seconds === null ? "" : new Date((data.begin + seconds) * 1000).toLocaleString();
const share = (row) => calls.cpu[row] === null || !calls.took[row] ? null : calls.cpu[row] / (calls.took[row] * calls.cores[row]);
const percent = (value) => value === null ? "" : `${Math.round(value * 100)} %`;
const mark = (row) => `${stateOf(row).mark} ${stateOf(row).word}`;

// ---------------------------------------------------------------- the table: only the rows in sight are in the page

const COLUMNS = [
  {title: "#", number: true, far: true, value: (row) => calls.number[row], shown: (row) => calls.number[row]},
  {title: "Function", name: true, value: (row) => text("name", row), shown: (row) => text("name", row)},
  {title: "State", value: (row) => calls.state[row], shown: mark},
  {title: "Waited", number: true, far: true, value: (row) => calls.waited[row], shown: (row) => duration(calls.waited[row])},
  {title: "Took", number: true, value: (row) => calls.took[row], shown: (row) => duration(calls.took[row])},
  {title: "Cores", number: true, far: true, value: (row) => calls.cores[row], shown: (row) => calls.cores[row]},
  {title: "CPU used", number: true, far: true, value: share, shown: (row) => percent(share(row))},
  {title: "Memory", number: true, far: true, value: (row) => calls.memory[row], shown: (row) => memory(calls.memory[row])},
  {title: "asked", number: true, far: true, value: (row) => calls.memoryAsked[row], shown: (row) => memory(calls.memoryAsked[row])},
  {title: "Where", far: true, name: true, value: place, shown: place},
  {title: "Submitted at", far: true, name: true, value: (row) => text("line", row), shown: (row) => text("line", row)},
];
const HEIGHT = 34, MORE = 20;
let sorted = {column: 0, down: false};
let rows = [];
const searched = [];  // the text of each call in which words are looked for, made at the first search

function searchText(row) {
  searched[row] ??= ["name", "host", "worker", "line", "reason", "error", "message", "key", "job"]
    .map((column) => text(column, row)).concat(stateOf(row).word, "#" + calls.number[row]).join("\n").toLowerCase();
  return searched[row];
}

function select() {
  const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = get("state").value;
  rows = [];
  for (let row = 0; row < total; row++) {
    if (state && stateOf(row).name !== state) continue;
    if (words.length && !words.every((word) => searchText(row).includes(word))) continue;
    rows.push(row);
  }
  const {value, number} = COLUMNS[sorted.column], sign = sorted.down ? -1 : 1;
  const values = new Map(rows.map((row) => [row, value(row)]));
  const compare = number || typeof values.get(rows[0]) === "number" ? (a, b) => a - b : (a, b) => a < b ? -1 : a > b ? 1 : 0;
  rows.sort((first, second) => {
    const a = values.get(first), b = values.get(second);
    if (a === null || b === null) return (a === null) - (b === null);  // what is not known comes last
    return sign * compare(a, b) || first - second;
  });
  get("found").textContent = rows.length === total ? `${total.toLocaleString()} calls` : `${rows.length.toLocaleString()} of ${total.toLocaleString()} calls`;
  get("table").setAttribute("aria-rowcount", rows.length + 1);
  get("rows").scrollTop = 0;
  showRows();
}

function showRows(focused) {
  const box = get("rows"), body = get("table").tBodies[0];
  box.classList.toggle("few", rows.length <= MORE);
  const first = Math.max(0, Math.floor(box.scrollTop / HEIGHT) - MORE);
  const last = Math.min(rows.length, Math.ceil((box.scrollTop + window.innerHeight) / HEIGHT) + MORE);
  body.replaceChildren(space(first), ...rows.slice(first, last).map((row, at) => rowOf(row, first + at)), space(rows.length - last));
  if (focused !== undefined) body.querySelector(`[data-at="${focused}"]`)?.focus();
}

function space(count) {
  const row = make("tr", undefined, {class: "space", "aria-hidden": "true"});
  row.append(make("td", undefined, {colspan: COLUMNS.length}));
  row.firstChild.style.height = `${count * HEIGHT}px`;
  row.hidden = count === 0;
  return row;
}

function rowOf(row, at) {
  const line = make("tr", undefined, {"data-at": at, "data-row": row, "aria-rowindex": at + 2, tabindex: "-1"});
  for (const column of COLUMNS) {
    const shown = column.shown(row);
    const cell = make("td", shown, {class: [column.number && "n", column.name && "name", column.far && "far"].filter(Boolean).join(" ")});
    if (column.name) cell.title = shown;
    if (column.title === "State") cell.style.color = `var(--${stateOf(row).name})`;
    line.append(cell);
  }
  return line;
}

function head() {
  const cells = COLUMNS.map((column, at) => {
    const cell = make("th", undefined, {scope: "col", class: [column.number && "n", column.far && "far"].filter(Boolean).join(" ")});
    const button = make("button", column.title, {type: "button"});
    button.addEventListener("click", () => {
      sorted = {column: at, down: sorted.column === at ? !sorted.down : Boolean(column.number) && at > 0};
      head();
      select();
      get("table").tHead.rows[0].cells[at].firstChild.focus();
    });
    if (sorted.column === at) {
      cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      button.textContent += sorted.down ? " ▾" : " ▴";
    }
    cell.append(button);
    return cell;
  });
  get("table").tHead.rows[0].replaceChildren(...cells);
}

function look(words, state) {
  get("search").value = words;
  get("state").value = state;
  select();
  get("calls").scrollIntoView();
  get("search").focus({preventScroll: true});
}

get("search").addEventListener("input", select);
get("state").addEventListener("change", select);
document.querySelector("form[role=search]").addEventListener("submit", (event) => event.preventDefault());
get("rows").addEventListener("scroll", () => requestAnimationFrame(() => {
  const at = document.activeElement?.dataset?.at;
  showRows(at);
}));
get("rows").addEventListener("click", (event) => {
  const row = event.target.closest("[data-row]");
  if (row) details(Number(row.dataset.row));
});
get("rows").addEventListener("keydown", (event) => {
  const step = {ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity}[event.key];
  const at = document.activeElement.dataset.at;
  if (event.key === "Enter" && at !== undefined) details(rows[at]);
  if (step === undefined || !rows.length || event.target.tagName === "BUTTON") return;
  event.preventDefault();
  const next = Math.min(rows.length - 1, Math.max(0, at === undefined ? 0 : Number(at) + step));
  const box = get("rows"), above = next * HEIGHT;
  if (above < box.scrollTop || above + 3 * HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = above - box.clientHeight / 2;
  showRows(next);
});

// ---------------------------------------------------------------- the details of a call

function details(row) {
  const list = make("dl"), body = get("details-body");
  const add = (name, value) => {
    if (value === "" || value === null || value === undefined) return;
    list.append(make("dt", name), value instanceof Node ? value : make("dd", value));
  };
  const of = (all) => {
    const cell = make("dd");
    for (const other of all.slice(0, 50)) {
      const button = make("button", `${text("name", other)} #${calls.number[other]}`, {type: "button", class: "link"});
      button.addEventListener("click", () => details(other));
      cell.append(button, " ");
    }
    if (all.length > 50) cell.append(`and ${all.length - 50} more`);
    return all.length ? cell : null;
  };
  get("details-title").textContent = `${text("name", row)} #${calls.number[row]}`;
  add("State", mark(row) + (text("reason", row) && `: waits ${text("reason", row)}`));
  add("Error", [text("error", row), text("message", row)].filter(Boolean).join(": "));
  add("Process", [text("exit", row)].filter(Boolean).join());
  add("Submitted", `${clock(calls.submitted[row])} ${text("line", row) && "by " + text("line", row)}`);
  add("Started", clock(began(row)));
  add("Ended", clock(calls.ended[row]));
  add("Waited", duration(calls.waited[row]));
  add("Took", duration(calls.took[row]));
  add("Where", place(row));
  add("Job", text("job", row));
  add("Run", calls.attempt[row] > 1 ? `number ${calls.attempt[row]}` : "");
  add("Asked", text("asked", row));
  add("CPU time", calls.cpu[row] === null ? "" : `${duration(calls.cpu[row])}, ${percent(share(row))} of ${calls.cores[row]} cores`);
  add("Peak memory", memory(calls.memory[row]));
  add("Bytes", calls.bytesIn[row] === null ? "" : `${memory(calls.bytesIn[row])} in, ${memory(calls.bytesOut[row]) || "?"} out`);
  add("GPUs", text("gpus", row));
  add("Key", text("key", row));
  add("Takes results of", of(calls.inputs[row]));
  const number = row;
  add("Result goes to", of(calls.inputs.flatMap((inputs, other) => inputs.includes(number) ? [other] : [])));
  body.replaceChildren(list);
  if (text("traceback", row)) body.append(make("pre", text("traceback", row)));
  const dialog = get("details");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

// ---------------------------------------------------------------- the timeline: a canvas as large as what is in sight

const canvas = get("canvas"), box = get("lanes");
const rowsOfLanes = lanes.map((lane) => lane.calls);
const laneHeight = lanes.length > 60 ? 9 : 18;
const AXIS = 20;
let seen = [0, Math.max(data.end, 1e-3)];  // s from the begin of the run
let chosen = null;  // [lane, place in the lane]
let colours = {};
const gutter = () => box.clientWidth < 600 ? 78 : 150;
const toX = (time) => gutter() + (time - seen[0]) / (seen[1] - seen[0]) * (box.clientWidth - gutter() - 6);

function readColours() {
  const style = getComputedStyle(document.documentElement);
  colours = {};
  for (const name of [...states.map((state) => state.name), "text", "quiet", "line", "ground", "raised"]) colours[name] = style.getPropertyValue(`--${name}`).trim();
}

function draw() {
  const width = box.clientWidth, whole = AXIS + lanes.length * laneHeight + 6;
  const height = Math.min(whole, Math.round(window.innerHeight * 0.6));
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = `${height}px`;
  get("lanes-height").style.height = `${whole - height}px`;
  const paint = canvas.getContext("2d");
  paint.scale(scale, scale);
  paint.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  paint.textBaseline = "middle";
  axis(paint, width, height);
  paint.save();
  paint.beginPath();
  paint.rect(0, AXIS, width, height - AXIS);
  paint.clip();
  const first = Math.floor(box.scrollTop / laneHeight);
  const last = Math.min(lanes.length, Math.ceil((box.scrollTop + height) / laneHeight));
  for (let lane = first; lane < last; lane++) drawLane(paint, lane, AXIS + lane * laneHeight - box.scrollTop, width);
  paint.restore();
}

function axis(paint, width, height) {
  const span = seen[1] - seen[0], most = Math.max(2, Math.floor((width - gutter()) / 110));
  const step = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36000, 86400].flatMap((unit) => [1, 2, 5].map((times) => unit * times)).find((each) => span / each <= most) ?? span;
  paint.lineWidth = 1;
  for (let time = Math.ceil(seen[0] / step) * step; time <= seen[1]; time += step) {
    const x = Math.round(toX(time)) + 0.5;
    paint.strokeStyle = colours.line;
    paint.beginPath();
    paint.moveTo(x, AXIS - 4);
    paint.lineTo(x, height);
    paint.stroke();
    paint.fillStyle = colours.quiet;
    paint.textAlign = x > width - 40 ? "right" : "left";
    paint.fillText(time === 0 ? "0" : duration(time).replace(/ 0 (s|min|h)$/, ""), x + (x > width - 40 ? -3 : 3), 9);
  }
  paint.textAlign = "left";
}

function drawLane(paint, lane, y, width) {
  const {host, label} = lanes[lane];
  const isFirst = lane === 0 || lanes[lane - 1].host !== host;
  if (isFirst) {
    paint.fillStyle = colours.line;
    paint.fillRect(0, y, width, 1);
  }
  if (isFirst || laneHeight > 12) {
    const words = !isFirst ? label : laneHeight > 12 && gutter() > 100 && host ? `${host} · ${label}` : host || label;
    paint.fillStyle = isFirst ? colours.text : colours.quiet;
    paint.fillText(fitted(paint, words, gutter() - 10), 6, y + Math.max(laneHeight / 2, 6));
  }
  const all = rowsOfLanes[lane];
  for (let at = 0; at < all.length; at++) {
    const row = all[at], x = toX(began(row)), end = toX(ended(row));
    if (end < gutter() || x > width) continue;
    const left = Math.max(x, gutter()), wide = Math.max(1, Math.min(end, width) - left - (end - x > 3 ? 1 : 0));
    paint.fillStyle = colours[stateOf(row).name];
    paint.fillRect(left, y + 2, wide, laneHeight - 3);
    if (stateOf(row).name === "failed" && wide > 6) {  // failures are seen without colours, too
      paint.fillStyle = colours.ground;
      paint.fillRect(left + wide / 2 - 1, y + 2, 2, laneHeight - 3);
    }
    if (wide > 60 && laneHeight > 12) {
      paint.fillStyle = colours.ground;
      paint.fillText(fitted(paint, text("name", row), wide - 8), left + 4, y + laneHeight / 2 + 0.5);
    }
    if (chosen && chosen[0] === lane && chosen[1] === at) {
      paint.strokeStyle = colours.text;
      paint.lineWidth = 2;
      paint.strokeRect(left - 1, y + 1, Math.max(wide, 3) + 2, laneHeight - 1);
    }
  }
}

function fitted(paint, words, width) {
  if (paint.measureText(words).width <= width) return words;
  let length = words.length;
  while (length > 1 && paint.measureText(words.slice(0, length) + "…").width > width) length--;
  return words.slice(0, length) + "…";
}

function zoom(factor, at = (seen[0] + seen[1]) / 2) {
  const span = Math.min(data.end || 1, Math.max(1e-3, (seen[1] - seen[0]) * factor));
  const begin = Math.min(Math.max(0, at - (at - seen[0]) * span / (seen[1] - seen[0])), Math.max(0, data.end - span));
  seen = [begin, begin + span];
  draw();
}

function pan(seconds) {
  const span = seen[1] - seen[0], begin = Math.min(Math.max(0, seen[0] + seconds), Math.max(0, data.end - span));
  seen = [begin, begin + span];
  draw();
}

function choose(lane, at) {
  chosen = [lane, at];
  const row = rowsOfLanes[lane][at], margin = (seen[1] - seen[0]) / 10;
  if (ended(row) < seen[0] || began(row) > seen[1]) pan(began(row) - seen[0] - margin);
  const y = lane * laneHeight;
  if (y < box.scrollTop || y + laneHeight + AXIS > box.scrollTop + box.clientHeight) box.scrollTop = y - box.clientHeight / 2;
  get("chosen").textContent = `${text("name", row)} #${calls.number[row]}: ${mark(row)}, ${duration(calls.took[row])}, ${place(row)}`;
  draw();
}

function under(event) {
  const frame = canvas.getBoundingClientRect(), x = event.clientX - frame.left;
  const lane = Math.floor((event.clientY - frame.top - AXIS + box.scrollTop) / laneHeight);
  if (!lanes[lane] || event.clientY - frame.top < AXIS || x < gutter()) return null;
  let best = null, nearest = 4;  // px
  rowsOfLanes[lane].forEach((row, at) => {
    const away = Math.max(toX(began(row)) - x, x - toX(ended(row)), 0);
    if (away < nearest) [best, nearest] = [at, away];
  });
  return best === null ? null : [lane, best];
}

let held = null;
box.addEventListener("pointerdown", (event) => { if (event.target === canvas) held = {x: event.clientX, moved: false}; });
box.addEventListener("pointermove", (event) => {
  if (held && event.buttons) {
    const seconds = (held.x - event.clientX) / (box.clientWidth - gutter()) * (seen[1] - seen[0]);
    if (Math.abs(held.x - event.clientX) > 3 || held.moved) {
      held = {x: event.clientX, moved: true};
      pan(seconds);
    }
  } else {
    const found = under(event);
    canvas.style.cursor = found ? "pointer" : "default";
    if (found) choose(...found);
  }
});
box.addEventListener("pointerup", (event) => {
  const found = held && !held.moved && under(event);
  held = null;
  if (found) {
    choose(...found);
    details(rowsOfLanes[found[0]][found[1]]);
  }
});
box.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.shiftKey) return;  // without them the page scrolls, as everywhere
  event.preventDefault();
  const x = event.clientX - canvas.getBoundingClientRect().left;
  zoom(event.deltaY + event.deltaX > 0 ? 1.25 : 0.8, seen[0] + (x - gutter()) / (box.clientWidth - gutter()) * (seen[1] - seen[0]));
}, {passive: false});
box.addEventListener("scroll", () => requestAnimationFrame(draw));
box.addEventListener("keydown", (event) => {
  const act = {
    ArrowRight: () => chosen[1] + 1 < rowsOfLanes[chosen[0]].length && choose(chosen[0], chosen[1] + 1),
    ArrowLeft: () => chosen[1] > 0 && choose(chosen[0], chosen[1] - 1),
    ArrowDown: () => chosen[0] + 1 < lanes.length && beside(1),
    ArrowUp: () => chosen[0] > 0 && beside(-1),
    Enter: () => details(rowsOfLanes[chosen[0]][chosen[1]]),
    "+": () => zoom(0.5, middle()), "=": () => zoom(0.5, middle()), "-": () => zoom(2, middle()), "0": () => zoom(Infinity),
  }[event.key];
  if (!act || !lanes.length || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (chosen === null) choose(0, 0);
  else act();
});
const middle = () => {
  const row = rowsOfLanes[chosen[0]][chosen[1]];
  return (began(row) + ended(row)) / 2;
};
function beside(step) {
  const wanted = began(rowsOfLanes[chosen[0]][chosen[1]]), lane = chosen[0] + step;
  let best = 0;
  rowsOfLanes[lane].forEach((row, at) => {
    if (Math.abs(began(row) - wanted) < Math.abs(began(rowsOfLanes[lane][best]) - wanted)) best = at;
  });
  choose(lane, best);
}
get("zoom-in").addEventListener("click", () => zoom(0.5));
get("zoom-out").addEventListener("click", () => zoom(2));
get("zoom-all").addEventListener("click", () => zoom(Infinity));

// ---------------------------------------------------------------- what leads to the table; the begin

for (const node of document.querySelectorAll(".node")) {
  node.setAttribute("tabindex", "0");
  node.setAttribute("role", "button");
}
function follow(event) {
  const target = event.target.closest("[data-function],[data-call],[data-look]");
  if (!target || (event.type === "keydown" && (event.key !== "Enter" || target.tagName === "BUTTON"))) return;
  const {call, function: name, look: state} = target.dataset;
  if (call !== undefined) details(Number(call));
  else look(name ?? "", state ?? "");
}
document.addEventListener("click", follow);
document.addEventListener("keydown", follow);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
window.addEventListener("resize", () => { draw(); showRows(); });

readColours();
head();
select();
draw();
})();
