// Draws the charts and tables of the page from the data in it. Nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const code = JSON.parse(document.getElementById("tables-code").textContent);
const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
const { default: DataTable } = await import(address);
URL.revokeObjectURL(address);

const byId = (id) => document.getElementById(id);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
};
const distinct = (values) => [...new Set(values)];
const dark = matchMedia("(prefers-color-scheme: dark)");
const short = (value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value);
const text = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(short(value)));

// Runs: a column is a list, or [distinct values, indices].
const runs = Object.fromEntries(
  Object.entries(data.runs.columns).map(([name, column]) => [
    name,
    Array.isArray(column[0]) && Array.isArray(column[1]) && column.length === 2 ? column[1].map((index) => column[0][index]) : column,
  ]),
);
const ofRun = (name, run) => runs[name]?.[run] ?? data.runs.common[name] ?? null;
const runOf = new Map((runs.run_id ?? []).map((id, run) => [id, run]));
const entryOf = new Map(data.entries.flatMap((entry) => entry.runs.map((run) => [run, entry])));
const isMeasured = (name) => name.includes("/");

const HEADLINE = "";

// Charts ---------------------------------------------------------------------------------------------------------
let picked = null;
const drawn = new Map(); // the element of a chart -> its Vega view

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { labelColor: colour("--text"), titleColor: colour("--text"), gridColor: colour("--grid"), domainColor: colour("--line"), tickColor: colour("--line"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 };
  return { background: null, font: "system-ui, sans-serif", axis, legend: axis, title: { color: colour("--text"), fontSize: 12, fontWeight: 500, anchor: "start" }, view: { stroke: null } };
}

const lineOf = (row) => row.module ?? row.bar ?? row.method;
const isUsed = ({ encoding, transform }, rows) =>
  Object.values(encoding ?? {}).every(({ field }) => !field?.endsWith("_low") || rows.some((row) => typeof row[field] === "number")) &&
  (!transform?.some(({ filter }) => String(filter).includes("datum.front")) || rows.some((row) => row.front?.length));
const metricOf = (rows) => distinct(rows.map((row) => row.metric).filter(Boolean)).join(", ");

async function draw(place) {
  const { kind, rows, label, onClick } = place.chart;
  const spec = structuredClone(data.charts[kind]);
  spec.datasets = { rows };
  spec.description = label;
  spec.layer = spec.layer?.filter((layer) => isUsed(layer, rows));
  if (spec.height.step) spec.height = spec.height.step * distinct(rows.map(lineOf)).length;
  if (kind === "difference") for (const { encoding } of spec.layer) if (encoding.y) encoding.y.sort = rows.map((row) => row.method);
  const title = metricOf(rows);
  if (title && kind !== "difference") for (const layer of spec.layer ?? [spec]) if (layer.encoding?.y) layer.encoding.y.title = title;
  const { view } = await globalThis.vegaEmbed(place, spec, { actions: { export: true, source: false, compiled: false, editor: false }, renderer: "svg", ast: true, config: theme(), downloadFileName: label.replace(/\W+/g, "_") });
  place.querySelector("summary")?.setAttribute("aria-label", "Save this chart");
  drawn.get(place)?.finalize();
  drawn.set(place, view);
  view.signal("picked", picked).runAsync();
  if (onClick) view.addEventListener("click", (_, item) => item?.datum && onClick(item.datum));
}

const seen = new IntersectionObserver((places) => {
  for (const { isIntersecting, target } of places) {
    if (isIntersecting) {
      seen.unobserve(target);
      draw(target);
    }
  }
}, { rootMargin: "300px" });

function fill(section, kind, panels, options = {}) {
  const host = document.querySelector(`#${section} .charts`);
  for (const place of host.querySelectorAll(".drawing")) {
    seen.unobserve(place);
    drawn.get(place)?.finalize();
    drawn.delete(place);
  }
  host.replaceChildren();
  byId(section).hidden = panels.length === 0;
  for (const [name, rows, more] of panels) {
    const place = element("div", { className: "drawing" });
    place.chart = { kind, rows, label: `${byId(section).querySelector("h2").textContent}: ${name}`, ...options };
    const isEmpty = kind === "difference" && !rows.some((row) => typeof row.difference === "number");
    const metric = metricOf(rows);
    host.append(element("figure", {}, element("figcaption", { textContent: metric ? `${name} (${metric})` : name }), isEmpty ? list(rows.map((row) => [row.method, row.verdict])) : place, more ?? null));
    if (!isEmpty) seen.observe(place);
  }
}

