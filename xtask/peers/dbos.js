// DBOS: a workflow that does nothing, started by its caller, who waits for its end.

import { DBOS } from "@dbos-inc/dbos-sdk";

import { describe, main, measure, version } from "./measure.js";
import { withPostgres } from "./postgres.js";

const IN_FLIGHT = 128;
/** Of its connections: as many as graphile-worker has. */
const POOL = 20;

const PEER = `DBOS ${version("@dbos-inc/dbos-sdk")}`;

await main((folder) =>
  withPostgres(folder, async ({ url, counters, settings }) => {
    describe(
      PEER,
      {
        called: "as a function of the caller's own process, where the workflow runs",
        durable: "that the workflow has begun, before its first step, and its result, before the caller has it",
        durable_writes: "two transactions: a row of the workflow's status is inserted, and updated at its end",
        delivery: "a workflow that was interrupted is begun again; its recorded steps run once, others at least once; one result per workflow id",
        fencing: "none by itself: whoever recovers a workflow writes the same row",
        evidence: "none: the row of its status is kept until it is deleted",
        authorisation: "roles that a workflow asks for, decided in the process itself; not used here",
      },
      { ...settings, system_database_pool_size: String(POOL) },
    );
    const nothing = DBOS.registerWorkflow(async () => {}, { name: "nothing" });
    DBOS.setConfig({ name: "bench", systemDatabaseUrl: url, systemDatabasePoolSize: POOL, logLevel: "warn" });
    await DBOS.launch();
    try {
      await measure(PEER, "one in flight", { call: nothing, inFlight: 1 }, counters);
      await measure(PEER, "one call each", { call: nothing, inFlight: IN_FLIGHT }, counters);
    } finally {
      await DBOS.shutdown();
    }
  }),
);
