"""What is written down of a training."""

import json
import sys
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.train import log as train_log  # noqa: E402

CPU = ProcessInfo(0, 1, torch.device("cpu"))


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_operations_per_second_and_their_share_of_the_peak_are_of_samples_and_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(train_log, "peak_tflops", lambda device: 400.0)
    log = train_log.TrainingLog(tmp_path, CPU, flops_per_sample=5e12, tokens_per_sample=100)
    for _ in range(6):
        log.add_sample(1.0, 0.5, 2, ["human"])
    log.write_line(1, 1.0, 1e-3)
    log.close()
    (line,) = lines(tmp_path)
    assert line["tflops"] == pytest.approx(5 * line["samples_per_s"])
    assert line["mfu"] == pytest.approx(line["tflops"] / 400)
    assert line["tokens_per_s"] == pytest.approx(100 * line["samples_per_s"])


def test_a_share_of_an_unknown_peak_is_not_written(tmp_path):
    log = train_log.TrainingLog(tmp_path, CPU, flops_per_sample=5e12)
    log.add_sample(1.0, 0.5, 2, [])
    log.write_line(1, 1.0, 1e-3)
    log.close()
    assert "mfu" not in lines(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H100 80GB HBM3", 989.0), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA GeForce GTX 970", 0.0)]
)
def test_a_gpus_peak_is_known_by_its_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert train_log.peak_tflops(torch.device("cuda")) == peak


def test_weights_and_biases_gets_what_the_file_gets_where_it_is_set_up(tmp_path, monkeypatch):
    told = []

    class Run:
        def log(self, figures, step):
            told.append((step, figures))

        def finish(self):
            told.append("finished")

    wandb = ModuleType("wandb")
    wandb.__spec__ = train_log.importlib.util.spec_from_loader("wandb", None)
    wandb.init = lambda **how: Run()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for mode in ("", "offline"):
        if mode:
            monkeypatch.setenv("WANDB_MODE", mode)
        else:
            monkeypatch.delenv("WANDB_MODE", raising=False)
            monkeypatch.delenv("WANDB_API_KEY", raising=False)
        log = train_log.TrainingLog(tmp_path / mode, CPU)
        log.add_sample(0.25, 0.5, 1, ["object"])
        log.write_line(3, 0.25, 1e-3)
        log.close()
        assert bool(told) == bool(mode)  # installed alone it would ask for a key and wait
    assert told == [(3, lines(tmp_path / "offline")[0]), "finished"]