function panelsOf(rows, key) {
  return distinct(rows.map((row) => row[key])).map((name) => [name, rows.filter((row) => row[key] === name)]);
}

function fillDifferences() {
  const order = (entry) => entry.score ?? -Infinity;
  const lost = (entry) => ["collapsed", "failed", "missing"].filter((name) => entry[name]).map((name) => `${entry[name]} ${name}`).join(", ");
  const verdict = (entry) => (entry.n ? entry.verdict ?? "not compared" : lost(entry));
  const panels = panelsOf(data.entries.filter((entry) => entry.runs.length), "panel")
    .filter(([, rows]) => rows.length > 1)
    .map(([name, rows]) => [name, rows.toSorted((a, b) => order(b) - order(a)).map((row) => ({ ...row, verdict: verdict(row) }))]);
  fill("differences", "difference", panels, { onClick: showRunsOf });
}

function fillCosts() {
  const cost = byId("cost").value;
  const placed = data.entries.filter((entry) => entry.score !== null && entry[cost] > 0);
  fill("costs", `cost ${cost}`, cost ? panelsOf(placed, "group").filter(([, rows]) => rows.length > 1) : [], { onClick: showRunsOf });
}

function fillRanks() {
  const ranked = data.entries.filter((entry) => entry.score !== null && typeof entry.rank === "number").toSorted((a, b) => a.rank - b.rank);
  fill("by-rank", "rank", panelsOf(ranked, "group").filter(([, rows]) => distinct(rows.map((row) => row.rank)).length > 1), { onClick: showRunsOf });
}

function fillCurves() {
  const metric = byId("metric").value;
  const rows = [];
  for (let run = 0; run < data.runs.count; run++) {
    const name = metric === HEADLINE ? ofRun("headline", run) : metric;
    const curve = data.curves[name]?.[run];
    const entry = entryOf.get(run);
    if (!curve || !entry) continue;
    for (const [index, epoch] of curve[0].entries()) {
      if (typeof curve[1][index] === "number") rows.push({ method: entry.method, group: entry.group, rank: entry.rank, run: runs.run_id[run], seed: ofRun("seed", run), epoch, value: curve[1][index], metric: name });
    }
  }
  fill("curves", "curve", panelsOf(rows, "group"), { onClick: (row) => row.run && open(`run=${row.run}`) });
}

function fillFactors() {
  const quantity = byId("quantity").value;
  const name = byId("quantity").selectedOptions[0].textContent;
  const rows = [];
  for (const [run, of] of (data.factors ?? []).entries()) {
    const entry = entryOf.get(run);
    if (!of || !entry) continue;
    for (const factor of ["B", "A"]) {
      for (const [index, step] of of[0].entries()) {
        const value = of[1][`${quantity}_${factor}`][index];
        if (value > 0) rows.push({ method: entry.method, group: entry.group, factor, step, value, metric: name });
      }
    }
  }
  fill("factors", "factor", panelsOf(rows, "group"));
}

function fillTasks() {
  fill("tasks", "diagram", data.diagrams.map(({ title, rows, text: sentences, iqm }) => {
    const list = element("ul", {}, ...sentences.map((sentence) => element("li", { textContent: sentence })));
    for (const [name, [center, low, high]] of Object.entries(iqm)) list.append(element("li", { textContent: `${name}: interquartile mean ${text(center)} [${text(low)}, ${text(high)}]` }));
    return [title || "all tasks", rows, list];
  }));
}

function options(select, names) {
  select.replaceChildren(...Object.entries(names).map(([value, label]) => element("option", { value, textContent: label })));
}

