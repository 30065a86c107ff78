"""Language models behind a server with the OpenAI chat API: vLLM, SGLang, or a hosted one.

A card's weights are "http://HOST:8000/v1#MODEL", and after the model's name the options "&name=value":

* frames: frames of the clip in a request, 16
* timeout: seconds until an answer must arrive, 300
* attempts: attempts of a request if the server is busy or unreachable, 6
* tokens: longest answer, 2048
* fields: for an expert, the requested fields, joined by "+"
* confidence: for an expert, the confidence of its answers, 0 to 1, 0.7

The key for the server is read only from A2DATA_API_KEY, so that it is in no settings and no table.
"""

import base64
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import cv2
import httpx
import numpy as np
import tenacity

from model_zoo.caption import schema as structured
from model_zoo.caption.fusion_llm import fusion as fused
from model_zoo.caption.schema import Ask, Completion

FIRST_WAIT_S = 1.0  # wait before the second attempt; doubled for each further one, minus a random part
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0  # upper bound of a server's Retry-After
CONNECT_S = 20.0
JPEG_QUALITY = 90
DEFAULTS = {"frames": "16", "timeout": "300", "attempts": "6", "tokens": "2048", "fields": "", "confidence": "0.7"}


class Server(NamedTuple):
    """The address of a model server, and its request options."""

    url: str
    model: str
    options: dict[str, str]
    client: httpx.Client


class BusyError(Exception):
    """A failure that may pass; with the delay in seconds, if the server states one."""

    def __init__(self, why: str, retry_after_s: float = 0.0):
        super().__init__(why)
        self.retry_after_s = retry_after_s


def captioner(card: Any, device: str) -> Callable[..., dict[str, Any]]:
    """A base captioner behind a server with the OpenAI chat API: a whole caption in one request."""
    server = connect(card)
    return structured.captioner(chat_client(server), int(server.options["frames"]))


def expert(card: Any, device: str) -> Callable[..., list]:
    """An expert for the fields of the option `fields`."""
    server = connect(card)
    fields = [name for name in server.options["fields"].split("+") if name]
    frames = int(server.options["frames"])
    return structured.expert(chat_client(server), fields, float(server.options["confidence"]), frames)


def fusion(card: Any, device: str) -> Callable[[dict[str, Any]], str]:
    """Fusion by a language model, without pictures."""
    return fused(chat_client(connect(card)))


def connect(card: Any) -> Server:
    """Return the server of a card after one request to check that it is reachable and accepts the key.

    Raises ValueError for an address without a model or with an unknown option, RuntimeError if the server is unreachable or
    rejects the key.
    """
    url, model, options = address(card)
    key = os.environ.get("A2DATA_API_KEY")
    client = httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(float(options["timeout"]), connect=min(CONNECT_S, float(options["timeout"]))),
        # redirects are not followed, so http needs no certificates, which load slowly
        verify=url.startswith("https"),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),  # the stage limits concurrency
    )
    server = Server(url, model, options, client)
    with_retries(server, lambda: _answer(server, "GET", "/models", unknown_is_fine=True))
    return server


def address(card: Any) -> tuple[str, str, dict[str, str]]:
    """Return the address, model and options of a card. Raises ValueError with the expected format."""
    url, _, rest = card.weights.partition("#")
    model, *pairs = rest.split("&")
    if not url.startswith(("http://", "https://")) or not model:
        name = card.name.partition(":")[0]
        raise ValueError(
            f"model {card.name!r} runs on a server: give its address and model: {name}:http://HOST:8000/v1#MODEL"
        )
    options = dict(pair.partition("=")[::2] for pair in pairs)
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"model {card.name!r} has no option {unknown[0]!r}; options: {', '.join(DEFAULTS)}")
    for name in ("frames", "attempts", "tokens"):
        if name in options and not (options[name].isdecimal() and int(options[name])):
            raise ValueError(f"model {card.name!r}: {name} must be a number of at least 1, got {options[name]!r}")
    return url.rstrip("/"), model, DEFAULTS | options


def chat_client(server: Server) -> Ask:
    """Return `ask(messages, schema) -> Completion` over this server, thread-safe. It raises RuntimeError."""

    def ask(messages: list[dict[str, Any]], schema: dict[str, Any] | None) -> Completion:
        body: dict[str, Any] = {
            "model": server.model,
            "messages": [_message(m) for m in messages],
            "temperature": 0,
            "seed": 0,
            "max_tokens": int(server.options["tokens"]),
        }
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return _said(server, with_retries(server, lambda: _answer(server, "POST", "/chat/completions", body)))

    return ask


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its frames as pictures, each after its time in seconds."""
    if isinstance(message["content"], str):
        return message
    content: list[dict[str, Any]] = []
    for part in message["content"]:
        if part["type"] != "frames":
            content.append(part)
            continue
        for frame, second in zip(part["frames"], part["seconds"], strict=True):
            content.append({"type": "text", "text": f"at {second} s:"})
            content.append({"type": "image_url", "image_url": {"url": data_url(frame)}})
    return {**message, "content": content}


def data_url(frame: np.ndarray) -> str:
    """Return a frame, (h, w, 3) uint8 RGB, as a JPEG data URL."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def with_retries(server: Server, attempt: Callable[[], Any]) -> Any:
    """Call `attempt`, with retries and backoff if the server is busy or unreachable. Raises RuntimeError if all fail."""
    attempts = int(server.options["attempts"])
    grows = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = error.retry_after_s if isinstance(error, BusyError) else 0.0
        return grows(state) if told <= 0 else told + grows(state) / 10  # jitter: retries must not coincide

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        retry=tenacity.retry_if_exception_type(BusyError),
        sleep=time.sleep,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except BusyError as error:
        raise RuntimeError(f"{server.url} did not answer in {attempts} attempts: {error}") from error


def _answer(server: Server, method: str, path: str, body: Any = None, unknown_is_fine: bool = False) -> Any:
    """Send one request and return its JSON. Raises BusyError for a temporary failure, RuntimeError for a permanent one."""
    try:
        answer = server.client.request(method, server.url + path, json=body)
    except httpx.TransportError as error:  # time-outs, refused and dropped connections
        raise BusyError(f"{type(error).__name__}: {error}") from error
    code = answer.status_code
    if code in (408, 429) or code >= 500:
        raise BusyError(f"{code} {answer.reason_phrase}: {answer.text[:200]}", _retry_after_s(answer))
    if unknown_is_fine and code in (404, 405):  # not every server lists its models
        return None
    if not answer.is_success:
        hint = ". The key for it belongs into A2DATA_API_KEY" if code in (401, 403) else ""
        raise RuntimeError(
            f"{server.url} refused the request for {server.model}: {code} {answer.reason_phrase}: {answer.text[:300]}{hint}"
        )
    try:
        return answer.json()
    except ValueError as error:
        raise BusyError(f"the answer is not JSON: {answer.text[:100]!r}") from error


def _retry_after_s(answer: httpx.Response) -> float:
    """Return the header Retry-After in seconds, also if it is a date; 0 if missing or unreadable."""
    said = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(said) if said.replace(".", "", 1).isdecimal() else _until(said)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def _until(date: str) -> float:
    when = parsedate_to_datetime(date)
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def _said(server: Server, answer: Any) -> Completion:
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RuntimeError(f"{server.url} did not return a chat completion: {str(answer)[:200]}") from error
    if reason == "content_filter":
        raise RuntimeError(f"{server.url} withheld its answer: its content filter rejected this clip")
    return Completion(text, reason != "length")
