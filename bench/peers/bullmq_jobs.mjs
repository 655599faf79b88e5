// A process of bullmq: node bullmq_jobs.mjs FOLDER URL ROLE CONCURRENCY, FOLDER with node_modules.
// It answers each line of its input with a line of JSON; instants are CLOCK_MONOTONIC in seconds.
//   submit  -> the instant just before the job was added, once it is   (ROLE is "submitter")
//   count   -> how many jobs have started                              (ROLE is "worker")
//   stop    -> the instants at which they started; then it ends
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [folder, url, role, concurrency] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { Queue, Worker } = require('bullmq');
const { Redis } = require('ioredis');

const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const answer = (value) => process.stdout.write(JSON.stringify(value) + '\n');
const where = url.startsWith('unix://') ? url.slice('unix://'.length) : url;
const connection = new Redis(where, { maxRetriesPerRequest: null });
const started = [];
let peer;
if (role === 'worker') {
  const noop = async () => { started.push(seconds()); };
  peer = new Worker('bench', noop, { connection, concurrency: Number(concurrency) });
  peer.on('error', (error) => console.error(error));
} else {
  peer = new Queue('bench', { connection });
}
await peer.waitUntilReady();
answer('ready');

const orders = {
  submit: async () => {
    const submittedAt = seconds();
    await peer.add('noop', {});
    return submittedAt;
  },
  count: async () => started.length,
  stop: async () => {
    await peer.close();
    connection.disconnect();
    return started;
  },
};
for await (const order of createInterface({ input: process.stdin })) {
  // not awaited: submits that come together are sent together, and answers are alike
  const answered = orders[order]().then(answer);
  if (order === 'stop') {
    await answered;
    process.exit(0);
  }
}
process.exit(1);  // whoever gave the orders has ended
