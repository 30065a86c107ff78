"""A server on loopback that speaks the OpenAI chat API, and says what a test tells it to."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np


class Chat:
    """What a server was asked, and how many at a time. `answer(body, number)` returns what `reply` or `refuse` makes."""

    def __init__(self, answer: Callable[[dict, int], tuple[int, dict, bytes] | None]):
        self.answer, self.lock = answer, threading.Lock()
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.in_flight = self.max_in_flight = 0
        self.url = ""

    def card(self, role: str = "openai", **options: Any) -> str:
        return f"{role}:{self.url}/v1#tiny/model" + "".join(f"&{k}={v}" for k, v in options.items())


def reply(content: Any, finish_reason: str = "stop") -> tuple[int, dict, bytes]:
    text = content if isinstance(content, str) else json.dumps(content)
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return 200, {}, json.dumps({"choices": [choice]}).encode()


def refuse(code: int, **headers: str) -> tuple[int, dict, bytes]:
    return code, {k.replace("_", "-"): v for k, v in headers.items()}, b'{"error": "no"}'


@contextmanager
def serving(answer: Callable[[dict, int], Any], models: int = 200) -> Iterator[Chat]:
    """A server for as long as the block lasts. An answer of None drops the connection."""
    chat = Chat(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(models, {}, b'{"data": []}')

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with chat.lock:
                chat.bodies.append(body)
                chat.headers.append(dict(self.headers))
                number = len(chat.bodies) - 1
                chat.in_flight += 1
                chat.max_in_flight = max(chat.max_in_flight, chat.in_flight)
            try:
                answered = chat.answer(body, number)
            finally:
                with chat.lock:
                    chat.in_flight -= 1
            if answered is None:
                self.close_connection = True
                self.connection.close()
            else:
                self._send(*answered)

        def _send(self, code: int, headers: dict, data: bytes) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that left before its answer
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()


def pictures(body: dict) -> list[np.ndarray]:
    """The pictures of a request, (h, w, 3) uint8 RGB."""
    parts = [p for m in body["messages"] if isinstance(m["content"], list) for p in m["content"]]
    data = [base64.b64decode(p["image_url"]["url"].partition(",")[2]) for p in parts if p["type"] == "image_url"]
    return [cv2.cvtColor(cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) for d in data]


def words(body: dict) -> str:
    """All that a request says in words."""
    contents = [m["content"] for m in body["messages"]]
    return "\n".join(c if isinstance(c, str) else "\n".join(p.get("text", "") for p in c) for c in contents)
