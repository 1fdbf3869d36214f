// The page: asks the job how it does, and shows it.

import * as fields from "./fields.js";
import { dataflow, scoreNames, scoreTitle, short, skillChart, skillTable, time, unit, usage } from "./charts.js";
import { isDark, viridis } from "./colours.js";

const narrow = () => innerWidth < 800;
const $ = (id) => document.getElementById(id);
const view = {
  state: null, // the last answer of /api/state
  shown: null, // the forecast that is drawn
  latest: null, // the last answer of /api/sensor, drawn when the play begins anew
  sensor: null,
  channel: 0,
  step: 0, // 0 is the reference time; leads above, the past below
  playing: !matchMedia("(prefers-reduced-motion: reduce)").matches,
};

// ---- What is asked for.

async function ask(path) {
  const response = await fetch(path);
  if (response.status === 401) location.reload();
  if (!response.ok) {
    const text = (await response.text()).trim();
    throw Object.assign(new Error(`${path}: ${response.status} ${text}`), { status: response.status, text });
  }
  return response;
}

async function askState() {
  view.state = await (await ask("/api/state")).json();
  showState();
}

async function askSensor() {
  if (!view.sensor) return;
  const { sensor, channel } = view;
  const which = document.querySelector("[name=which]:checked").value;
  const query = new URLSearchParams({ sensor, channel, forecast: which });
  const same = view.latest?.sensor === sensor && view.latest.channel === channel && view.latest.which === which;
  if (same) query.set("seen", view.latest.version);
  let response;
  try {
    response = await ask(`/api/sensor?${query}`);
  } catch (error) {
    // What keeps one sensor from being shown does not make the job one that is gone.
    if (error.status !== 503) throw error;
    if (sensor === view.sensor && !same) $("forecast-title").textContent = `Not shown: ${error.text}.`;
    return;
  }
  if (response.status === 204 || sensor !== view.sensor) return;
  view.latest = { ...fields.decode(await response.arrayBuffer()), which };
  const shown = view.shown;
  const other = shown?.sensor !== sensor || shown.channel !== channel || shown.which !== which;
  if (other || !shown.chosen) takeLatest();
  showSkill();
  showUsage();
}

/** Again and again, one at a time; a job that is gone is asked again. */
function repeat(asking, milliseconds) {
  const turn = async () => {
    try {
      if (!document.hidden) await asking();
    } catch (error) {
      standing("lost", "bad", `no answer: ${error.message}`);
    }
    setTimeout(turn, milliseconds);
  };
  turn();
}

// ---- How the job does.

function standing(text, kind, title) {
  $("standing").textContent = text;
  $("standing").className = `pill ${kind}`;
  $("standing").title = title;
}

function showState() {
  const { state } = view;
  const { job } = state;
  $("name").textContent = job.name;
  document.title = `${job.name} · PhysicNet`;
  if (state.ready) standing("ready", "good", "");
  else standing(state.alive ? `not ready: ${state.unready[0]}` : "failed", state.alive ? "warn" : "bad", state.unready.join("; "));
  $("about").textContent = `version ${state.version} · model ${job.model.slice(0, 8)} · ${job.workers} worker${job.workers === 1 ? "" : "s"} · up ${time(state.uptime_seconds)}`;
  showAnswers();
  showSensors();
  showSkill();
  const { rates } = state;
  $("dataflow-text").textContent =
    `${short(rates.frames_per_second)} frames and ${short(rates.forecasts_per_second)} forecasts a second; ` +
    `${state.in_flight} of at most ${job.in_flight} epochs in flight. A box: what comes in, how much at once and how long that takes, how busy each worker is with it.`;
  $("dataflow").innerHTML = dataflow(state.edges, rates.rooms, narrow());
  showEvents();
}

function answer(id, value, kind, more) {
  const article = $(id);
  article.querySelector("[data-value]").textContent = value;
  article.querySelector("[data-value]").className = `big ${kind}`;
  article.querySelector("[data-more]").textContent = more;
}

