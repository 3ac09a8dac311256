// PostgreSQL as it is installed, in a folder of its own.

import { execFileSync } from "node:child_process";
import { globSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";

import pg from "pg";

import { Server } from "./server.js";

/** What decides about durability: said as the server itself says it. */
const SETTINGS = ["server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "data_directory"];

/**
 * Calls `work` with the address of a new database, what it has counted, and its settings. The server
 * listens on a socket in the folder, and has ended when this returns.
 */
export async function withPostgres(folder, work) {
  const home = join(folder, "postgresql");
  mkdirSync(home, { recursive: true });
  const [newest] = globSync("/usr/lib/postgresql/*/bin/postgres").sort(byVersion).reverse();
  if (newest === undefined) throw new Error("PostgreSQL is not installed: apt-get install postgresql");
  const data = join(home, "data");
  const initdb = [join(dirname(newest), "initdb"), "-D", data, "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale", "C.UTF-8"];
  const [program, ...args] = notAsRoot(initdb);
  execFileSync(program, args, { cwd: home, stdio: ["ignore", "ignore", "inherit"] });

  const settings = ["-c", "listen_addresses=", "-c", "fsync=on", "-c", "synchronous_commit=on", "-k", home];
  const server = new Server(notAsRoot([newest, "-D", data, ...settings]), { cwd: home });
  try {
    await server.says("ready to accept connections");
    const client = new pg.Client({ host: home, user: "bench", database: "postgres" });
    await client.connect();
    try {
      await work({
        url: `postgresql://bench@localhost/postgres?host=${encodeURIComponent(home)}`,
        counters: () => counters(client),
        settings: await shown(client),
      });
    } finally {
      await client.end();
    }
  } finally {
    await server.end();
  }
}

/** PostgreSQL refuses to be root: it is somebody else then, in a user namespace of its own. */
function notAsRoot(command) {
  return process.geteuid() === 0 ? ["unshare", "--user", "--map-user=1", "--map-group=1", ...command] : command;
}

function byVersion(one, other) {
  return one.localeCompare(other, "en", { numeric: true });
}

async function counters(client) {
  const { rows } = await client.query(
    "SELECT xact_commit::float8 AS transactions, (pg_current_wal_lsn() - '0/0')::float8 AS wal_bytes" +
      " FROM pg_stat_database WHERE datname = current_database()",
  );
  return rows[0];
}

async function shown(client) {
  const all = {};
  for (const name of SETTINGS) {
    const { rows } = await client.query(`SHOW ${name}`);
    all[name] = rows[0][name];
  }
  return all;
}
