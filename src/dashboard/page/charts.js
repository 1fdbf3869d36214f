// Charts as SVG: skill by lead, the codebook, and the dataflow.

import { named } from "./colours.js";

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const ORDER = ["physicnet", "network", "mean", "sharp", "advection", "persistence", "trend"];
const rank = (name) => (ORDER.indexOf(name) + 1 || ORDER.length + 1);
const LINES = ["physicnet", "advection", "persistence"];

/** A number in a few letters. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.0001 || size >= 1e6) return value.toExponential(1);
  return size >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

const products = (values) => Object.keys(values).sort((a, b) => rank(a) - rank(b));

/** The unit of a quantity after its value or name; pure numbers have none. */
export const unit = (units, before = " ") => (units && units !== "1" ? `${before}${units}` : "");

const PLAIN = {
  rmse: "RMSE", mae: "MAE", bias: "Bias", ssim: "SSIM", corr: "Correlation", rel_l2: "Relative error", coverage: "Coverage",
};
const TABLES = { csi: "CSI", pod: "POD", far: "FAR", fbias: "Frequency bias" };

/** The scores of a channel in the order in which people look for them. */
export function scoreNames(skill) {
  const kinds = ["rmse", "mae", "bias", "csi", "fss", "ssim", "pod", "far", "fbias", "corr", "rel_l2", "coverage"];
  const kind = (name) => kinds.findIndex((kind) => name === kind || name.startsWith(`${kind}_`));
  return Object.keys(skill.scores).filter((name) => kind(name) >= 0).sort((a, b) => kind(a) - kind(b));
}

/** What a score is called, with its threshold and scale, and its unit where it has one. */
export function scoreTitle(name, units) {
  if (PLAIN[name]) return `${PLAIN[name]}${["rmse", "mae", "bias"].includes(name) ? unit(units, ", ") : ""}`;
  const [kind, above, scale] = name.split("_");
  const beyond = `above ${above}${unit(units)}`;
  return kind === "fss" ? `FSS ${beyond}, ${scale} pixels` : `${TABLES[kind]} ${beyond}`;
}

/** A score by lead, a line for each product. */
export function skillChart(skill, score, narrow) {
  const values = skill.scores[score];
  const names = products(values);
  const leads = Math.max(1, ...names.map((name) => values[name].length));
  const all = names.flatMap((name) => values[name]).filter(Number.isFinite);
  if (!all.length) return "";
  const [w, h, left, bottom] = [narrow ? 350 : 560, 230, 46, 40];
  // From 0, on either side of which a bias may lie.
  const [low, high] = [1.05 * Math.min(0, ...all), 1.05 * Math.max(0, ...all)];
  const span = high - low || 1;
  const x = (lead) => left + ((w - left - 110) * (lead - 1)) / Math.max(1, leads - 1);
  const y = (value) => 10 + (h - bottom - 10) * (1 - (value - low) / span);
  let svg = "";
  const ten = 10 ** Math.floor(Math.log10(span / 2));
  const tick = ten * [1, 2, 5].findLast((n) => n * ten <= span / 2);
  for (let value = Math.ceil(low / tick) * tick; value <= low + span; value += tick) {
    svg += `<line class="grid" x1="${left}" x2="${w - 110}" y1="${y(value)}" y2="${y(value)}"/>`;
    svg += `<text class="dim" x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${short(value)}</text>`;
  }
  const each = Math.ceil(leads / (narrow ? 6 : 12));
  for (let lead = 1; lead <= leads; lead += each) {
    svg += `<text class="dim" x="${x(lead)}" y="${h - bottom + 16}" text-anchor="middle">+${lead}</text>`;
  }
  svg += `<text class="dim" x="${(left + w - 110) / 2}" y="${h - 6}" text-anchor="middle">lead, in cadences</text>`;
  const ends = [];
  // Ours last, over the others.
  for (const name of names.toReversed()) {
    const points = values[name].map((value, i) => [i + 1, value]).filter(([, v]) => Number.isFinite(v));
    if (!points.length) continue;
    const line = LINES.includes(name) ? name : "other";
    const path = points.map(([lead, value], i) => `${i ? "L" : "M"}${x(lead).toFixed(1)},${y(value).toFixed(1)}`);
    svg += `<path class="line ${line}" data-product="${escape(name)}" d="${path.join("")}"/>`;
    const [lead, value] = points[points.length - 1];
    ends.push({ name, line, x: x(lead) + 8, y: y(value) + 4 });
  }
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => {
    if (i && end.y < ends[i - 1].y + 14) end.y = ends[i - 1].y + 14;
    svg += `<text x="${end.x}" y="${end.y}" class="name ${end.line}">${escape(end.name)}</text>`;
  });
  const title = `${scoreTitle(score, skill.units)} of ${skill.variable}`;
  return `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="${escape(title)} by lead; the table below has the numbers">${svg}</svg>`;
}

export function skillTable(skill, score) {
  const values = skill.scores[score];
  const names = products(values);
  const leads = Math.max(0, ...names.map((name) => values[name].length));
  const title = escape(scoreTitle(score, skill.units));
  const head = Array.from({ length: leads }, (_, i) => `<th scope="col">+${i + 1}</th>`).join("");
  let rows = `<caption class="hidden">${title} by lead</caption><thead><tr><th scope="col">${title}</th>${head}</tr></thead><tbody>`;
  for (const name of names) {
    const cells = values[name].map((value) => `<td>${short(value)}</td>`).join("");
    rows += `<tr data-product="${escape(name)}"><th scope="row">${escape(name)}</th>${cells}</tr>`;
  }
  const pairs = skill.pairs.map((count) => `<td>${count}</td>`).join("");
  return `${rows}<tr data-product="pairs"><th scope="row" class="quiet">pairs</th>${pairs}</tr></tbody>`;
}

