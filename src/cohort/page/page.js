"use strict";

// What the page shows comes out of one JSON element; nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const PLANES = ["axial", "coronal", "sagittal"];

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
const fixed = (digits) => (value) =>
  value === null || value === undefined ? "" : value.toFixed(digits);
const percent = (value) =>
  value === null || value === undefined ? "" : `${(100 * value).toFixed(1)} %`;

// ---- Colours

const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");
function applyTheme() {
  const chosen = byId("theme").value;
  const dark = chosen === "dark" || (chosen === "auto" && systemIsDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  charts.forEach(recolour);
}
const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- Decisions, kept in this browser under the names of the scans

const decisions = new Map();
// A name of its own for every cohort: FNV-1a over the names of its scans.
const STORE = (() => {
  let hash = 0x811c9dc5;
  for (const letter of data.scans.map((scan) => scan.id).sort().join(" ")) {
    hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  }
  return `voxmask:${hash >>> 0}`;
})();
function loadDecisions() {
  try {
    const known = new Set(data.scans.map((scan) => scan.id));
    for (const [id, decision] of JSON.parse(localStorage.getItem(STORE) ?? "[]")) {
      if (known.has(id)) decisions.set(id, decision);
    }
  } catch {
    // A browser that keeps nothing for files: decisions last as long as the page.
  }
}
function decide(scan, decision) {
  if (decision) decisions.set(scan.id, decision);
  else decisions.delete(scan.id);
  try {
    localStorage.setItem(STORE, JSON.stringify([...decisions]));
  } catch {
    // As above.
  }
  table.updateData([{ id: scan.id, decision: decision ?? "" }]);
  showCount();
}
function decisionsAsCsv() {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const lines = [["id", "decision", "score", "flags"].join(",")];
  for (const scan of data.scans) {
    const flags = scan.review.map((flag) => flag.name).join(" ");
    lines.push([scan.id, decisions.get(scan.id) ?? "", scan.score, flags].map(quoted).join(","));
  }
  return `${lines.join("\n")}\n`;
}
function saveDecisions() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([decisionsAsCsv()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- Pictures: a sheet of slices for each scan, decoded when it is first shown

const sheets = new Map();
function sheet(id) {
  if (!sheets.has(id)) {
    const text = byId(`picture-${id}`)?.textContent;
    sheets.set(id, text ? `data:image/jpeg;base64,${text}` : null);
  }
  return sheets.get(id);
}
function thumbnail(cell) {
  const box = element("div", undefined, "thumb");
  const source = sheet(cell.getData().id);
  const { columns } = data.sheet;
  if (source) {
    const side = 68;
    const middle = Math.floor((columns - 1) / 2);
    box.style.backgroundImage = `url(${source})`;
    box.style.backgroundSize = `${side * columns}px ${side * PLANES.length}px`;
    box.style.backgroundPosition = `-${side * middle}px 0`;
  }
  return box;
}

// ---- Totals

function showTotals() {
  const t = data.totals;
  byId("version").textContent = `voxmask ${data.version}`;
  const rate = (data.training_voxels_per_s / 1e6).toLocaleString("en");
  const entries = [
    ["scans", t.scans],
    ["done", t.done],
    ["to be looked at", t.flagged],
    ["altered scans found", t.altered],
    ["left out", t.left_out],
    ["voxels", t.voxels.toLocaleString("en")],
    ["voxels saved", percent(t.saved_share)],
    [`hours saved in each pass, at ${rate} million voxels a second`, t.saved_hours_per_pass.toFixed(2)],
  ];
  if (t.copies) entries.push(["copies of others", t.copies]);
  for (const [name, value] of entries) {
    const box = element("div");
    box.append(element("dd", value), element("dt", name));
    byId("totals").append(box);
  }
  const left = byId("left-out");
  left.hidden = data.left_out.length === 0;
  left.querySelector("summary").textContent = `${data.left_out.length} left out: could not be used`;
  for (const scan of data.left_out) {
    left.querySelector("ul").append(element("li", `${scan.id}: ${scan.why} (${scan.exit_code})`));
  }
}

// ---- Charts

const charts = [];
function recolour(chart) {
  const [ink, line] = [colour("--ink"), colour("--line")];
  for (const axis of Object.values(chart.options.scales)) {
    axis.ticks.color = ink;
    axis.title.color = ink;
    axis.grid.color = line;
  }
  chart.options.plugins.title.color = ink;
  if (chart.options.plugins.legend.labels) chart.options.plugins.legend.labels.color = ink;
  chart.update("none");
}
function draw(parent, settings) {
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", settings.options.plugins.title.text);
  parent.append(canvas);
  const chart = new Chart(canvas, settings);
  charts.push(chart);
  recolour(chart);
}
function histogram(title, unit, values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (known.length === 0) return;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const bins = 16;
  const width = (high - low) / bins || 1;
  const counts = new Array(bins).fill(0);
  for (const value of known) counts[Math.min(bins - 1, Math.floor((value - low) / width))] += 1;
  const digits = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(width))));
  const labels = counts.map((_, n) => (low + (n + 0.5) * width).toFixed(digits));
  const box = element("div", undefined, "chart");
  byId("charts").append(box);
  draw(box, {
    type: "bar",
    data: { labels, datasets: [{ data: counts, backgroundColor: () => colour("--bar"), categoryPercentage: 1, barPercentage: 0.95 }] },
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: { legend: { display: false }, title: { display: true, text: title } },
      scales: {
        x: { title: { display: true, text: unit }, grid: { display: false }, ticks: { maxTicksLimit: 7 } },
        y: { title: { display: true, text: "scans" }, grid: {}, ticks: { precision: 0 } },
      },
    },
  });
}
function showCharts() {
  const of = (key) => data.scans.map((scan) => scan[key]);
  histogram("Foreground", "share of the scan", of("share"));
  histogram("Score: above 0, look at it", "distance beyond a threshold", of("score"));
  histogram("Volume of the foreground", "ml", of("volume_ml"));
  histogram("How unsure the network is at the edge", "bit", of("edge_entropy"));
}
function showSites() {
  if (data.sites.length === 0) return;
  byId("sites").hidden = false;
  const pair = (cell) => (cell.getValue() ?? []).map((value) => value.toFixed(cell.getField() === "dice_interval" ? 4 : 1)).join(" to ");
  new Tabulator("#site-table", {
    data: data.sites,
    layout: "fitDataFill",
    columns: [
      { title: "site", field: "site" },
      { title: "scans", field: "scans", hozAlign: "right" },
      { title: "Dice: mean", field: "dice_mean", formatter: (c) => fixed(4)(c.getValue()) },
      { title: "worst", field: "dice_worst", formatter: (c) => fixed(4)(c.getValue()) },
      { title: "95 % interval of the mean", field: "dice_interval", formatter: pair },
      { title: "on the card", field: "card_dice_mean", formatter: (c) => fixed(4)(c.getValue()) + (c.getData().below_card ? " ▼ worse here" : "") },
      { title: "surface Dice", field: "nsd_mean", formatter: (c) => fixed(3)(c.getValue()) },
      { title: "HD95: worst [mm]", field: "hd95_worst_mm", formatter: (c) => fixed(1)(c.getValue()) },
      { title: "volume: bias [ml]", field: "volume_bias_ml", formatter: (c) => fixed(1)(c.getValue()) },
      { title: "limits of agreement [ml]", field: "volume_limits_ml", formatter: pair },
    ],
  });
  const shapes = ["circle", "rect", "triangle", "rectRot", "star", "cross"];
  const palette = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2"];
  const names = data.sites.map((site) => site.site).filter((name) => name !== "all");
  const sets = names.map((name, n) => ({
    label: name,
    pointStyle: shapes[n % shapes.length],
    radius: 5,
    backgroundColor: palette[n % palette.length],
    borderColor: palette[n % palette.length],
    data: data.agreements
      .filter((a) => (a.site ?? "unnamed") === name)
      .map((a) => ({ x: a.mean, y: a.difference })),
  }));
  draw(byId("site-chart"), {
    type: "scatter",
    data: { datasets: sets },
    options: {
      animation: false,
      maintainAspectRatio: false,
      plugins: {
        legend: { labels: { usePointStyle: true } },
        title: { display: true, text: "Volumes (Bland–Altman): mask less reference" },
      },
      scales: {
        x: { title: { display: true, text: "mean of both [ml]" }, grid: {}, ticks: {} },
        y: { title: { display: true, text: "difference [ml]" }, grid: {}, ticks: {} },
      },
    },
  });
}

