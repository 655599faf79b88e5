// Draws the samples of a window (samples.js) on a canvas.
import { IN_FLIGHT, REFUSALS, WAITING, WINDOW } from "./samples.js";

const LONGEST_SECONDS = 600;
const SHORTEST_SECONDS = { chart: 120, line: 30 };

let colour = {};

// Reads the colours of the style sheet, which change with the light and dark mode.
export function refreshColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  colour = {
    window: read("--window"), flight: read("--flight"), waiting: read("--waiting"),
    refusal: read("--refusal"), line: read("--line"), quiet: read("--quiet"),
  };
}

// Sizes a canvas for the screen, and returns what draws on it, in CSS pixels.
function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

function steps(pen, samples, x, y, field) {
  pen.beginPath();
  samples.forEach((sample, index) => {
    if (index === 0) pen.moveTo(x(sample[0]), y(sample[field]));
    else {
      pen.lineTo(x(sample[0]), y(samples[index - 1][field]));
      pen.lineTo(x(sample[0]), y(sample[field]));
    }
  });
}

export function drawChart(canvas, samples, { axes }) {
  const { pen, width, height } = fitted(canvas);
  if (!samples.length || !width) return;
  const left = axes ? 40 : 0, bottom = axes ? 22 : 1, top = axes ? 8 : 2;
  const now = samples[samples.length - 1][0];
  const shown = samples.filter((sample) => sample[0] >= now - LONGEST_SECONDS);
  const span = Math.max(axes ? SHORTEST_SECONDS.chart : SHORTEST_SECONDS.line, now - shown[0][0]);
  const drawn = axes ? [WINDOW, IN_FLIGHT, WAITING] : [WINDOW, IN_FLIGHT];
  let most = 1, refused = 1;
  for (const sample of shown) {
    for (const field of drawn) most = Math.max(most, sample[field]);
    refused = Math.max(refused, sample[REFUSALS]);
  }
  const x = (at) => left + (width - left) * (1 - (now - at) / span);
  const y = (value) => top + (height - top - bottom) * (1 - value / (most * 1.08));

  if (axes) drawAxes(pen, { width, height, left, most, span, y });
  steps(pen, shown, x, y, IN_FLIGHT);
  pen.lineTo(x(now), y(0));
  pen.lineTo(x(shown[0][0]), y(0));
  pen.fillStyle = colour.flight;
  pen.fill();
  if (axes) {
    steps(pen, shown, x, y, WAITING);
    pen.strokeStyle = colour.waiting;
    pen.setLineDash([3, 3]);
    pen.stroke();
    pen.setLineDash([]);
  }
  steps(pen, shown, x, y, WINDOW);
  pen.strokeStyle = colour.window;
  pen.lineWidth = axes ? 2 : 1.5;
  pen.stroke();
  pen.lineWidth = 1;
  pen.fillStyle = colour.refusal;
  for (const sample of shown) {
    if (!sample[REFUSALS]) continue;
    const tall = Math.max(3, (height - top - bottom) * 0.25 * (sample[REFUSALS] / refused));
    pen.fillRect(x(sample[0]) - 1, height - bottom - tall, 2, tall);
  }
}

function drawAxes(pen, { width, height, left, most, span, y }) {
  pen.strokeStyle = colour.line;
  pen.fillStyle = colour.quiet;
  pen.font = "11px system-ui, sans-serif";
  const step = Math.max(1, Math.ceil(most / 4));
  pen.textAlign = "right";
  for (let value = 0; value <= most * 1.08; value += step) {
    pen.beginPath();
    pen.moveTo(left, y(value));
    pen.lineTo(width, y(value));
    pen.stroke();
    pen.fillText(String(value), left - 6, y(value) + 4);
  }
  const every = span > 300 ? 120 : 30;
  for (let seconds = 0; seconds <= span; seconds += every) {
    const at = left + (width - left) * (1 - seconds / span);
    pen.textAlign = seconds === 0 ? "right" : seconds > span - every / 2 ? "left" : "center";
    pen.fillText(seconds === 0 ? "now" : `-${seconds < 120 ? `${seconds} s` : `${seconds / 60} min`}`, at, height - 5);
  }
}
