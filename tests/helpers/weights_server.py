"""A server on the loopback that serves files, and what the API of the Hugging Face hub says of repositories."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves `files` by path, ranges too. Notes what was asked for, and how many bytes of each path were sent.

    drops: bytes after which each next answer of a path is cut off.
    """

    def do_GET(self):
        self.server.asked.append(self.path)
        status, body = self.server.files.get(self.path.partition("?")[0], (404, b"no"))
        etag, size = f'"{sha256(body)}"', len(body)
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if first and self.headers.get("If-Range", etag) == etag:
            status, body = 206, body[first:]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.send_header(
            "Content-Type", "text/html" if self.path.startswith("/simple/") else "application/octet-stream"
        )
        self.send_header("X-Error-Code", "GatedRepo" if status == 403 else "")
        self.end_headers()
        if self.command == "GET":
            drops = self.server.drops.get(self.path, [])
            body = body[: drops.pop(0)] if drops else body
            self.wfile.write(body)
            self.server.sent[self.path] += len(body)
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    """A server for as long as the block lasts."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.files, httpd.asked = {}, []
    httpd.drops, httpd.sent = {}, Counter()
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield httpd
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def publish(server, repository: str, revision: str, files: dict[str, bytes], commit: str = COMMIT) -> None:
    """Serve a repository of the hub, at that commit."""
    siblings = [
        {"rfilename": name, "size": len(data), "lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 1}}
        for name, data in files.items()
    ]
    said = {"id": repository, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
    body = json.dumps(said | {"private": False}).encode()
    server.files[f"/api/models/{repository}/revision/{revision}"] = (200, body)
    for name, data in files.items():
        server.files[f"/{repository}/resolve/{commit}/{name}"] = (200, data)
