"""A web server in the test's own process, and a network on which public addresses lead to it."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipelines.sources.download import Network, connect

PUBLIC, OTHER = "93.184.216.34", "8.8.4.4"
HOSTS = {"films.example": PUBLIC, "other.example": OTHER, "inside.example": "10.0.0.7"}
DATE = "Sat, 01 Nov 2025 00:00:00 GMT"


class Films(ThreadingHTTPServer):
    """answers: path -> bytes, or a function that is given the handler. What was asked, with its headers, is in `asked`."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.asked = {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def paths(self):
        return [path for path, _ in self.asked]

    def network(self, hosts):
        """hosts: name -> address. Connections to PUBLIC and OTHER come here, whatever the port."""
        self.connected = []

        def connected(address, port, timeout_s):
            self.connected.append(address)
            assert address in (PUBLIC, OTHER), f"connected to {address}"
            return connect("127.0.0.1", self.server_port, timeout_s)

        return Network(lambda host, port: [hosts[host]], connected)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404)
        elif callable(answer):
            with contextlib.suppress(OSError):
                answer(self)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Last-Modified", DATE)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

    def log_message(self, *_):
        pass


def redirect(to):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.end_headers()

    return answer


def drip(seconds=0.02):
    """A byte at a time, without end."""

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(seconds)

    return answer


def drip_headers(handler):
    """Headers without end, a letter at a time."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.02)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def cut_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"only this")


def cut_off_after(size):
    """The headers of a file of that size, and none of it."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.send_header("Last-Modified", DATE)
        handler.end_headers()

    return answer


@contextlib.contextmanager
def serving():
    server = Films()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
