// Runs no-op jobs through BullMQ on a Redis that syncs every write, and prints what was measured as one JSON object:
//   node bench/bullmq/rate.mjs FOLDER COUNT RATE SECONDS
// COUNT jobs are added 64 at a time (jobs a second, from the first add to the last completion); then RATE jobs a second
// are added for SECONDS in an open loop (p99 of the time from when one was due until its completion was seen).
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { Queue, QueueEvents, Worker } from "bullmq";
import Redis from "ioredis";

const [folder, count, rate, seconds] = [process.argv[2], ...process.argv.slice(3).map(Number)];

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

const port = await freePort();
const redis = spawn("redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "",
  "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"], { stdio: "ignore" });
redis.on("exit", (code) => { if (code) { console.error(`redis-server ended with ${code}`); process.exit(1); } });
const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
const probe = new Redis({ ...connection, retryStrategy: () => 50 });
probe.on("error", () => {});
await probe.ping();

const queue = new Queue("bench", { connection });
const events = new QueueEvents("bench", { connection });
const options = { removeOnComplete: true };
// As many at a time as keep it busy; more workers in one process share its one thread.
const worker = new Worker("bench", async () => 0, { connection, concurrency: 64 });
await Promise.all([events.waitUntilReady(), worker.waitUntilReady()]);

// How a completion is seen: as anybody who waits for a job sees it, through the events of the queue.
const due = new Map();
const latencies = [];
let completed = 0;
let wanted = Infinity;
let reached = () => {};
events.on("completed", ({ jobId }) => {
  const began = due.get(jobId);
  if (began !== undefined) {
    latencies.push(performance.now() - began);
    due.delete(jobId);
  }
  if (++completed >= wanted) reached();
});
const all = (number) => new Promise((resolve) => {
  [wanted, reached] = [number, resolve];
  if (completed >= number) resolve();
});

async function closed(jobs) {
  const target = completed + jobs;
  const begin = performance.now();
  let left = jobs;
  const adder = async () => { while (left-- > 0) await queue.add("noop", {}, options); };
  await Promise.all(Array.from({ length: 64 }, adder));
  await all(target);
  return jobs / ((performance.now() - begin) / 1000);
}

async function open() {
  const target = completed + rate * seconds;
  const begin = performance.now();
  const adds = [];
  for (let i = 0; i < rate * seconds; ++i) {
    const at = begin + (i * 1000) / rate;
    const wait = at - performance.now();
    if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait));
    due.set(`o${i}`, at);
    adds.push(queue.add("noop", {}, { ...options, jobId: `o${i}` }));
  }
  await Promise.all(adds);
  await all(target);
  latencies.sort((a, b) => a - b);
  return latencies[Math.ceil(latencies.length * 0.99) - 1];
}

await closed(Math.min(500, count)); // warm
const jobsPerSecond = await closed(count);
const p99Ms = await open();
const version = JSON.parse(readFileSync(new URL("./node_modules/bullmq/package.json", import.meta.url))).version;
await Promise.all([worker.close(), events.close(), queue.close()]);
const redisVersion = (await probe.info("server")).match(/redis_version:(\S+)/)[1];
probe.disconnect();
redis.kill();
console.log(JSON.stringify({ version: `${version}, Redis ${redisVersion}`, rate: jobsPerSecond, p99Ms }));
