// One sensor's fields: what the server sends, and how it is drawn.

import { diverging, isDark, named, viridis } from "./colours.js";

/** The bytes of /api/sensor as an object: the header, and `arrays` by name. */
export function decode(bytes) {
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const values = new Float32Array(bytes, 4 + length);
  const arrays = { past: [] };
  for (const { name, shape, at } of header.arrays) {
    const size = shape[0] * shape[1] * shape[2];
    const array = { shape, values: values.subarray(at, at + size) };
    if (name === "past") arrays.past.push(array);
    else arrays[name] = array;
  }
  return { ...header, arrays };
}

/** Plane `index` of an array, or nothing. */
export function plane(array, index) {
  if (!array || index < 0 || index >= array.shape[0]) return null;
  const [, height, width] = array.shape;
  const values = array.values.subarray(index * height * width, (index + 1) * height * width);
  return { values, height, width };
}

/** What was seen at a step: 0 is the reference time, below it the past, above it the leads. */
export function observed(shown, step) {
  const { past, truth } = shown.arrays;
  const found = step > 0 ? plane(truth, step - 1) : plane(past[past.length - 1 + step], 0);
  return found && found.values.some(Number.isFinite) ? found : null;
}

export function difference(a, b) {
  if (!a || !b || a.values.length !== b.values.length) return null;
  return { ...a, values: a.values.map((value, i) => value - b.values[i]) };
}

export function rms(field) {
  let [sum, count] = [0, 0];
  for (const value of field?.values ?? []) {
    if (Number.isFinite(value)) { sum += value * value; count += 1; }
  }
  return count ? Math.sqrt(sum / count) : NaN;
}

/** Where the largest error is: its value, column and row. */
export function largest(field) {
  let best = null;
  field?.values.forEach((value, i) => {
    if (Number.isFinite(value) && Math.abs(value) > Math.abs(best?.value ?? 0)) {
      best = { value, x: i % field.width, y: Math.floor(i / field.width) };
    }
  });
  return best;
}

/** Scales that hold for all leads of a forecast, so that colours can be compared. */
export function scales(shown) {
  const { past, truth, forecast } = shown.arrays;
  let [lo, hi] = [Infinity, -Infinity];
  for (const { values } of [...past, truth, forecast].filter(Boolean)) {
    for (const value of values) {
      if (Number.isFinite(value)) { lo = Math.min(lo, value); hi = Math.max(hi, value); }
    }
  }
  if (!(hi > lo)) { lo = Number.isFinite(lo) ? lo - 0.5 : 0; hi = lo + 1; }
  const base = past.length ? past[past.length - 1].values : null;
  const errors = [];
  // Prime, so that every column has its turn.
  const each = truth && truth.values.length > 20_000 ? 23 : 1;
  for (const from of [forecast?.values, base].filter(Boolean)) {
    for (let i = 0; i < (truth?.values.length ?? 0); i += each) {
      const off = Math.abs(from[i % from.length] - truth.values[i]);
      if (Number.isFinite(off)) errors.push(off);
    }
  }
  // A few pixels far off would make all others look right.
  errors.sort((a, b) => a - b);
  const error = errors[Math.floor(0.995 * errors.length)] || errors.at(-1);
  // Rain is looked at in decades, as everywhere.
  const rain = /^mm (h-1|hr-1|h\^-1)$|^mm\/hr?$/.test(shown.units.trim());
  if (rain) { lo = 0.1; hi = 100; }
  return { lo, hi, rain, error: error || 1 };
}

const share = (value, { lo, hi, rain }) =>
  rain ? Math.log10(Math.max(value, lo) / lo) / Math.log10(hi / lo) : (value - lo) / (hi - lo);

export const shade = (scale) => (value) =>
  scale.rain && value < scale.lo ? [24, 24, 32] : viridis(share(value, scale));
export const signed = (scale) => {
  const dark = isDark();
  return (value) => diverging(value / scale.error, dark);
};
export const coded = (value) => named(value);

/** How far a forecast moves things by a lead, counted from 1: planes of dx and of dy, and the furthest; nothing where it moves nothing. */
export function motion(shown, lead) {
  const { flow } = shown.arrays;
  const [dx, dy] = [plane(flow, 2 * lead - 2), plane(flow, 2 * lead - 1)];
  if (!dx || !dy) return null;
  let furthest = 0;
  dx.values.forEach((x, i) => { furthest = Math.max(furthest, Math.hypot(x, dy.values[i])); });
  return furthest > 0 ? { dx, dy, furthest } : null;
}

/** Draws a field, and arrows over it if there are any; nothing is what is missing. */
export function draw(canvas, field, colour, flow) {
  const context = canvas.getContext("2d");
  if (!field) {
    context.clearRect(0, 0, canvas.width, canvas.height);
    return;
  }
  const { values, width, height } = field;
  const zoom = Math.max(1, Math.round(384 / Math.max(width, height)));
  if (canvas.width !== width * zoom || canvas.height !== height * zoom) {
    canvas.width = width * zoom;
    canvas.height = height * zoom;
  }
  const image = new ImageData(width, height);
  values.forEach((value, i) => {
    if (Number.isFinite(value)) image.data.set([...colour(value), 255], 4 * i);
  });
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  if (flow) arrows(context, canvas, flow);
}

/** Arrows of a motion, the longest as long as a cell. */
function arrows(context, canvas, { dx, dy, furthest }) {
  const { height: rows, width: columns } = dx;
  const cell = canvas.width / columns;
  const length = (0.9 * cell) / furthest;
  for (const [colour, thick] of [["rgba(0,0,0,0.6)", 3.6], ["#fff", 1.6]]) {
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.lineCap = "round";
    context.beginPath();
    for (let i = 0; i < rows * columns; i++) {
      const [x, y] = [dx.values[i] * length, dy.values[i] * length];
      if (!(Math.hypot(x, y) > 0.12 * cell)) continue;
      const cx = ((i % columns) + 0.5) * cell;
      const cy = (Math.floor(i / columns) + 0.5) * (canvas.height / rows);
      const [tx, ty] = [cx + x / 2, cy + y / 2];
      context.moveTo(cx - x / 2, cy - y / 2);
      context.lineTo(tx, ty);
      for (const turn of [2.6, -2.6]) {
        const a = Math.atan2(y, x) + turn;
        context.moveTo(tx, ty);
        const head = 0.4 * Math.hypot(x, y);
        context.lineTo(tx + head * Math.cos(a), ty + head * Math.sin(a));
      }
    }
    context.stroke();
  }
}

/** Marks a pixel with a ring. */
export function ring(canvas, field, { x, y }, colour) {
  const zoom = canvas.width / field.width;
  const context = canvas.getContext("2d");
  context.strokeStyle = colour;
  context.lineWidth = canvas.width / 130;
  context.beginPath();
  context.arc((x + 0.5) * zoom, (y + 0.5) * zoom, canvas.width / 22, 0, 2 * Math.PI);
  context.stroke();
}

/** A bar with all colours of a scale. */
export function bar(canvas, colour, from, to) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = `rgb(${colour(from + ((to - from) * (x + 0.5)) / canvas.width)})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}