// ---- Table

function flagsCell(cell) {
  const scan = cell.getData();
  const box = element("div", scan.review.map((flag) => flag.name).join(", "), "flags");
  const notes = scan.notes.map((flag) => flag.name).join(", ");
  if (notes) box.append(element("div", notes, "notes"));
  return box;
}
function decisionCell(cell) {
  const decision = cell.getValue();
  return decision ? element("span", decision, decision) : "";
}
const value = (render) => (cell) => render(cell.getValue());
const atLeast = { headerFilter: "number", headerFilterFunc: ">=", headerFilterPlaceholder: "at least" };
loadDecisions();
data.scans.forEach((scan) => {
  scan.decision = decisions.get(scan.id) ?? "";
});
const table = new Tabulator("#table", {
  data: data.scans,
  index: "id",
  height: "72vh",
  rowHeight: 78,
  layout: "fitDataFill",
  placeholder: "no such scan",
  columns: [
    { title: "", field: "picture", formatter: thumbnail, headerSort: false, width: 86 },
    { title: "scan", field: "id", headerFilter: "input", minWidth: 150 },
    { title: "decision", field: "decision", formatter: decisionCell, minWidth: 100 },
    { title: "score", field: "score", sorter: "number", formatter: value(fixed(2)), hozAlign: "right", ...atLeast },
    { title: "flags", field: "review", formatter: flagsCell, minWidth: 210, sorter: (a, b) => a.length - b.length },
    { title: "kind", field: "modality", headerFilter: "list", headerFilterParams: { valuesLookup: true, clearable: true } },
    { title: "site", field: "site", headerFilter: "input", visible: data.scans.some((scan) => scan.site) },
    { title: "foreground", field: "share", sorter: "number", formatter: value(percent), hozAlign: "right" },
    { title: "saved", field: "saved", sorter: "number", formatter: value(percent), hozAlign: "right" },
    { title: "volume [ml]", field: "volume_ml", sorter: "number", formatter: value(fixed(0)), hozAlign: "right" },
    { title: "altered", field: "altered", formatter: (c) => (c.getValue() ? "● altered" : "–"), headerFilter: "tickCross", headerFilterParams: { tristate: true }, headerFilterEmptyCheck: (v) => v === null },
    { title: "area [ml]", field: "area_ml", sorter: "number", formatter: value(fixed(0)), hozAlign: "right" },
    { title: "edge entropy", field: "edge_entropy", sorter: "number", formatter: value(fixed(3)), hozAlign: "right" },
    { title: "expected Dice", field: "expected_dice", sorter: "number", formatter: value(fixed(4)), hozAlign: "right" },
    { title: "Dice", field: "dice", sorter: "number", formatter: value(fixed(4)), hozAlign: "right", visible: data.scans.some((scan) => scan.dice !== null) },
  ],
});
function matches(scan) {
  const wanted = byId("search").value.trim().toLowerCase();
  const text = [scan.id, scan.site, scan.region, ...scan.review.map((f) => f.name), ...scan.notes.map((f) => f.name)];
  return (
    (!wanted || text.some((part) => part?.toLowerCase().includes(wanted))) &&
    (!byId("only-flagged").checked || scan.review.length > 0) &&
    (!byId("only-open").checked || !decisions.has(scan.id))
  );
}
function showCount() {
  const shown = table.getDataCount("active");
  byId("count").textContent = `${shown} of ${data.scans.length} scans, ${decisions.size} decided`;
}
table.on("tableBuilt", showCount);
table.on("dataFiltered", (_, rows) => {
  byId("count").textContent = `${rows.length} of ${data.scans.length} scans, ${decisions.size} decided`;
});
table.on("rowClick", (_, row) => openViewer(row.getData()));
for (const id of ["search", "only-flagged", "only-open"]) {
  byId(id).addEventListener("input", () => table.setFilter(matches));
}
byId("save").addEventListener("click", saveDecisions);

