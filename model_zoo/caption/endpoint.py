"""Language models behind a server with the OpenAI chat API: vLLM, SGLang, or a hosted one.

A card's weights are "http://HOST:8000/v1#MODEL", and after the model's name the options "&name=value":

* frames: frames of the clip in a request, 16
* timeout: seconds until an answer must arrive, 300
* attempts: attempts of a request if the server is busy or unreachable, 6
* tokens: longest answer, 2048
* fields: for an expert, the requested fields, joined by "+"
* confidence: for an expert, the confidence of its answers, 0 to 1, 0.7
* media: how frames are sent. images (default): as pictures, each after its time, which vLLM, SGLang and hosted servers accept;
  vLLM may limit their number (`--limit-mm-per-prompt '{"image": 16}'`). video: as one video of JPEG frames, as vLLM documents it
* response_format: json_schema (default), so that the server enforces the schema; none for a server that refuses it. Answers are
  checked in both cases

The key for the server is read only from A2DATA_API_KEY, so that it is in no settings and no table.
"""

import base64
import os
import re
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
from model_zoo.caption import skycaptioner as trained
from model_zoo.caption.fusion_llm import fusion as fused
from model_zoo.caption.schema import Ask, Completion

FIRST_WAIT_S = 1.0  # wait before the second attempt; doubled for each further one, minus a random part
MAX_WAIT_S = 60.0
MAX_RETRY_AFTER_S = 600.0  # upper bound of a server's Retry-After
CONNECT_S = 20.0
JPEG_QUALITY = 90
KEY = ". The key for it belongs into A2DATA_API_KEY"
DEFAULTS = {"frames": "16", "timeout": "300", "attempts": "6", "tokens": "2048", "fields": "", "confidence": "0.7"}
DEFAULTS |= {"media": "images", "response_format": "json_schema"}
CHOICES = {"media": ("images", "video"), "response_format": ("json_schema", "none")}


class Server(NamedTuple):
    """The address of a model server, and its request options."""

    url: str
    model: str
    options: dict[str, str]
    client: httpx.Client


class BusyError(Exception):
    """A failure that may pass; with the delay in seconds, if the server states one."""

    def __init__(self, reason: str, retry_after_s: float = 0.0):
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def captioner(card: Any, device: str) -> Callable[..., dict[str, Any]]:
    """A base captioner behind a server with the OpenAI chat API: a whole caption in one request."""
    server = connect(card)
    return structured.captioner(chat_client(server), int(server.options["frames"]))


def skycaptioner(card: Any, device: str) -> Callable[..., dict[str, Any]]:
    """SkyCaptioner-V1 behind vLLM, asked as in its training: model_zoo/caption/skycaptioner.py."""
    server = connect(card)
    server = server._replace(options={**server.options, "media": "video"})
    return trained.captioner(chat_client(server))


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
    with_retries(server, lambda: _check_reachable(server))
    return server


def _check_reachable(server: Server) -> None:
    """Ask for the list of models: a server that answers is there, even if it has no list. Raises RuntimeError for a wrong key."""
    try:
        code = server.client.get(server.url + "/models").status_code
    except httpx.TransportError as error:
        raise BusyError(f"{type(error).__name__}: {error}") from error
    if code in (401, 403):
        raise RuntimeError(f"{server.url} refused the request for {server.model}: {code}{KEY}")


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
    for name, choices in CHOICES.items():
        if options.get(name, choices[0]) not in choices:
            raise ValueError(f"model {card.name!r}: {name} must be {' or '.join(choices)}, got {options[name]!r}")
    for name in ("frames", "attempts", "tokens"):
        if name in options and not (options[name].isdecimal() and int(options[name])):
            raise ValueError(f"model {card.name!r}: {name} must be a number of at least 1, got {options[name]!r}")
    return url.rstrip("/"), model, DEFAULTS | options


def chat_client(server: Server) -> Ask:
    """Return `ask(messages, schema) -> Completion` over this server, thread-safe. It raises RuntimeError."""

    def ask(messages: list[dict[str, Any]], schema: dict[str, Any] | None) -> Completion:
        as_video = server.options["media"] == "video"
        body: dict[str, Any] = {
            "model": server.model,
            "messages": [_message(m, as_video) for m in messages],
            "temperature": 0,
            "seed": 0,
            "max_tokens": int(server.options["tokens"]),
        }
        if as_video:
            body |= _video_metadata(messages)
        if schema is not None and server.options["response_format"] == "json_schema":
            json_schema = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return _parse_completion(server, with_retries(server, lambda: _post(server, body)))

    return ask


