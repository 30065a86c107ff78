"""`a2data models doctor`, on machines of any size."""

import json

import pytest

from model_zoo import weights
from model_zoo.roles import Card
from pipelines.cli import doctor, models
from pipelines.cli.main import main

LAPTOP = doctor.Machine(ram_mb=16_000, gpu_mb=0, disk_mb=100_000)
NODE = doctor.Machine(ram_mb=500_000, gpu_mb=80_000, disk_mb=1_000_000)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def net(**more) -> Card:
    return Card("detect", "", weights="url:https://x/net.pt", weights_license="MIT", name="net", **more)


def test_a_model_without_its_weights_is_not_ready_and_the_command_that_brings_them_is_named(folder):
    found = doctor.report([net(size_mb=7)], LAPTOP)
    assert (found["ready"], found["to_fetch_mb"]) == (False, 7)
    assert "`a2data models fetch net` brings them" in found["models"][0]["problems"][0]

    (folder / "net.pt").write_bytes(b"net")
    found = doctor.report([net(size_mb=7)], LAPTOP)
    assert (found["ready"], found["to_fetch_mb"]) == (True, 0)


def test_weights_that_are_not_the_published_ones_are_not_ready(folder):
    (folder / "net.pt").write_bytes(b"net")
    (problem,) = doctor.examine_card(net(sha256="0" * 64), LAPTOP)["problems"]
    assert "is not what the card means" in problem


@pytest.mark.parametrize(
    ("machine", "gpus", "problem"),
    [
        (LAPTOP, 0.0, "needs 20,000 MB of memory, and the machine has 16,000 MB"),
        (LAPTOP, 1.0, "needs 20,000 MB of memory, and the machine has 16,000 MB"),
        (NODE, 0.0, None),
        (NODE, 1.0, None),
        (NODE._replace(gpu_mb=12_000), 1.0, "needs 20,000 MB of memory, and the GPU has 12,000 MB"),
        (NODE._replace(gpu_mb=12_000), 0.0, None),  # a model of the CPU
    ],
)
def test_memory_is_compared_with_that_of_the_device_that_the_model_runs_on(folder, machine, gpus, problem):
    (folder / "net.pt").write_bytes(b"net")
    assert doctor.examine_card(net(memory_mb=20_000, gpus=gpus), machine)["problems"] == ([problem] if problem else [])


def test_a_disk_that_is_too_small_for_what_is_missing_is_a_problem_and_shared_weights_count_once():
    found = doctor.report([net(size_mb=60), net(size_mb=60)], LAPTOP._replace(disk_mb=50))
    assert found["to_fetch_mb"] == 60
    assert found["problems"] == [f"60 MB are to be fetched, and {weights.folder()} has 50 MB of free space"]


def test_packages_that_are_not_installed_are_named_with_their_extra(monkeypatch):
    wanted = [
        "numpy>=2",
        'no-such-package[x]>=1 ; extra == "yolo"',
        'torch; extra == "match"',
        'numpy; extra == "yolo"',
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    (problem,) = doctor.examine_card(Card("detect", "", extra="yolo", name="yolo"), LAPTOP)["problems"]
    assert problem == "packages are missing (no-such-package): pip install 'a2data[yolo]'"


def test_every_model_of_a_profile_has_a_line_with_its_size_and_licence(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "measure_machine", lambda: LAPTOP)
    assert main(["models", "doctor", "production"]) == 1

    out, err = capsys.readouterr()
    lines = {words[0]: line for line in out.splitlines() if len(words := line.split()) > 4}
    for card in models.select("production"):
        assert card.weights_license in lines[card.name]
        assert not card.size_mb or str(card.size_mb) in lines[card.name]
    assert "a2data: skycaptioner-v1: needs 20,000 MB of memory, and the machine has 16,000 MB" in err
    assert "not ready: " in out


def test_json_has_the_same(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "measure_machine", lambda: LAPTOP)
    assert main(["models", "doctor", "small", "--json"]) == 1

    found = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in found["models"]] == [card.name for card in models.select("small")]
    assert found["to_fetch_mb"] > 4000


def test_a_profile_whose_models_are_here_is_ready(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "measure_machine", lambda: LAPTOP)
    monkeypatch.setattr(models, "select", lambda profile: [Card("track", "", name="dis")])
    assert main(["models", "doctor", "builtin"]) == 0
    assert "ready: 1 models" in capsys.readouterr().out


def test_this_machine_has_memory_and_disk(monkeypatch):
    monkeypatch.setattr(doctor.cards, "device", lambda: "cpu")
    machine = doctor.measure_machine()
    assert machine.ram_mb > 500
    assert machine.disk_mb >= 0
