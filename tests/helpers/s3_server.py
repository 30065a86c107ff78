"""An S3 server (moto) on this machine, whose answers can be replaced by errors."""

import threading
from collections.abc import Callable

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>as the test wants it</Message></Error>"
BUSY = ("503 Slow Down", "SlowDown")
EXPIRED = ("400 Bad Request", "ExpiredToken")


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class S3Server:
    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.requests: list[tuple[str, str]] = []  # method, path
        self.fault: Callable[[int], tuple[str, str] | None] = lambda n: (
            None
        )  # the n-th request -> (status, code) of the error
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        fault = self.fault(len(self.requests))
        if fault is None:
            return self.moto(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = ERROR.format(fault[1]).encode()
        start_response(fault[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]
