"""Python's http.server, with handlers that leave a body where it is, and one JSON line a request."""

import http.server
import json
import os
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        entry = {
            "method": self.command,
            "host": ", ".join(self.headers.get_all("Host", [])),
            "target": self.path,
        }
        print(json.dumps(entry), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *arguments):
        pass


class Server(http.server.HTTPServer):
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that has gone is none of ours."""


def until_let_go():
    sys.stdin.read()
    os._exit(0)


server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
threading.Thread(target=until_let_go, daemon=True).start()
server.serve_forever()
