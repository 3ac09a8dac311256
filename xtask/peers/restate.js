// Restate: a service whose one handler does nothing, called over the ingress's socket.

import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import http from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

import { describe, main, measure, version } from "./measure.js";
import { Server } from "./server.js";

const IN_FLIGHT = 128;
/** Names the folder of its sockets. */
const NODE = "bench";

const PEER = `Restate ${version("@restatedev/restate-server")}`;

/** What decides about durability, by its section and name in Restate's configuration. */
const DURABILITY = [
  ["", "default-replication"],
  ["", "default-num-partitions"],
  ["bifrost", "default-provider"],
  ["log-server", "rocksdb-disable-wal-fsync"],
];

/** The server's binary, which is a package for each platform. */
const BINARY = new URL(
  `./node_modules/@restatedev/restate-server-${process.platform}-${process.arch}/bin/restate-server`,
  import.meta.url,
);

/** Picks what decides about durability out of a configuration. */
function durability(toml) {
  const found = {};
  let section = "";
  for (const line of toml.split("\n")) {
    section = /^\[(.+)\]$/.exec(line)?.[1] ?? section;
    const [name, value] = line.split(" = ");
    if (DURABILITY.some(([where, wanted]) => where === section && wanted === name)) {
      found[section === "" ? name : `${section}.${name}`] = value;
    }
  }
  return found;
}

/** Keeps its connections to a socket open. */
class Caller {
  #socketPath;
  #agent = new http.Agent({ keepAlive: true, maxSockets: IN_FLIGHT });

  constructor(socketPath) {
    this.#socketPath = socketPath;
  }

  /** Gives the answer's body; throws where the status is not of success. */
  request(method, path, body, headers = {}) {
    const text = body === undefined ? "" : JSON.stringify(body);
    const type = body === undefined ? {} : { "content-type": "application/json" };
    const options = {
      socketPath: this.#socketPath,
      agent: this.#agent,
      method,
      path,
      headers: { ...headers, ...type, "content-length": Buffer.byteLength(text) },
    };
    return new Promise((resolve, reject) => {
      const request = http.request(options, (response) => {
        let answer = "";
        response.setEncoding("utf8").on("data", (part) => (answer += part));
        response.on("error", reject).on("end", () => {
          const { statusCode } = response;
          if (statusCode >= 200 && statusCode < 300) resolve(answer);
          else reject(new Error(`${method} ${path}: ${statusCode}: ${answer}`));
        });
      });
      request.on("error", reject).end(text);
    });
  }
}

await main(async (folder) => {
  const home = join(folder, "restate");
  const command = [fileURLToPath(BINARY), "--no-logo", "--listen-mode", "unix", "--base-dir", home, "--node-name", NODE];
  const env = { ...process.env, RESTATE_DISABLE_TELEMETRY: "true", RESTATE_LOG_FILTER: "warn" };
  const settings = durability(execFileSync(command[0], [...command.slice(1), "--dump-config"], { env, encoding: "utf8" }));
  describe(
    PEER,
    {
      called: "over HTTP on the ingress's Unix socket; Restate calls the handler over HTTP/2 on loopback",
      durable: "the invocation before it is given to the service, and its result before the caller is answered",
      durable_writes: "a record of the log for the invocation, its effects and its end, each synchronised with those of other invocations",
      delivery: "steps that are recorded run once, others at least once; one result per idempotency key, where the caller sends one",
      fencing: "a leader's epoch for each partition",
      evidence: "none: the journal of an invocation can be asked for until its retention is over",
      authorisation: "none",
    },
    { ...settings, base_dir: home },
  );

  const service = new Worker(new URL("./restate-service.js", import.meta.url));
  const server = new Server(command, { env });
  try {
    const port = await new Promise((resolve, reject) => service.once("message", resolve).once("error", reject));
    const admin = new Caller(join(home, NODE, "admin.sock"));
    await server.answers(() => admin.request("GET", "/health"));
    await admin.request("POST", "/deployments", { uri: `http://127.0.0.1:${port}` });
    const ingress = new Caller(join(home, NODE, "ingress.sock"));
    const plain = () => ingress.request("POST", "/nothing/run");
    const keyed = () => ingress.request("POST", "/nothing/run", undefined, { "idempotency-key": randomUUID() });
    // Its partitions find their leaders meanwhile.
    await server.answers(plain);
    await measure(PEER, "one in flight", { call: plain, inFlight: 1 });
    await measure(PEER, "one call each", { call: plain, inFlight: IN_FLIGHT });
    await measure(`${PEER}, with an idempotency key`, "one call each", { call: keyed, inFlight: IN_FLIGHT });
  } finally {
    await server.end();
    await service.terminate();
  }
});
