// A scenario for k6: arrivals at the stages' rate, golden requests, answers that are checked.
//
// `python -m benchmarks scenario NAME --with k6` writes the plan and starts it. By hand, with what --keep DIRECTORY left:
//   k6 run --env PLAN=DIRECTORY/plan.json benchmarks/scenarios/k6.js
//
// Arrivals are evenly spaced: k6 draws no random ones. One that finds no free caller is dropped, and counts as failed.

import { Counter, Rate, Trend } from 'k6/metrics';
import http from 'k6/http';

const plan = JSON.parse(open(__ENV.PLAN));
const calls = plan.calls.map((call) => ({
  ...call,
  body: open(call.body, 'b'),
  idle: new Uint8Array(open(call.idle, 'b')),
}));

const latency = new Trend('latency', true);
const failed = new Rate('failed');
const refused = new Counter('refused');
const wrong = new Counter('wrong');

export const options = {
  scenarios: {
    [plan.name]: {
      executor: 'ramping-arrival-rate',
      startRate: Math.round(plan.from_per_s * 100),
      timeUnit: '100s', // rates are whole numbers
      stages: plan.stages.map((stage) => ({
        target: Math.round(stage.per_s * 100),
        duration: `${Math.round(stage.seconds * 1000)}ms`,
      })),
      preAllocatedVUs: plan.connections,
      maxVUs: plan.connections,
      gracefulStop: '15s',
    },
  },
  // Submetrics are summed up only where a threshold names them.
  thresholds: Object.fromEntries(
    plan.classes.flatMap((of) => [
      [`latency{of:${of}}`, ['max>=0']],
      [`failed{of:${of}}`, ['rate>=0']],
      [`refused{of:${of}}`, ['count>=0']],
      [`wrong{of:${of}}`, ['count>=0']],
    ]),
  ),
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'count'],
  discardResponseBodies: false,
};

export default function () {
  const priority = Math.random() < plan.urgent ? 1 : 0;
  const own = calls.filter((call) => call.priority === priority);
  const call = own[Math.floor(Math.random() * own.length)];
  const response = http.post(call.url, call.body, {
    headers: { 'Inference-Header-Content-Length': `${call.header_length}` },
    responseType: 'binary',
    timeout: '10s', // within gracefulStop: what k6 cuts off itself is counted nowhere
  });
  const tags = { of: priority ? 'priority 1' : plan.classes.length > 1 ? 'default priority' : 'all' };
  const right = response.status === 200 && isRight(response, call);
  failed.add(!right, tags);
  if (right) {
    latency.add(response.timings.duration, tags);
  } else {
    (response.status === 200 ? wrong : refused).add(1, tags);
  }
}

export function handleSummary(data) {
  return { [plan.summary]: JSON.stringify(data.metrics) };
}

// What the idle server said, byte for byte; or that but for the last digits, which a batch moves.
function isRight(response, call) {
  try {
    const found = new Uint8Array(response.body);
    return sameBytes(found, call.idle) || isAlike(found, response, call);
  } catch {
    return false; // no answer that can be read; thrown on, it would be counted nowhere
  }
}

function isAlike(found, response, call) {
  const length = Number(response.headers['Inference-Header-Content-Length']);
  const ours = outputs(found, length);
  const idle = outputs(call.idle, call.idle_header_length);
  return ours.length === idle.length && ours.every((output, place) => sameOutput(output, idle[place]));
}

function outputs(bytes, headerLength) {
  const header = JSON.parse(String.fromCharCode.apply(null, bytes.subarray(0, headerLength)));
  let start = headerLength;
  return header.outputs.map((output) => {
    const end = start + output.parameters.binary_data_size;
    const made = { ...output, bytes: bytes.slice(start, end) };
    start = end;
    return made;
  });
}

function sameOutput(one, other) {
  const alike = one.name === other.name && one.datatype === other.datatype && `${one.shape}` === `${other.shape}`;
  if (!alike || one.bytes.length !== other.bytes.length) {
    return false;
  }
  if (one.datatype !== 'FP32') {
    return sameBytes(one.bytes, other.bytes);
  }
  const [a, b] = [new Float32Array(one.bytes.buffer), new Float32Array(other.bytes.buffer)];
  return a.every((value, place) => Math.abs(value - b[place]) <= 1e-3 + 1e-3 * Math.abs(b[place]));
}

function sameBytes(one, other) {
  if (one.length !== other.length) {
    return false;
  }
  for (let place = 0; place < one.length; place += 1) {
    if (one[place] !== other[place]) {
      return false;
    }
  }
  return true;
}