// ---- One scan, large

let shown = null;
let plane = 0;
const image = new Image();
image.addEventListener("load", paint);
function paint() {
  const { tile, columns } = data.sheet;
  const canvas = byId("canvas");
  const pen = canvas.getContext("2d");
  const slice = Number(byId("slice").value);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (image.naturalWidth) {
    pen.drawImage(image, slice * tile, plane * tile, tile, tile, 0, 0, canvas.width, canvas.height);
  }
  byId("slice-number").textContent = `${slice + 1} of ${columns}`;
  document.querySelectorAll("#planes button").forEach((button) => {
    button.setAttribute("aria-pressed", String(Number(button.dataset.plane) === plane));
  });
}
function openViewer(scan) {
  shown = data.scans.find((other) => other.id === scan.id);
  byId("viewer-id").textContent = shown.id;
  const decision = byId("viewer-decision");
  decision.textContent = decisions.get(shown.id) ?? "";
  decision.className = decision.textContent;
  const reasons = byId("reasons");
  reasons.replaceChildren(
    ...shown.review.map((flag) => element("li", flag.reason)),
    ...shown.notes.map((flag) => element("li", flag.reason, "note")),
    ...shown.remarks.map((remark) => element("li", `the header ${remark}`, "note")),
  );
  if (reasons.children.length === 0) reasons.append(element("li", "nothing stands out"));
  const facts = [
    ["kind", [shown.modality, shown.region, shown.site].filter(Boolean).join(", ")],
    ["voxels", shown.shape],
    ["spacing [mm]", shown.spacing],
    ["foreground", `${percent(shown.share)}, ${fixed(0)(shown.volume_ml)} ml`],
    ["altered", shown.altered ? `${fixed(0)(shown.area_ml)} ml` : "no"],
    ["probability of that", percent(shown.altered_probability)],
    ["score", fixed(2)(shown.score)],
    ["edge sharpness", fixed(3)(shown.edge_sharpness)],
    ["network's own mask: Dice", fixed(3)(shown.network_agreement)],
    ["reference: Dice", fixed(4)(shown.dice)],
  ].filter(([, text]) => text !== "");
  byId("facts").replaceChildren(...facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  const source = sheet(shown.id);
  if (source) image.src = source;
  else image.removeAttribute("src");
  if (!byId("viewer").open) byId("viewer").showModal();
  paint();
}
function step(by) {
  const rows = table.getData("active");
  const at = rows.findIndex((row) => row.id === shown.id);
  const next = rows[at + by];
  if (next) openViewer(next);
}
function judge(decision) {
  decide(shown, decision);
  openViewer(shown);
  if (decision) step(1);
}
function turnTo(chosen) {
  plane = chosen;
  paint();
}
function leaf(by) {
  const slider = byId("slice");
  slider.value = Math.max(0, Math.min(data.sheet.columns - 1, Number(slider.value) + by));
  paint();
}
const KEYS = {
  a: () => judge("accepted"),
  r: () => judge("rejected"),
  u: () => judge(null),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => leaf(1),
  ArrowDown: () => leaf(-1),
  1: () => turnTo(0),
  2: () => turnTo(1),
  3: () => turnTo(2),
};
document.addEventListener("keydown", (event) => {
  const act = byId("viewer").open && !event.ctrlKey && !event.metaKey && !event.altKey && KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) {
    event.preventDefault();
    act();
  } else if (event.key === "Enter" && !byId("viewer").open && !(event.target instanceof HTMLInputElement || event.target instanceof HTMLButtonElement)) {
    // Else the same Enter would press the button that the opened scan has in focus.
    event.preventDefault();
    const first = table.getData("active")[0];
    if (first) openViewer(first);
  }
});
byId("slice").max = data.sheet.columns - 1;
byId("slice").value = Math.floor((data.sheet.columns - 1) / 2);
byId("slice").addEventListener("input", paint);
document.querySelectorAll("#planes button").forEach((button) => {
  button.addEventListener("click", () => turnTo(Number(button.dataset.plane)));
});
byId("accept").addEventListener("click", () => judge("accepted"));
byId("reject").addEventListener("click", () => judge("rejected"));
byId("undo").addEventListener("click", () => judge(null));
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => byId("viewer").close());

showTotals();
byId("theme").addEventListener("change", applyTheme);
systemIsDark.addEventListener("change", applyTheme);
applyTheme();
showCharts();
showSites();
