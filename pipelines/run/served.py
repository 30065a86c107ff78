"""The captioner's model server, started and stopped by the run: vLLM or SGLang, with a replica on each GPU of this machine."""

import ctypes
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

log = logging.getLogger("a2data")

# both distribute requests over their replicas behind one port; flags of the user come last, so that they win
COMMANDS = {
    "vllm": "vllm serve {model} --host {host} --port {port} --data-parallel-size {gpus}",
    "sglang": "sglang serve --model-path {model} --host {host} --port {port} --dp-size {gpus}",
}
START_TIMEOUT_S = 3600.0  # longest start: weights of 200 GB are read, kernels compiled
POLL_S = 1.0
STOP_TIMEOUT_S = 30.0  # wait after SIGTERM
PR_SET_PDEATHSIG = 1


def command(serve: str, captioner: str, gpus: int) -> tuple[list[str], str]:
    """Return the command of a server for a captioner, and the base of its API.

    serve: "vllm" or "sglang", and flags to add. captioner: NAME:http://HOST:PORT/v1#MODEL.
    Raises ValueError for another server, and for a captioner without the address of one.
    """
    kind, *flags = shlex.split(serve) or [""]
    if kind not in COMMANDS:
        raise ValueError(f"--serve {serve!r}: expected {' or '.join(COMMANDS)}, and flags of that server")
    url, _, rest = captioner.partition(":")[2].partition("#")
    address, model = urlsplit(url), rest.partition("&")[0]
    if address.scheme != "http" or not address.port or not model:
        raise ValueError(
            f"--serve {kind}: caption.captioner is {captioner!r}, which does not name a server to start: "
            "write it as openai:ADDRESS#MODEL, where ADDRESS is such as http://127.0.0.1:8000/v1"
        )
    values = {"model": model, "host": address.hostname, "port": address.port, "gpus": gpus}
    return [part.format(**values) for part in COMMANDS[kind].split()] + flags, url.rstrip("/")


def visible_gpus() -> int:
    """Return the number of GPUs of this machine that a server may use, at least 1."""
    if find_spec("torch") is None:
        return 1
    import torch

    return max(1, torch.cuda.device_count())


@contextmanager
def served(serve: str, captioner: str, work: str, ready_s: float = START_TIMEOUT_S) -> Iterator[None]:
    """Run the server of a captioner while the block runs, once it answers.

    work: folder of its log, if it is local. Raises ValueError if the server is not installed or another one has its port, and
    ConnectionError if it ends or does not answer within `ready_s`.
    """
    argv, url = command(serve, captioner, visible_gpus())
    if shutil.which(argv[0]) is None:
        raise ValueError(f"--serve {argv[0]}: the command {argv[0]!r} is not installed on this machine")
    if is_ready(url):
        raise ValueError(f"--serve {argv[0]}: another server answers at {url}: stop it, or run without --serve")
    folder = Path(tempfile.gettempdir() if "://" in work else work)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "caption-server.log"
    log.info("starting %s; its log is %s", shlex.join(argv), path)
    with path.open("ab") as file:
        process = subprocess.Popen(
            argv,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # with its replicas in one group
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        _wait_until_ready(process, url, path, ready_s)
        yield
        if process.poll() is not None:
            log.error("the captioner's server ended during the run with code %d: see %s", process.returncode, path)
    finally:
        _stop(process)


def is_ready(url: str) -> bool:
    """Return whether a server lists its models at this address."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=10) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # it wants A2DATA_API_KEY
    except OSError:
        return False


def _wait_until_ready(process: subprocess.Popen, url: str, path: Path, ready_s: float) -> None:
    deadline = time.monotonic() + ready_s
    while not is_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            ended = process.returncode is not None
            reason = f"ended with code {process.returncode}" if ended else f"did not answer within {ready_s:g} s"
            last = path.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise ConnectionError(f"the captioner's server {reason}: {last} (see {path})")
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen) -> None:
    """End the server and its replicas."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):  # replicas that ignored it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_with_parent() -> None:
    """Let the kernel end the server if this process is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
