// The service that Restate calls. A thread of its own: callers and service would share one otherwise.

import { createServer } from "node:http2";
import { parentPort } from "node:worker_threads";

import { createEndpointHandler, service } from "@restatedev/restate-sdk";

/** By itself it writes two lines for each invocation, which costs more than anything else it does. */
const troubles = ({ level }, ...said) => {
  if (level === "error" || level === "warn") console.error(...said);
};
const nothing = service({ name: "nothing", handlers: { run: async () => {} } });
const server = createServer(createEndpointHandler({ services: [nothing], logger: troubles }));
server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
