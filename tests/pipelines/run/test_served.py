"""The captioner's server lasts as long as the run: a fake executable stands in for vLLM."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipelines.run import served
from pipelines.run.served import command, is_ready

FAKE = """#!{python}
import sys, http.server
print("arguments", *sys.argv[1:], flush=True)
{action}
"""
SERVES = """
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def captioner(monkeypatch) -> str:
    monkeypatch.setattr(served, "POLL_S", 0.05)
    monkeypatch.setattr(served, "visible_gpus", lambda: 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"openai:http://127.0.0.1:{free.getsockname()[1]}/v1#some/model&frames=8"


def install(monkeypatch, folder: Path, action: str) -> None:
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(FAKE.format(python=sys.executable, action=action))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def url_of(captioner: str) -> str:
    return captioner.partition(":")[2].partition("#")[0]


def ended(url: str) -> bool:
    until = time.monotonic() + 20
    while is_ready(url) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_ready(url)


def test_it_answers_while_the_run_lasts_and_its_log_is_kept(monkeypatch, tmp_path, captioner):
    install(monkeypatch, tmp_path, SERVES)
    with served.served("vllm --max-model-len 8192", captioner, str(tmp_path / "work")):
        assert is_ready(url_of(captioner))
        with pytest.raises(ValueError, match="another server answers"), served.served("vllm", captioner, str(tmp_path)):
            pass
    assert ended(url_of(captioner))
    said = (tmp_path / "work" / "caption-server.log").read_text()
    assert said.startswith("arguments serve some/model --host 127.0.0.1 --port ")
    assert said.partition("\n")[0].endswith(" --data-parallel-size 2 --max-model-len 8192")


def test_it_ends_if_the_run_fails(monkeypatch, tmp_path, captioner):
    install(monkeypatch, tmp_path, SERVES)
    with pytest.raises(KeyboardInterrupt), served.served("vllm", captioner, str(tmp_path)):
        raise KeyboardInterrupt
    assert ended(url_of(captioner))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it outlives a run that is killed")
def test_it_ends_if_the_run_is_killed(monkeypatch, tmp_path, captioner):
    install(monkeypatch, tmp_path, SERVES)
    script = f"""
        import time
        from pipelines.run import served
        served.visible_gpus = lambda: 1
        with served.served("vllm", {captioner!r}, {str(tmp_path)!r}):
            print("ready", flush=True)
            time.sleep(60)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert ended(url_of(captioner))


def test_one_that_does_not_start_is_reported_with_its_last_words(monkeypatch, tmp_path, captioner):
    install(monkeypatch, tmp_path, 'sys.exit("no weights")')
    with (
        pytest.raises(ConnectionError, match=r"ended with code 1: no weights \(see .*caption-server.log"),
        served.served("vllm", captioner, str(tmp_path)),
    ):
        pass


def test_one_that_never_answers_is_ended(monkeypatch, tmp_path, captioner):
    install(monkeypatch, tmp_path, "import time; time.sleep(60)")
    with (
        pytest.raises(ConnectionError, match=r"did not answer within 0\.5 s"),
        served.served("vllm", captioner, str(tmp_path), ready_s=0.5),
    ):
        pass


@pytest.mark.parametrize(
    ("serve", "captioner", "match"),
    [
        ("ollama", "openai:http://127.0.0.1:8000/v1#m", "expected vllm or sglang"),
        ("vllm", "builtin-caption", "caption.captioner is 'builtin-caption'"),
        ("vllm", "openai:http://127.0.0.1:8000/v1", "does not name a server to start"),
    ],
)
def test_what_cannot_be_served_is_refused(serve, captioner, match):
    with pytest.raises(ValueError, match=match):
        command(serve, captioner, 1)


def test_a_server_that_is_not_installed_is_refused(tmp_path, captioner, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with (
        pytest.raises(ValueError, match="'sglang' is not installed"),
        served.served("sglang", captioner, str(tmp_path)),
    ):
        pass