function showAnswers() {
  const { state } = view;
  const lately = state.lately.find((of) => of.channel === view.channel) ?? state.lately[0];
  const gain = lately?.gain.persistence;
  if (Number.isFinite(gain)) {
    const percent = (share) => Math.abs(share) < 0.005
      ? "the same as" : `${Math.abs(100 * share).toFixed(0)} % ${share < 0 ? "larger" : "smaller"} than`;
    const others = Object.entries(lately.gain).filter(([name, g]) => name !== "persistence" && Number.isFinite(g));
    const beside = others.map(([name, g]) => `; ${percent(g)} that of ${name}`).join("");
    answer("better", `${gain > 0 ? "Yes" : "No"}: ${Math.abs(100 * gain).toFixed(0)} % ${gain > 0 ? "less" : "more"} error`, gain > 0 ? "good" : "bad",
      `${lately.span === "day" ? "Over the last day" : "Over all time"} its error is ${percent(gain)} that of persistence${beside}.`);
  } else {
    answer("better", "Not known", "", state.job.scoring ? "No forecast has been verified yet." : "The job has no `scoring`.");
  }
  const counts = state.standings;
  const silent = counts.silent ?? 0;
  const { late } = state;
  const latency = Number.isFinite(state.rates.latency_seconds) ? ` Frame to forecast: ${time(state.rates.latency_seconds)}.` : "";
  const stuck = state.unready.find((why) => why.includes("durable"));
  const drifted = state.sensors.filter((sensor) => sensor.drifted).length;
  const told = [silent && `${silent} silent`, late && `${late} late frame${late === 1 ? "" : "s"}`, stuck && "nothing becomes durable"].filter(Boolean);
  const doing = Object.entries(counts).map(([name, n]) => `${n} ${name}`).join(", ");
  const lag = state.lag === null ? "" : ` Kafka: ${state.lag} message${state.lag === 1 ? "" : "s"} not read yet.`;
  const strange = drifted ? ` ${drifted} drifted: what they show is not what the network was trained on, and its forecasts may be worse.` : "";
  answer("late", told.length ? told.join(", ") : "No", told.length ? "warn" : "good", `Sensors: ${doing || "none yet"}.${latency}${lag}${strange}`);
}

/** Whether the model cannot say how far a sensor has drifted. */
const unusual = (sensor) => sensor?.drift_window?.of === 0 && view.state.job.codes > 0 && view.state.job.trained;

const STANDINGS = { forecasting: "good", silent: "bad", waiting: "warn", filling: "warn" };

function showSensors() {
  const { state } = view;
  $("sensor-count").textContent = state.sensor_count > state.sensors.length ? `${state.sensors.length} of ${state.sensor_count}` : state.sensor_count;
  if (!view.sensor && state.sensors.length) {
    // Of the sensor that was looked at last there is something to be seen at once.
    choose(state.sensors.some((sensor) => sensor.id === state.watched) ? state.watched : state.sensors[0].id);
  }
  const list = $("sensors");
  state.sensors.forEach((sensor, i) => {
    let item = list.children[i];
    if (!item) {
      item = document.createElement("div");
      item.className = "sensor";
      item.setAttribute("role", "option");
      item.innerHTML = "<canvas aria-hidden=true></canvas><b></b><small></small>";
      item.addEventListener("click", () => choose(item.dataset.id));
      list.append(item);
    }
    item.dataset.id = sensor.id;
    item.id = `sensor-${i}`;
    item.setAttribute("aria-selected", sensor.id === view.sensor);
    if (sensor.id === view.sensor) list.setAttribute("aria-activedescendant", item.id);
    item.children[1].textContent = sensor.id;
    const more = [
      `${sensor.frames} frames`,
      sensor.frame_age_seconds !== null && `newest ${time(sensor.frame_age_seconds)} ago`,
      sensor.rejected && `${sensor.rejected} not used`,
      sensor.late && `${sensor.late} late`,
      sensor.missing && `${sensor.missing} missing`,
      sensor.missing_pixels && `${(100 * sensor.missing_pixels).toFixed(1)} % of pixels missing`,
      sensor.revisions && `${sensor.revisions} revised`,
      sensor.drift !== null && !sensor.drifted &&
        `drift ${sensor.drift.toFixed(2)}${sensor.drift_limit === null ? "" : ` of ${sensor.drift_limit.toFixed(2)}`}`,
      sensor.drift === null && sensor.drift_window?.frames < sensor.drift_window?.of &&
        `drift warming, ${sensor.drift_window.frames} of ${sensor.drift_window.of} frames`,
      unusual(sensor) && "drift not known",
      sensor.serving && sensor.serving !== "physicnet" && `serves ${sensor.serving}`,
    ].filter(Boolean);
    item.children[2].innerHTML = `<span class="${STANDINGS[sensor.standing]}">${sensor.standing}</span> <span class="warn"></span> <span class="quiet"></span>`;
    item.children[2].children[1].textContent = sensor.drifted
      ? `drifted: ${sensor.drift.toFixed(2)}, limit ${sensor.drift_limit.toFixed(2)}` : "";
    item.children[2].lastChild.textContent = more.join(" · ");
    thumb(item.children[0], sensor.thumb);
  });
  while (list.children.length > state.sensors.length) list.lastChild.remove();
}