def _message(message: dict[str, Any], as_video: bool) -> dict[str, Any]:
    """Return a message with its frames as a video, or as pictures, each after its time in seconds."""
    if isinstance(message["content"], str):
        return message
    content: list[dict[str, Any]] = []
    for part in message["content"]:
        if part["type"] != "frames":
            content.append(part)
            continue
        if as_video:
            jpegs = ",".join(_jpeg(frame) for frame in part["frames"])
            content.append({"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{jpegs}"}})
            continue
        for frame, second in zip(part["frames"], part["seconds"], strict=True):
            content.append({"type": "text", "text": f"at {second} s:"})
            content.append({"type": "image_url", "image_url": {"url": data_url(frame)}})
    return {**message, "content": content}


def _video_metadata(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return vLLM's parameters for a video of frames that are chosen already: their rate and times, and no further sampling.

    docs/features/multimodal_inputs.md of vLLM, "pre-extracted frame sequences". Other servers ignore them.
    """
    parts = [p for m in messages if not isinstance(m["content"], str) for p in m["content"] if p["type"] == "frames"]
    if not parts:
        return {}
    seconds = parts[0]["seconds"]
    duration_s = seconds[-1] - seconds[0]
    fps = (len(seconds) - 1) / duration_s if duration_s > 0 else 1.0
    video = {"fps": fps, "frames_indices": list(range(len(seconds))), "total_num_frames": len(seconds)}
    video |= {"duration": len(seconds) / fps, "do_sample_frames": False}
    return {"media_io_kwargs": {"video": video}, "mm_processor_kwargs": {"do_sample_frames": False}}


def data_url(frame: np.ndarray) -> str:
    """Return a frame, (h, w, 3) uint8 RGB, as a JPEG data URL."""
    return f"data:image/jpeg;base64,{_jpeg(frame)}"


def _jpeg(frame: np.ndarray) -> str:
    """Return a frame, (h, w, 3) uint8 RGB, as JPEG in base64."""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return base64.b64encode(jpeg.tobytes()).decode()


def with_retries(server: Server, attempt: Callable[[], Any]) -> Any:
    """Call `attempt`, with retries and backoff if the server is busy or unreachable. Raises RuntimeError if all fail."""
    attempts = int(server.options["attempts"])
    backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=MAX_WAIT_S)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        retry_after_s = error.retry_after_s if isinstance(error, BusyError) else 0.0
        # jitter: retries must not coincide
        return backoff(state) if retry_after_s <= 0 else retry_after_s + backoff(state) / 10

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


def _post(server: Server, body: dict[str, Any]) -> Any:
    """Send one request and return its JSON. Raises BusyError for a temporary failure, RuntimeError for a permanent one."""
    try:
        answer = server.client.post(f"{server.url}/chat/completions", json=body)
    except httpx.TransportError as error:  # time-outs, refused and dropped connections
        raise BusyError(f"{type(error).__name__}: {error}") from error
    code = answer.status_code
    if code in (408, 429) or code >= 500:
        raise BusyError(f"{code} {answer.reason_phrase}: {answer.text[:200]}", _retry_after_s(answer))
    if not answer.is_success:
        hint = KEY if code in (401, 403) else _hint(server, answer.text)
        raise RuntimeError(
            f"{server.url} refused the request for {server.model}: {code} {answer.reason_phrase}: {answer.text[:300]}{hint}"
        )
    try:
        return answer.json()
    except ValueError as error:
        raise BusyError(f"the answer is not JSON: {answer.text[:100]!r}") from error


def _hint(server: Server, message: str) -> str:
    """Return what to change if a server refuses the number of pictures or the schema."""
    if re.search(r"at most \d+ (?:image|video)|limit-mm-per-prompt", message, re.IGNORECASE):
        kind, count = ("video", 1) if server.options["media"] == "video" else ("image", server.options["frames"])
        fewer = "" if kind == "video" else ", or ask for fewer with &frames=N"
        return f". Start the server with --limit-mm-per-prompt '{{\"{kind}\": {count}}}'{fewer}"
    if "response_format" in message:
        return ". It does not enforce schemas: add &response_format=none to the address"
    return ""


def _retry_after_s(answer: httpx.Response) -> float:
    """Return the header Retry-After in seconds, also if it is a date; 0 if missing or unreadable."""
    header = answer.headers.get("Retry-After", "").strip()
    try:
        seconds = float(header) if header.replace(".", "", 1).isdecimal() else _seconds_until(header)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def _parse_completion(server: Server, answer: Any) -> Completion:
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RuntimeError(f"{server.url} did not return a chat completion: {str(answer)[:200]}") from error
    if reason == "content_filter":
        raise RuntimeError(f"{server.url} withheld its answer: its content filter rejected this clip")
    return Completion(text, reason != "length")
