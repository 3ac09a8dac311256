// graphile-worker: a job that does nothing, added by a caller who waits until it is complete.


import { Logger, WorkerPreset, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

import { describe, main, measure, version } from "./measure.js";
import { withPostgres } from "./postgres.js";

const IN_FLIGHT = 128;
const BATCH = 100;

const PEER = `graphile-worker ${version("graphile-worker")}`;

async function withWorker(url, worker, work) {
  const pool = new pg.Pool({ connectionString: url, max: 20 }).on("error", (error) => console.error(error));
  const quiet = new Logger(() => () => {});
  const preset = { extends: [WorkerPreset], worker: { ...worker, maxPoolSize: 20, logger: quiet } };
  const utils = await makeWorkerUtils({ pgPool: pool, preset });
  await utils.migrate();
  const runner = await run({ pgPool: pool, preset, noHandleSignals: true, taskList: { nothing: async () => {} } });
  try {
    await work(new Jobs(utils, runner.events));
  } finally {
    await runner.stop();
    await utils.release();
    await pool.end();
  }
}

/** Adds jobs, and waits until they are complete. */
class Jobs {
  #utils;
  /** Who waits for the end of a job, by its id. */
  #waiting = new Map();
  /** Jobs that were complete before their caller was told that they had been added. */
  #early = new Set();

  constructor(utils, events) {
    this.#utils = utils;
    events.on("job:complete", ({ job, error }) => {
      const told = this.#waiting.get(job.id);
      if (told === undefined) this.#early.add(job.id);
      else told(error);
      this.#waiting.delete(job.id);
    });
  }

  async one() {
    await this.#completion(await this.#utils.addJob("nothing"));
  }

  async batch() {
    const jobs = await this.#utils.addJobs(Array.from({ length: BATCH }, () => ({ identifier: "nothing" })));
    await Promise.all(jobs.map((job) => this.#completion(job)));
  }

  #completion({ id }) {
    if (this.#early.delete(id)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, (error) => (error ? reject(error) : resolve()));
    });
  }
}

await main((folder) =>
  withPostgres(folder, async ({ url, counters, settings }) => {
    describe(
      PEER,
      {
        called: "as a function that adds a job; the worker is in the caller's process, which hears there that it is complete",
        durable: "the job before its caller is told that it was added; that it is complete, by the removal of its row",
        durable_writes: "three transactions: added, locked, removed; batched, each of the three for many jobs at once",
        delivery: "at least once: a job whose worker died is run again after four hours; one job per key, where the caller gives one",
        fencing: "none: a row is locked by the name of its worker",
        evidence: "none: nothing is left of a job that is complete",
        authorisation: "none",
      },
      settings,
    );
    const single = { concurrentJobs: 16 };
    await withWorker(url, single, async (jobs) => {
      await measure(PEER, "one in flight", { call: () => jobs.one(), inFlight: 1 }, counters);
      await measure(PEER, "one call each", { call: () => jobs.one(), inFlight: IN_FLIGHT }, counters);
    });
    const batched = { concurrentJobs: 100, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
    await withWorker(url, batched, async (jobs) => {
      const load = { call: () => jobs.batch(), inFlight: IN_FLIGHT / 16, runsPerCall: BATCH };
      await measure(PEER, "batched", load, counters);
    });
  }),
);
