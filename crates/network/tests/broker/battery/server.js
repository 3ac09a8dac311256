// Node's http as lenient as it can be made, with a JSON line a request.
"use strict";
const http = require("node:http");

const options = { insecureHTTPParser: true, requireHostHeader: false };
const server = http.createServer(options, (request, response) => {
  const hosts = [];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    if (request.rawHeaders[at].toLowerCase() === "host") hosts.push(request.rawHeaders[at + 1]);
  }
  const entry = { method: request.method, host: hosts.join(", "), target: request.url };
  process.stdout.write(JSON.stringify(entry) + "\n");
  response.end();
});
server.listen(0, "127.0.0.1", () => process.stdout.write(server.address().port + "\n"));
process.stdin.on("end", () => server.close(() => process.exit(0))).resume();