function mark(look, size = 14) {
  const [colour, shape] = look;
  const path = { circle: "M2 7a5 5 0 1 0 10 0a5 5 0 1 0-10 0", square: "M3 3h8v8H3z", diamond: "M7 1l5 6-5 6-5-6z", "triangle-up": "M7 2l5 9H2z", "triangle-down": "M7 12L2 3h10z", cross: "M5 2h4v3h3v4H9v3H5V9H2V5h3z" }[shape];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", size);
  svg.setAttribute("height", size);
  svg.setAttribute("aria-hidden", "true");
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "path");
  drawing.setAttribute("d", path);
  drawing.setAttribute("fill", colour);
  svg.append(drawing);
  return svg;
}

function fillLegend() {
  for (const [number, method] of data.methods.entries()) {
    const button = element("button", { type: "button", title: method }, mark(data.looks[number]), element("span", { textContent: method }));
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      picked = picked === method ? null : method;
      for (const other of byId("legend").children) other.setAttribute("aria-pressed", String(other === button && picked !== null));
      for (const view of drawn.values()) view.signal("picked", picked).runAsync();
    });
    byId("legend").append(button);
  }
}

// Tables ---------------------------------------------------------------------------------------------------------
const shown = { entries: null, runs: null };

function table(id, columns, rows, more = {}) {
  const plain = DataTable.render.text().display;
  const render = (value, type) => (type === "display" ? plain(text(value)) : value);
  byId(id).append(element("thead", {}, element("tr", {}, ...columns.map(({ title }) => element("th", { scope: "col", textContent: title })))));
  return new DataTable(`#${id}`, {
    columns: columns.map((column) => ({ render, defaultContent: "", ...column, title: undefined })),
    data: rows,
    order: [],
    pageLength: 25,
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    deferRender: true,
    autoWidth: false,
    columnControl: ["order", ["search", "searchList"]],
    ordering: { indicators: false, handler: false },
    language: { emptyTable: "no line" },
    ...more,
  });
}

const interval = (name) => (value, type, entry) => (type === "display" && typeof value === "number" ? `[${text(value)}, ${text(entry[name.replace("_low", "_high")])}]` : value);
const button = (attribute, value, label) => `<button type="button" data-${attribute}="${value}">${label}</button>`;

function fillEntries() {
  const has = (name) => data.entries.some((entry) => entry[name] !== null && entry[name] !== undefined && entry[name] !== 0);
  const axes = data.axes.map((name, index) => ({ title: name.replace("adapter.", ""), data: (entry) => entry.keys[index] ?? "-" }));
  const numbers = [
    ...(distinct(data.entries.map((entry) => entry.metric)).length > 1 ? [["metric", "metric"]] : []),
    ["score", data.center], ["spread", "spread"], ["n", "n"], ["collapsed", "collapsed"], ["failed", "failed"], ["missing", "missing"], ["score_low", "95 % interval"],
    ["difference", `difference to ${data.reference}`], ["difference_low", "its 95 % interval"], ["p", "p (max-T)"], ["verdict", "verdict"],
    ["published", "published"], ["published_note", "measured against published"], ...Object.entries(data.costs),
  ].filter(([name]) => ["score", "n"].includes(name) || has(name)).map(([name, title]) => ({ title, data: name, ...(name.endsWith("_low") ? { render: interval(name) } : {}) }));
  const rows = { title: "runs", data: (entry) => entry.runs.length, columnControl: [], render: (value, type, entry) => (type === "display" && value ? button("entry", data.entries.indexOf(entry), `${value} run${value > 1 ? "s" : ""}`) : value) };
  shown.entries = table("entries", [rows, ...axes, ...numbers], data.entries, { createdRow: (row, entry) => row.classList.toggle("best", entry.bold) });
  byId("entries").addEventListener("click", ({ target }) => target.dataset.entry && showRunsOf(data.entries[Number(target.dataset.entry)]));
}

