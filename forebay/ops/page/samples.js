// The last ten minutes of each window: [at, window, inFlight, waiting, refusals, grants], the oldest first.

export const WINDOW = 1, IN_FLIGHT = 2, WAITING = 3, REFUSALS = 4, GRANTS = 5;
const KEPT_SAMPLES = 1200;
const KEPT_SECONDS = 600;
const RATE_SECONDS = 5;

const kept = new Map(); // window's name -> samples
const counts = new Map(); // window's name -> counts of rate limits and grants at the last look

export const nameOf = (row) => `${row.provider}/${row.model} ${row.domain}`;
export const samplesOf = (name) => kept.get(name) ?? [];

// Adds what the server has kept to what this page has noted itself, which may be older and newer.
export function merge(past) {
  for (const [name, samples] of Object.entries(past)) {
    if (!samples.length) continue;
    const own = samplesOf(name), first = samples[0][0], last = samples[samples.length - 1][0];
    const older = own.filter((sample) => sample[0] < first), newer = own.filter((sample) => sample[0] > last);
    kept.set(name, [...older, ...samples, ...newer].slice(-KEPT_SAMPLES));
  }
}

export function note(fleet) {
  for (const row of fleet.models) {
    const name = nameOf(row);
    const before = counts.get(name) ?? row;
    counts.set(name, { rate_limited: row.rate_limited, granted: row.granted });
    const samples = samplesOf(name);
    kept.set(name, samples);
    const last = samples[samples.length - 1];
    if (last && last[0] >= fleet.at - 0.001) continue;
    const since = (count) => Math.max(0, row[count] - before[count]);
    samples.push([fleet.at, row.window, row.in_flight, row.waiting, since("rate_limited"), since("granted")]);
    if (samples.length > KEPT_SAMPLES) samples.splice(0, samples.length - KEPT_SAMPLES);
  }
  for (const [name, samples] of kept) {
    if (samples[samples.length - 1][0] < fleet.at - KEPT_SECONDS) {
      kept.delete(name);
      counts.delete(name);
    }
  }
}

export function refusalsAMinute(row) {
  return sumSince(samplesOf(nameOf(row)), 60, REFUSALS).sum;
}

// Grants a second over the last seconds; null where there is only one sample.
export function callsASecond(row) {
  const { sum, seconds } = sumSince(samplesOf(nameOf(row)), RATE_SECONDS, GRANTS);
  return seconds > 0 ? sum / seconds : null;
}

// The sum of a field over the samples after a moment, and the time that they cover.
function sumSince(samples, seconds, field) {
  let sum = 0, index = samples.length - 1;
  if (index < 0) return { sum, seconds: 0 };
  const now = samples[index][0];
  for (; index > 0 && samples[index][0] > now - seconds; index -= 1) sum += samples[index][field];
  return { sum, seconds: now - samples[index][0] };
}