/** How often each code is used, a bar for each. */
export function usage(counts, codes) {
  const [w, h] = [360, 150];
  const most = Math.max(1, ...Object.values(counts));
  const step = w / Math.max(1, codes);
  let svg = `<line class="grid" x1="0" x2="${w}" y1="${h - 18}" y2="${h - 18}"/>`;
  for (const [code, count] of Object.entries(counts)) {
    const height = ((h - 24) * count) / most;
    svg += `<rect x="${(code * step).toFixed(2)}" y="${(h - 18 - height).toFixed(2)}" width="${Math.max(0.8, step - 0.4).toFixed(2)}" height="${height.toFixed(2)}" fill="rgb(${named(Number(code))})"><title>code ${code}: ${count}</title></rect>`;
  }
  svg += `<text class="dim" x="0" y="${h - 3}">code 0</text><text class="dim" x="${w}" y="${h - 3}" text-anchor="end">${codes - 1}</text>`;
  return `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="How often each code is used">${svg}</svg>`;
}

/** The dataflow as timely's log tells it: a box for each room, layered by what it waits for. */
export function dataflow(edges, rooms, narrow) {
  const names = [...new Set([...rooms.map((room) => room.name), ...edges.flat()])];
  const depth = Object.fromEntries(names.map((name) => [name, 0]));
  const rest = { ...depth };
  for (let round = 0; round < names.length; round++) {
    for (const [from, to] of edges) {
      depth[to] = Math.max(depth[to], Math.min(depth[from] + 1, names.length));
      rest[from] = Math.max(rest[from], Math.min(rest[to] + 1, names.length));
    }
  }
  const layers = [];
  for (const name of names) (layers[depth[name]] ??= []).push(name);
  layers.forEach((layer) => layer.sort((a, b) => rest[b] - rest[a] || (a === "sinks" ? -1 : a.localeCompare(b))));
  const [bw, bh, gx, gy] = narrow ? [152, 70, 16, 22] : [122, 74, 20, 26];
  const rows = Math.max(1, ...layers.map((layer) => layer.length));
  const place = {};
  layers.forEach((layer, i) => layer.forEach((name, j) => {
    place[name] = narrow
      ? { x: 4 + j * (bw + gx), y: 4 + i * (bh + gy) }
      : { x: 4 + i * (bw + gx), y: 4 + j * (bh + gy) };
  }));
  const [w, h] = narrow
    ? [rows * (bw + gx) + 14, layers.length * (bh + gy)]
    : [layers.length * (bw + gx) - gx + 8, rows * (bh + gy) + 10];
  let svg = `<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0L8,4L0,8z" class="tip"/></marker></defs>`;
  for (const [from, to] of edges) {
    const [a, b] = [place[from], place[to]];
    let path;
    if (narrow) {
      path = depth[to] - depth[from] > 1
        ? `M${a.x + bw},${a.y + bh / 2 + 10} H${w - 6} V${b.y + bh / 2} H${b.x + bw}`
        : `M${a.x + bw / 2},${a.y + bh} C${a.x + bw / 2},${a.y + bh + gy} ${b.x + bw / 2},${b.y - gy} ${b.x + bw / 2},${b.y}`;
    } else {
      path = depth[to] - depth[from] > 1
        ? `M${a.x + bw / 2},${a.y + bh} V${h - 6} H${b.x - gx / 2} V${b.y + bh / 2} H${b.x}`
        : `M${a.x + bw},${a.y + bh / 2} C${a.x + bw + gx},${a.y + bh / 2} ${b.x - gx},${b.y + bh / 2} ${b.x},${b.y + bh / 2}`;
    }
    svg += `<path class="edge" d="${path}" marker-end="url(#tip)"/>`;
  }
  const by = Object.fromEntries(rooms.map((room) => [room.name, room]));
  for (const name of names) {
    const { x, y } = place[name];
    const room = by[name];
    svg += `<g data-room="${escape(name)}"><rect class="box" x="${x}" y="${y}" width="${bw}" height="${bh}" rx="6"/>`;
    svg += `<text x="${x + 8}" y="${y + 17}" class="name">${escape(name)}</text>`;
    if (room) {
      svg += `<text x="${x + 8}" y="${y + 34}">${short(room.per_second)} /s</text>`;
      const batch = room.batch ? `${room.batch.toFixed(1)} in ${time(room.seconds)}` : "";
      svg += `<text class="dim" x="${x + 8}" y="${y + 50}">${batch}</text>`;
      room.busy.forEach((share, i) => {
        const step = (bw - 16) / room.busy.length;
        const [left, width] = [x + 8 + i * step, step - 3];
        svg += `<rect class="idle" x="${left}" y="${y + bh - 15}" width="${width}" height="6" rx="2"/>`;
        svg += `<rect class="busy" x="${left}" y="${y + bh - 15}" width="${(width * share).toFixed(1)}" height="6" rx="2"><title>worker ${i}: busy ${(100 * share).toFixed(0)} %</title></rect>`;
      });
    }
    svg += "</g>";
  }
  return `<svg viewBox="0 0 ${w} ${h}" role="img" aria-label="The stages of the dataflow, what comes in a second, how much at once and how long that takes">${svg}</svg>`;
}

export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${(1e6 * seconds).toFixed(0)} µs`;
  if (seconds < 1) return `${(1e3 * seconds).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return `${(seconds / 3600).toFixed(0)} h`;
}
