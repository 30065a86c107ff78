"""Language models behind a server that speaks the OpenAI chat API: vLLM, SGLang, or a hosted one.

A card's weights are "http://HOST:8000/v1#MODEL", and after the model's name the options "&name=value":

* frames: how many frames of the clip it is shown, 16
* timeout: seconds until an answer must be there, 300
* attempts: how often a request is sent when the server is busy or away, 6
* tokens: the most that an answer may have, 2048
* fields: for an expert, the fields it is asked for, joined by "+"
* confidence: for an expert, how sure its answers count, 0 to 1, 0.7

The key for the server comes from A2DATA_API_KEY and from nowhere else, so that it stands in no settings and no table.
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

FIRST_WAIT_S = 1.0  # before the second attempt; twice as long before each further one, less a random part
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0  # a server that asks for more is taken at this
CONNECT_S = 20.0
JPEG_QUALITY = 90
DEFAULTS = {"frames": "16", "timeout": "300", "attempts": "6", "tokens": "2048", "fields": "", "confidence": "0.7"}


class Server(NamedTuple):
    """Where a model is served, and how it is asked."""

    url: str
    model: str
    options: dict[str, str]
    client: httpx.Client


class BusyError(Exception):
    """An attempt that may go better later; says after how many seconds, when the server does."""

    def __init__(self, why: str, retry_after_s: float = 0.0):
        super().__init__(why)
        self.retry_after_s = retry_after_s


def captioner(card: Any, device: str) -> Callable[..., dict[str, Any]]:
    """A base captioner behind a server that speaks the OpenAI chat API: a whole caption in one request."""
    server = connect(card)
    return structured.captioner(chat_client(server), int(server.options["frames"]))


def expert(card: Any, device: str) -> Callable[..., list]:
    """An expert for the fields that the option `fields` names."""
    server = connect(card)
    fields = [name for name in server.options["fields"].split("+") if name]
    frames = int(server.options["frames"])
    return structured.expert(chat_client(server), fields, float(server.options["confidence"]), frames)


def fusion(card: Any, device: str) -> Callable[[dict[str, Any]], str]:
    """Fusion by a language model, which sees no picture."""
    return fused(chat_client(connect(card)))


def connect(card: Any) -> Server:
    """The server of a card, asked once whether it is there and lets us in.

    Raises ValueError for an address without a model or with an option that there is not, RuntimeError where the server stays
    away or refuses the key.
    """
    url, model, options = address(card)
    key = os.environ.get("A2DATA_API_KEY")
    client = httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(float(options["timeout"]), connect=min(CONNECT_S, float(options["timeout"]))),
        # redirects are not followed, so http needs no certificates, which take long to read
        verify=url.startswith("https"),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),  # how many at once, the stage decides
    )
    server = Server(url, model, options, client)
    with_retries(server, lambda: _answer(server, "GET", "/models", unknown_is_fine=True))
    return server


def address(card: Any) -> tuple[str, str, dict[str, str]]:
    """The address, model and options of a card. Raises ValueError with what it should look like."""
    url, _, rest = card.weights.partition("#")
    model, *pairs = rest.split("&")
    if not url.startswith(("http://", "https://")) or not model:
        name = card.name.partition(":")[0]
        raise ValueError(
            f"model {card.name!r} is on a server: say which, and its model: {name}:http://HOST:8000/v1#MODEL"
        )
    options = dict(pair.partition("=")[::2] for pair in pairs)
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"model {card.name!r} has no option {unknown[0]!r}; there are {', '.join(DEFAULTS)}")
    for name in ("frames", "attempts", "tokens"):
        if name in options and not (options[name].isdecimal() and int(options[name])):
            raise ValueError(f"model {card.name!r}: {name} is a number from 1, not {options[name]!r}")
    return url.rstrip("/"), model, DEFAULTS | options


def chat_client(server: Server) -> Ask:
    """`ask(messages, schema) -> Said` over this server; from many threads at a time if need be. Raises RuntimeError."""

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
    """A message with its frames as pictures, each after the second that it shows."""
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
    """A frame, (h, w, 3) uint8 RGB, as a JPEG inside a URL."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def with_retries(server: Server, attempt: Callable[[], Any]) -> Any:
    """Do it, and again after a while where the server is busy or away. Raises RuntimeError after the last attempt."""
    attempts = int(server.options["attempts"])
    grows = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = error.retry_after_s if isinstance(error, BusyError) else 0.0
        return grows(state) if told <= 0 else told + grows(state) / 10  # not all of them at the same moment

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
    """One request, one answer's JSON. Raises BusyError for what may pass, RuntimeError for what will not."""
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
        raise BusyError(f"the answer is no JSON: {answer.text[:100]!r}") from error


def _retry_after_s(answer: httpx.Response) -> float:
    """What the header Retry-After says, in seconds or as a date; 0 where it says nothing that can be read."""
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
        raise RuntimeError(f"{server.url} answered with no chat completion: {str(answer)[:200]}") from error
    if reason == "content_filter":
        raise RuntimeError(f"{server.url} withheld its answer: its content filter objects to this clip")
    return Completion(text, reason != "length")
