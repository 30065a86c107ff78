"""Checkpoints of strangers and damaged ones: nothing in them is run, the newest whole one is taken up, none is thrown away."""

import json
import os
import pickle
import shutil
import socket
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402

from a2data.store.folder import file_sha256  # noqa: E402
from pipelines.train.checkpoints import Checkpoints, digest, read_state  # noqa: E402
from pipelines.train.safe_reading import DamagedError, metadata_in  # noqa: E402

STATE = {"seconds": 1.5, "settings": {"seed": 0}, "loader": {"epoch": 0}, "last": {}, "held_out": None}


class Learnt:
    """A network, its optimiser and its average, as they are after so many steps."""

    def __init__(self, steps: int = 0):
        torch.manual_seed(0)
        self.network = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.network.parameters())
        for _ in range(steps):
            self.network(torch.ones(3)).sum().backward()
            self.optimizer.step()
        self.average = {name: p.detach().clone() for name, p in self.network.named_parameters()}

    def __iter__(self):
        return iter((self.network, self.optimizer, self.average))

    def weight(self) -> list:
        return self.network.weight.tolist()


def saved(folder: Path, steps: int = 3, keep: int = 5) -> Checkpoints:
    """Checkpoints of steps 1 to `steps`."""
    checkpoints = Checkpoints(folder, keep)
    for step in range(1, steps + 1):
        checkpoints.save(step, *Learnt(step), STATE)
    checkpoints.finish()
    return checkpoints


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    saved(folder)
    return folder


@pytest.fixture
def folder(tmp_path, whole) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoints"))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x80\x04garbage" * 40)