let filter = null; // the runs to show; null: all
function fillRuns() {
  const first = ["status", "seed", "score", ...data.axes.filter((name) => name in runs)];
  const others = Object.keys(runs).filter((name) => !["run_id", ...first].includes(name));
  const mark = { title: "mark", data: null, orderable: false, columnControl: [], render: (_, type, run) => (type === "display" ? `<input type="checkbox" data-mark="${run}" aria-label="mark run ${run + 1}"${marked.includes(run) ? " checked" : ""}>` : "") };
  const id = { title: "run", data: (run) => runs.run_id[run], render: (value, type, run) => (type === "display" && value ? `<a href="#run=${encodeURIComponent(value)}">${DataTable.render.text().display(value)}</a>` : value) };
  const columns = distinct([...first, ...others]).filter((name) => name in runs).map((name) => ({ title: name, data: (run) => runs[name][run] }));
  DataTable.ext.search.push((settings, _, __, run) => settings.nTable.id !== "run-table" || filter === null || filter.has(run));
  shown.runs = table("run-table", [mark, id, ...columns], [...Array(data.runs.count).keys()]);
  byId("run-table").addEventListener("change", ({ target }) => target.dataset.mark && toggle(Number(target.dataset.mark)));
  byId("compare").addEventListener("click", () => open(`diff=${marked.map((run) => runs.run_id[run]).join(",")}`));
}

const marked = [];
function toggle(run) {
  const index = marked.indexOf(run);
  if (index >= 0) marked.splice(index, 1);
  else marked.push(run);
  byId("compare").disabled = marked.length !== 2;
}

function showRunsOf(entry) {
  const all = entry?.runs ?? data.entries.find((each) => each.method === entry.method)?.runs;
  filter = new Set(all);
  shown.runs.draw();
  const every = element("button", { type: "button", textContent: "Show all runs" });
  every.addEventListener("click", () => {
    filter = null;
    byId("filtered").replaceChildren();
    shown.runs.draw();
  });
  byId("filtered").replaceChildren(`Runs of ${entry.method}, ${entry.panel}. `, every);
  byId("runs").scrollIntoView();
}

// One run, and the difference of two --------------------------------------------------------------------------------
function list(pairs) {
  return element("dl", {}, ...pairs.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: text(value) })]));
}

function part(title, body, isOpen = false) {
  return element("details", { open: isOpen }, element("summary", { textContent: title }), body);
}

function valuesOf(run) {
  return { ...data.runs.common, ...Object.fromEntries(Object.keys(runs).map((name) => [name, runs[name][run]]).filter(([, value]) => value !== null)) };
}

function runBody(run) {
  const values = valuesOf(run);
  const names = Object.keys(values).sort();
  const measured = names.filter((name) => /^(best|last|parameters|cost)\//.test(name));
  const provenance = names.filter((name) => isMeasured(name) && !measured.includes(name));
  const config = names.filter((name) => !isMeasured(name) && !["run_id", "status", "reason", "score", "headline", "started", "finished"].includes(name));
  const body = [list([["status", values.status], ["reason", values.reason], [values.headline ?? "score", values.score], ["seed", values.seed], ["started", values.started], ["ended", values.finished]].filter(([, value]) => value !== undefined))];
  for (const [metric, curves] of Object.entries(data.curves)) {
    if (!curves[run]) continue;
    const place = element("div", { className: "drawing" });
    const [epochs, numbers] = curves[run];
    const rows = epochs.map((epoch, index) => ({ method: entryOf.get(run)?.method, run: values.run_id, seed: values.seed, epoch, value: numbers[index], metric })).filter((row) => typeof row.value === "number");
    place.chart = { kind: "curve", rows, label: `${metric} of run ${values.run_id}` };
    body.push(part(`${metric} by epoch`, element("div", { className: "charts" }, element("figure", {}, place)), metric === values.headline));
    seen.observe(place);
  }
  body.push(part("Measured", list(measured.map((name) => [name, values[name]])), true), part("Config", list(config.map((name) => [name, values[name]]))));
  const ranks = data.ranks[0][data.ranks[1][run]];
  if (ranks) body.push(part("Ranks", list(Object.entries(ranks))));
  const machine = data.machines[0][data.machines[1][run]];
  body.push(part("Provenance", list([...provenance.map((name) => [name, values[name]]), ...Object.entries(machine ?? {})])));
  if (data.runs_folder !== null) {
    const folder = `${data.runs_folder}/${values.run_id}`;
    body.push(element("p", {}, "Files: ", element("code", { textContent: folder }), " (", element("a", { href: `${folder}/record.json`, textContent: "record" }), ")"));
  }
  return body;
}

function diffBody(first, second) {
  const [one, two] = [valuesOf(first), valuesOf(second)];
  const names = distinct([...Object.keys(one), ...Object.keys(two)]).filter((name) => name !== "run_id" && text(one[name]) !== text(two[name]));
  const lines = (chosen) => {
    const head = element("tr", {}, ...["key", one.run_id, two.run_id].map((title) => element("th", { scope: "col", textContent: title })));
    const body = chosen.map((name) => element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { textContent: text(one[name]) }), element("td", { textContent: text(two[name]) })));
    return element("table", { className: "plain" }, element("thead", {}, head), element("tbody", {}, ...body));
  };
  const measured = names.filter((name) => isMeasured(name) || ["score", "status", "reason", "started", "finished"].includes(name));
  const config = names.filter((name) => !measured.includes(name));
  return [
    element("h3", { textContent: config.length ? "Config" : "The configs are equal." }), ...(config.length ? [lines(config)] : []),
    element("h3", { textContent: "Measured" }), lines(measured),
    element("p", {}, "More: ", element("code", { textContent: `xlora-bench diff ${one.run_id} ${two.run_id}` })),
  ];
}

