"""A small HTTP server on the loopback, for fakes: it can hang up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
Ask = Callable[[str, str, dict[str, str], bytes], Answer]
"""Method, target as it came, headers in small letters, body."""


class HungUp(Exception):
    """The connection ends here, without an answer."""


class Loopback:
    def __init__(self, ask: Ask) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.ask = ask
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    ask: Ask


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {key.lower(): value for key, value in self.headers.items()}
        try:
            status, more, told = self.server.ask(self.command, self.path, headers, body)
        except HungUp:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **more}.items():
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, *_: Any) -> None:
        pass
