// Calls a peer again and again, as `crates/control/examples/dispatch` calls what it measures, and
// prints what came of it as lines of JSON.

import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";

import { used } from "./processor.js";

const WARM_UP_SECONDS = 3;
const SECONDS = 10;

/**
 * Prints how many runs a second the peer carries from their submission to the answer that they have
 * ended. `inFlight` callers each make their next call as soon as the last is answered; only calls
 * that are answered after the warm-up count. The first call that fails is thrown.
 *
 * @param {string} peer with its version
 * @param {string} kind of calls: "one in flight", "one call each" or "batched"
 * @param {{call: () => Promise<void>, inFlight: number, runsPerCall?: number}} load
 * @param {() => Promise<Record<string, number>>} [counters] what the peer itself has counted so far
 */
export async function measure(peer, kind, { call, inFlight, runsPerCall = 1 }, counters) {
  const times = [];
  let counting = false;
  let ended = false;
  const caller = async () => {
    while (!ended) {
      const begun = performance.now();
      await call();
      if (counting) times.push(performance.now() - begun);
    }
  };
  const failed = Promise.all(Array.from({ length: inFlight }, caller));
  const until = (seconds) =>
    Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 1000 * seconds))]);

  await until(WARM_UP_SECONDS);
  const count = async () => ({ cpu_us: used(), ...(await counters?.()) });
  const before = await count();
  counting = true;
  const begun = performance.now();
  await until(SECONDS);
  counting = false;
  const seconds = (performance.now() - begun) / 1000;
  const runs = times.length * runsPerCall;
  const after = await count();
  ended = true;
  await failed;

  times.sort((one, other) => one - other);
  const quantile = (part) => rounded(times[Math.floor((times.length - 1) * part)], 1000);
  print({
    bench: "dispatch",
    peer,
    kind,
    in_flight: inFlight,
    runs_per_call: runsPerCall,
    runs,
    runs_per_second: rounded(runs / seconds, 1),
    p50_ms: quantile(0.5),
    p99_ms: quantile(0.99),
    ...Object.fromEntries(
      Object.keys(before).map((key) => [`${key}_per_run`, rounded((after[key] - before[key]) / runs, 100)]),
    ),
  });
}

/**
 * Prints, for people, what a peer does for each run, and the settings that it was measured with.
 *
 * @param {string} about the peer with its version
 * @param {Record<string, string>} eachRun
 * @param {Record<string, string>} settings
 */
export function describe(about, eachRun, settings) {
  print({ bench: "dispatch", about, each_run: eachRun, settings });
}

/** The version of a package that is installed. */
export function version(name) {
  const manifest = new URL(`./node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(manifest, "utf8")).version;
}

/** Runs a program to its end, which is with an exit status of 1 where `work` throws. */
export async function main(work) {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) throw new Error("usage: node PEER.js FOLDER");
  try {
    await work(folder);
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  }
  // What a library has left open would keep the process.
  process.exit();
}

function print(line) {
  console.log(JSON.stringify(line));
}

function rounded(number, parts) {
  return Math.round(number * parts) / parts;
}