function open(fragment) {
  location.hash = fragment;
}

function show() {
  const [kind, value] = decodeURIComponent(location.hash.slice(1)).split("=");
  const chosen = (value ?? "").split(",").map((id) => runOf.get(id));
  const dialog = byId("run");
  if ((kind === "run" || kind === "diff") && chosen.length === (kind === "run" ? 1 : 2) && chosen.every((run) => run !== undefined)) {
    byId("run-title").textContent = kind === "run" ? `Run ${value}` : "Difference of two runs";
    byId("run-body").replaceChildren(...(kind === "run" ? runBody(chosen[0]) : diffBody(...chosen)));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  } else if (kind === "run" || kind === "diff") {
    byId("run-title").textContent = "No such run";
    byId("run-body").replaceChildren(element("p", { textContent: `This page has no run ${value}.` }));
    if (!dialog.open) dialog.showModal();
  } else if (dialog.open) dialog.close();
}

// ---------------------------------------------------------------------------------------------------------------
byId("run").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
for (const place of document.querySelectorAll(".reference")) place.textContent = data.reference;
document.querySelector(".center").textContent = data.center;
byId("common").replaceWith(list(Object.entries(data.runs.common).sort()));
byId("notes").replaceChildren(...data.notes.map((note) => element("li", { textContent: note })));
fillLegend();
fillEntries();
fillRuns();
fillDifferences();
options(byId("cost"), data.costs);
byId("cost").addEventListener("change", fillCosts);
fillCosts();
fillRanks();
fillTasks();
const metrics = Object.keys(data.curves);
options(byId("metric"), { [HEADLINE]: "the score of the task", ...Object.fromEntries(metrics.map((name) => [name, name])) });
byId("metric").addEventListener("change", fillCurves);
if (metrics.length) fillCurves();
fill("layers", "layers", panelsOf(data.layers, "panel"));
byId("quantity").addEventListener("change", fillFactors);
fillFactors();
byId("nav").replaceChildren(...[...document.querySelectorAll("section:not([hidden])")].map(({ id }) => element("a", { href: `#${id}`, textContent: id === "answer" ? "Answer" : byId(id).querySelector("h2").textContent })));
const darkMode = () => {
  document.documentElement.classList.toggle("dark", dark.matches); // DataTables looks for this class
  for (const place of drawn.keys()) draw(place);
};
dark.addEventListener("change", darkMode);
darkMode();
addEventListener("beforeprint", () => {
  for (const place of document.querySelectorAll("main .drawing")) if (!drawn.has(place)) draw(place);
  for (const id of ["entries", "runs"]) shown[id].page.len(id === "entries" ? -1 : 100).draw();
});
addEventListener("hashchange", show);
show();
document.documentElement.dataset.ready = "true";