@pytest.mark.parametrize("damage", [cut, flipped, emptied, garbage, Path.unlink])
@pytest.mark.parametrize("name", ["state.json", ".metadata", "__0_0.distcp"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(folder, capsys, name, damage):
    damage(folder / "step-000003" / name)
    learnt = Learnt()
    found = Checkpoints(folder, keep=5).load(*learnt)
    assert found is not None
    assert found["step"] == 2
    assert learnt.weight() == Learnt(2).weight()
    said = capsys.readouterr().out
    assert "step-000003 is damaged, and kept as step-000003.damaged" in said
    assert f"step-000003/{name}" in said
    assert "step-000002 is loaded instead" in said
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", "step-000002", "step-000003.damaged"]


def test_a_whole_checkpoint_gives_back_network_optimizer_and_average(folder):
    learnt, expected = Learnt(), Learnt(3)
    assert Checkpoints(folder, keep=5).load(*learnt) == {
        "step": 3,
        **STATE,
        "files": read_state(folder / "step-000003")["files"],
    }
    assert learnt.weight() == expected.weight()
    assert learnt.optimizer.state_dict()["param_groups"] == expected.optimizer.state_dict()["param_groups"]
    ours, theirs = (each.optimizer.state_dict()["state"] for each in (learnt, expected))
    assert all(torch.equal(ours[n][name], theirs[n][name]) for n in theirs for name in theirs[n])


def test_where_none_is_whole_it_is_an_error_now_and_the_next_time(folder):
    for path in folder.iterdir():
        cut(path / ".metadata")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no checkpoint in .* is intact"):
            Checkpoints(folder, keep=5).load(*Learnt())
    assert len(list(folder.glob("*.damaged"))) == 3


def test_where_there_never_was_one_training_begins(tmp_path):
    assert Checkpoints(tmp_path / "new", keep=5).load(*Learnt()) is None


def test_a_second_damaged_checkpoint_of_a_step_does_not_replace_the_first(folder):
    for _ in range(2):
        cut(folder / "step-000003" / ".metadata")
        assert Checkpoints(folder, keep=5).load(*Learnt())["step"] == 2
        shutil.copytree(folder / "step-000002", folder / "step-000003")
    assert len(list(folder.glob("step-000003.damaged*"))) == 2


def test_a_damaged_checkpoint_neither_counts_nor_stops_when_old_ones_are_removed(folder):
    flipped(folder / "step-000002" / "state.json")
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.prune()
    assert [path.name for path in checkpoints.all()] == ["step-000001", "step-000003"]
    assert (folder / "step-000002.damaged").exists()


def test_other_parameters_are_not_damage(folder):
    learnt = Learnt()
    learnt.network = torch.nn.Linear(4, 2)
    learnt.optimizer = torch.optim.AdamW(learnt.network.parameters())
    with pytest.raises(ValueError, match="does not fit this network or --trainable"):
        Checkpoints(folder, keep=5).load(*learnt)
    assert not list(folder.glob("*.damaged"))


def test_a_checkpoint_that_holds_nan_is_not_taken_up(folder, capsys):
    learnt = Learnt(4)
    with torch.no_grad():
        learnt.network.bias[0] = float("nan")
    checkpoints = Checkpoints(folder, keep=5)
    checkpoints.save(4, *learnt, STATE)
    checkpoints.finish()
    assert Checkpoints(folder, keep=5).load(*Learnt())["step"] == 3
    assert "holds NaN or infinity in network.bias" in capsys.readouterr().out


def as_before(folder: Path) -> None:
    """Checkpoints as earlier versions wrote them: without size and sha256 of their files."""
    for path in folder.iterdir():
        state = read_state(path)
        del state["files"]
        (path / "state.json").write_text(json.dumps(state))


def test_a_checkpoint_of_an_earlier_version_is_read_and_seen_to_be_cut_off(folder):
    as_before(folder)
    assert Checkpoints(folder, keep=5).load(*Learnt())["step"] == 3
    cut(folder / "step-000003" / "__0_0.distcp")
    assert Checkpoints(folder, keep=5).load(*Learnt())["step"] == 2


# -- what a stranger may have put there ----------------------------------------------------------------------------------


def resealed(checkpoint: Path) -> None:
    """state.json as if the files had always been these."""
    state = read_state(checkpoint)
    state["files"] = {
        n: {"bytes": (checkpoint / n).stat().st_size, "sha256": file_sha256(checkpoint / n)} for n in state["files"]
    }
    (checkpoint / "state.json").write_text(json.dumps(state | {"sha256": digest(state)}))


@pytest.mark.parametrize("seal", [resealed, lambda checkpoint: None, lambda checkpoint: as_before(checkpoint.parent)])
def test_code_in_the_metadata_is_refused_by_file_and_never_run(folder, tmp_path, seal, capsys):
    if seal is not resealed:
        seal(folder / "step-000003")
    (folder / "step-000003" / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    if seal is resealed:
        seal(folder / "step-000003")
    assert Checkpoints(folder, keep=5).load(*Learnt())["step"] == 2
    assert "step-000003/.metadata is damaged" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["tensor", "value"])
def test_code_in_a_data_file_is_refused_by_file_and_never_run(folder, tmp_path, part, capsys):
    """A value that is not a tensor is read by torch's own planner with weights_only=False."""
    checkpoint = folder / "step-000003"
    metadata, path = metadata_in(checkpoint), checkpoint / "__0_0.distcp"
    begin = path.stat().st_size
    with path.open("ab") as file:
        torch.save(Evil(tmp_path / "ran"), file)
    places = [at for name, at in metadata.storage_data.items() if ("param_groups" in name.fqn) == (part == "value")]
    assert places
    for place in places:
        place.offset, place.length = begin, path.stat().st_size - begin
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    resealed(checkpoint)
    assert Checkpoints(folder, keep=5).load(*Learnt())["step"] == 2
    assert "__0_0.distcp is damaged, or not from a2data" in capsys.readouterr().out
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/passwd", "__0_0.distcp/../x"])
def test_metadata_cannot_name_files_elsewhere(folder, name):
    checkpoint = folder / "step-000001"
    metadata = metadata_in(checkpoint)
    next(iter(metadata.storage_data.values())).relative_path = name
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(DamagedError, match=r"\.metadata is damaged, or not from a2data: it lists the file"):
        metadata_in(checkpoint)


@pytest.mark.parametrize(
    "what", [eval, os.system, torch.load, torch.hub.load, pickle.loads, torch.nn.Linear, input, Path.unlink]
)
def test_metadata_cannot_name_any_function(folder, what):
    (folder / "step-000001" / ".metadata").write_bytes(pickle.dumps(what))
    with pytest.raises(DamagedError, match=r"which a2data checkpoints never do"):
        metadata_in(folder / "step-000001")


# -- several processes -----------------------------------------------------------------------------------------------------


def load_apart(rank: int, ranks: int, port: int, folder: Path, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo")
    learnt = Learnt()
    found = Checkpoints(folder, keep=5).load(*learnt)
    (out / f"{rank}.json").write_text(json.dumps([found["step"], learnt.weight()]))
    dist.destroy_process_group()


def test_two_processes_fall_back_to_the_same_checkpoint(folder, tmp_path):
    """Each reads a share of the files: what one of them finds holds for both."""
    flipped(folder / "step-000003" / "__0_0.distcp")
    cut(folder / "step-000002" / ".metadata")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(load_apart, (2, port, folder, tmp_path), nprocs=2, start_method="fork")
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [[1, Learnt(1).weight()]] * 2


def test_torchs_own_reader_would_have_run_it(folder, tmp_path):
    """What this guards against is real in this version of torch."""
    (folder / "step-000003" / ".metadata").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises((dcp.api.CheckpointException, AttributeError, TypeError)):
        dcp.load({"x": torch.zeros(1)}, checkpoint_id=str(folder / "step-000003"))
    assert (tmp_path / "ran").exists()