function thumb(canvas, thumb) {
  if (!thumb || canvas.dataset.pixels === thumb.pixels) return;
  canvas.dataset.pixels = thumb.pixels;
  [canvas.width, canvas.height] = [thumb.columns, thumb.rows];
  const image = new ImageData(thumb.columns, thumb.rows);
  for (let i = 0; i < thumb.rows * thumb.columns; i++) {
    const at = Math.floor(i / thumb.columns) * 16 + (i % thumb.columns);
    const value = parseInt(thumb.pixels.slice(2 * at, 2 * at + 2), 16);
    if (value < 255) image.data.set([...viridis(value / 254), 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function showSkill() {
  const one = document.querySelector("[name=whose]:checked").value === "one";
  const span = document.querySelector("[name=span]:checked").value;
  const told = one ? view.latest : view.state;
  const all = (span === "all" ? told?.skill : told?.recent?.[span]) ?? [];
  const skill = all.find((skill) => skill.channel === view.channel) ?? all[0];
  const score = skill && showScores(skill);
  $("skill-chart").innerHTML = score ? skillChart(skill, score, narrow()) : "<p class=quiet>Nothing has been verified yet.</p>";
  $("skill-table").innerHTML = score ? skillTable(skill, score) : "";
}

/** Offers the scores that there are, and says which is chosen. */
function showScores(skill) {
  const names = scoreNames(skill);
  const select = $("score");
  const options = names.map((name) => [name, scoreTitle(name, skill.units)]);
  if (select.dataset.options !== String(options)) {
    const chosen = select.value;
    select.dataset.options = options;
    select.replaceChildren(...options.map(([name, title]) => new Option(title, name)));
    select.value = names.includes(chosen) ? chosen : names[0];
  }
  return select.value;
}

function showUsage() {
  const { usage: counts, codes } = view.latest;
  const used = Object.keys(counts).length;
  const told = view.state && !view.state.job.trained
    ? " The network was not trained: they mean nothing."
    : unusual(view.state?.sensors.find((sensor) => sensor.id === view.sensor))
    ? " Drift is not known: there is no usage in the checkpoint; physicnet calibrate adds it." : "";
  $("usage-text").textContent = used
    ? `${used} of ${codes} codes name the last frames of this sensor.${told}`
    : codes ? "No frame has come since you look." : "This model has no codebook.";
  $("usage").innerHTML = used ? usage(counts, codes) : "";
}

function showEvents() {
  const { events, event_counts: counts } = view.state;
  $("event-counts").textContent = Object.entries(counts).map(([kind, n]) => `${n} ${kind}${n === 1 ? "" : "s"}`).join(", ");
  const list = $("events");
  if (Number(list.dataset.newest) === (events[0]?.number ?? 0)) return;
  list.dataset.newest = events[0]?.number ?? 0;
  list.replaceChildren(...events.slice(0, 100).map((event) => {
    const item = document.createElement("li");
    const kinds = { alarm: "bad", reject: "warn" };
    const parts = [new Date(event.time).toLocaleTimeString(), event.kind, event.text];
    parts.forEach((text, i) => {
      const part = document.createElement("span");
      part.textContent = i === 2 && event.sensor && !text.startsWith(event.sensor) ? `${event.sensor}: ${text}` : text;
      part.className = i === 1 ? kinds[event.kind] ?? "" : i === 0 ? "quiet" : "";
      item.append(part);
    });
    return item;
  }));
  if (!events.length) list.innerHTML = "<li><span class=quiet>none</span></li>";
}

// ---- One sensor.

function choose(id) {
  view.sensor = id;
  view.latest = null;
  $("sensor-title").textContent = id;
  for (const item of $("sensors").children) item.setAttribute("aria-selected", item.dataset.id === id);
  askSensor().catch(() => {});
}

function takeLatest() {
  const before = view.shown;
  view.shown = view.latest;
  const { shown } = view;
  const lead = $("lead");
  lead.min = 1 - Math.max(1, shown.arrays.past.length);
  lead.max = shown.chosen ? shown.chosen.valid_times.length : 0;
  if (!before || before.sensor !== shown.sensor) view.step = 0;
  view.step = Math.min(Number(lead.max), Math.max(Number(lead.min), view.step));
  view.scale = fields.scales(shown);
  showChannels();
  drawFields();
}

function showChannels() {
  const variables = view.state?.job.variables ?? [];
  $("channel-label").hidden = variables.length < 2;
  if ($("channel").children.length === variables.length) return;
  $("channel").replaceChildren(...variables.map(([name], i) => new Option(name, i)));
}

const clock = (text) => text.replace("T", " ").replace(/(:\d\d)?(\.\d+)?Z$/, " UTC");

function drawFields() {
  const { shown, step, scale } = view;
  if (!shown) return;
  $("lead").value = step;
  const { arrays, chosen } = shown;
  const named = `${shown.variable}${unit(shown.units, ", ")}`;
  const reference = chosen?.reference_time ?? shown.past_times.at(-1);
  const at = step > 0 ? chosen.valid_times[step - 1] : shown.past_times[shown.past_times.length - 1 + step] ?? reference;
  const way = Math.abs(step) * (shown.cadence_seconds ?? 0);
  $("lead-text").textContent = reference
    ? `${step > 0 ? "+" : step < 0 ? "−" : ""}${step ? time(way) : "now"}, ${clock(at)}` : "no frame yet";
  $("lead").setAttribute("aria-valuetext", $("lead-text").textContent);
  $("forecast-title").dataset.reference = chosen?.reference ?? "";
  $("forecast-title").textContent = chosen
    ? `${named}: forecast of ${clock(reference)}${chosen.revision ? `, revision ${chosen.revision}` : ""}` +
      `${chosen.missing > 0 ? `, ${(100 * chosen.missing).toFixed(1)} % of its input missing` : ""}`
    : "No forecast is kept of a sensor that nobody looked at: it comes with the next frame.";

  const truth = fields.observed(shown, step);
  const now = fields.plane(arrays.past.at(-1), 0);
  const forecast = step > 0 ? fields.plane(arrays.forecast, step - 1) : null;
  const persistence = step > 0 ? now : null;
  // Over what is there now, what it does next.
  const motion = fields.motion(shown, Math.max(1, step));
  const flow = $("arrows").checked ? motion : null;
  const colour = fields.shade(scale);
  const signed = fields.signed(scale);
  const errors = { forecast: fields.difference(forecast, truth), persistence: fields.difference(persistence, truth) };
  const note = (name, text) => { document.querySelector(`[data-note=${name}]`).textContent = text; };
  fields.draw($("truth"), truth, colour, step === 0 ? flow : null);
  note("truth", truth ? (step > 0 ? "" : step < 0 ? "before" : "now") : "not yet");
  fields.draw($("forecast"), forecast ?? now, colour, flow);
  $("flow-text").textContent = motion
    ? `how the forecast moves things by +${time(Math.max(1, step) * (shown.cadence_seconds ?? 0))}: up to ${short(motion.furthest)} pixels`
    : step > (arrays.flow?.shape[0] ?? Infinity) / 2
      ? "not told beyond the network's horizon"
      : "the forecast moves nothing";
  note("forecast", step > 0 ? "" : "from here");
  fields.draw($("persistence"), persistence ?? now, colour);
  for (const name of ["forecast", "persistence"]) {
    const error = errors[name];
    fields.draw($(`${name}-error`), error, signed);
    const worst = fields.largest(error);
    if (worst) fields.ring($(`${name}-error`), error, worst, isDark() ? "#fff" : "#000");
    const text = error ? `RMSE ${short(fields.rms(error))}` : step > 0 ? "not yet" : "";
    note(`${name}-error`, text);
    $(`${name}-error`).dataset.rmse = error ? fields.rms(error) : "";
  }
  fields.draw($("codes"), fields.plane(arrays.codes, 0), fields.coded);
  note("codes", arrays.codes ? "" : "none");

  fields.bar($("scale"), colour, scale.rain ? 0.1 : scale.lo, scale.hi);
  $("scale-text").innerHTML = "<span></span><span></span><span></span>";
  const ends = [short(scale.lo), `${named}${scale.rain ? ", decades" : ""}`, short(scale.hi)];
  ends.forEach((text, i) => { $("scale-text").children[i].textContent = text; });
  fields.bar($("error-scale"), signed, -scale.error, scale.error);
  $("error-scale-text").innerHTML = "<span></span><span></span><span></span>";
  const errorEnds = [`≤ −${short(scale.error)}`, `forecast − what came${unit(shown.units, ", ")}`, `≥ ${short(scale.error)}`];
  errorEnds.forEach((text, i) => { $("error-scale-text").children[i].textContent = text; });
  showWrong();
}

/** The worst place of the last observed lead. */
function showWrong() {
  const { shown } = view;
  const leads = shown.chosen?.valid_times.length ?? 0;
  for (let lead = leads; lead > 0; lead--) {
    const error = fields.difference(fields.plane(shown.arrays.forecast, lead - 1), fields.observed(shown, lead));
    const worst = fields.largest(error);
    if (!worst) continue;
    const side = (at, size, low, mid, high) => (at < size / 3 ? low : at < (2 * size) / 3 ? mid : high);
    const where = `${side(worst.y, error.height, "top", "middle", "bottom")} ${side(worst.x, error.width, "left", "centre", "right")}`;
    answer("wrong", `${where}, ${worst.value > 0 ? "too high" : "too low"}`, "",
      `${shown.sensor} at lead +${lead}: off by ${short(Math.abs(worst.value))}${unit(shown.units)} at most (the ring), ${short(fields.rms(error))} RMS.`);
    return;
  }
  answer("wrong", "Not known", "", "No lead of the shown forecast has been observed yet.");
}

// ---- What people do.

function step(by) {
  const [min, max] = [Number($("lead").min), Number($("lead").max)];
  view.step = Math.min(max, Math.max(min, view.step + by));
  drawFields();
}

function play(on) {
  view.playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", on);
}

setInterval(() => {
  if (!view.playing || !view.shown || document.hidden) return;
  if (view.step >= Number($("lead").max)) {
    if (view.latest) takeLatest();
    view.step = Number($("lead").min);
    drawFields();
  } else {
    step(1);
  }
}, 450);

function other(by) {
  const ids = (view.state?.sensors ?? []).map((sensor) => sensor.id);
  const at = ids.indexOf(view.sensor) + by;
  if (ids[at]) {
    choose(ids[at]);
    $("sensors").children[at]?.scrollIntoView({ block: "nearest" });
  }
}

$("play").addEventListener("click", () => play(!view.playing));
$("lead").addEventListener("input", () => { play(false); view.step = Number($("lead").value); drawFields(); });
$("arrows").addEventListener("change", drawFields);
$("channel").addEventListener("change", () => { view.channel = Number($("channel").value); choose(view.sensor); });
document.querySelectorAll("[name=which]").forEach((radio) => radio.addEventListener("change", () => askSensor().catch(() => {})));
document.querySelectorAll("[name=whose], [name=span], #score").forEach((radio) => radio.addEventListener("change", showSkill));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawFields);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  // What has the focus keeps the keys that work it.
  const own = event.target.matches("[type=radio]") ? /^( |Arrow.*)$/ : event.target.matches("[type=checkbox], button") ? /^ $/ : null;
  if (own?.test(event.key)) return;
  const keys = {
    " ": () => play(!view.playing),
    ArrowLeft: () => { play(false); step(-1); },
    ArrowRight: () => { play(false); step(1); },
    ArrowUp: () => other(-1),
    ArrowDown: () => other(1),
    n: () => {
      const next = document.querySelector("[name=which]:not(:checked)");
      next.click();
    },
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

play(view.playing);
repeat(askState, 1000);
repeat(askSensor, 1000);
