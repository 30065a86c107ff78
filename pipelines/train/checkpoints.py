"""Checkpoints that are whole or not there: written in the background, read by any number of processes, checked before.

DIR/step-000100/ holds what learns, the optimiser and the average as torch.distributed.checkpoint writes them (each process
its own part), and state.json: step, place of the loader, settings, losses, size and sha256 of each file, and of all that
itself. It is written under another name and renamed when all of it is there. Frozen parameters are not in it: they are in the
folder that training began with. A checkpoint that is damaged is renamed to step-000100.damaged, and the one before it is
taken up.
"""

import hashlib
import itertools
import json
import math
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from pipelines.train.parallelize import local
from pipelines.train.safe_reading import DamagedError, Planner, Reader, metadata_in

NAME = re.compile(r"step-(\d+)")
LEARNT = StateDictOptions(ignore_frozen_params=True, strict=False)


class Checkpoints:
    """The checkpoints of one training, in a folder that all processes reach. One is written at a time."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.chief = not dist.is_initialized() or dist.get_rank() == 0
        # collectives of the background thread must not meet those of the training
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self.writing: tuple[Future, Path, dict[str, Any]] | None = None
        self.thread = ThreadPoolExecutor(1)  # that hashes what was written, beside the training
        if self.chief:
            folder.mkdir(parents=True, exist_ok=True)
            for scratch in folder.glob("*.tmp"):
                shutil.rmtree(scratch)
        self.wait_for_all()

    def all(self) -> list[Path]:
        """Every checkpoint that was whole when it was written, the oldest first."""
        return [path for path in self.folders() if (path / "state.json").exists()]

    def folders(self) -> list[Path]:
        return sorted((p for p in self.folder.iterdir() if NAME.fullmatch(p.name)), key=lambda p: int(p.name[5:]))

    def save(
        self, step: int, network: Any, optimizer: Any, average: dict[str, torch.Tensor], about: dict[str, Any]
    ) -> None:
        """Begin to write a checkpoint: a copy is taken before this returns, the rest goes on beside the training."""
        self.finish()
        scratch = self.folder / f"step-{step:06d}.tmp"
        learnt, momenta = get_state_dict(network, optimizer, options=LEARNT)
        state: dict[str, Any] = {"network": learnt, "optimizer": momenta, "average": average}
        saved = dcp.async_save(state, checkpoint_id=str(scratch), process_group=self.group)
        self.writing = self.thread.submit(self.hashed, saved, scratch), scratch, {"step": step, **about}

    def hashed(self, saved: Any, scratch: Path) -> dict[str, Any]:
        """Size and sha256 of the files that this process wrote, when they are written."""
        saved.result()
        rank = dist.get_rank() if dist.is_initialized() else 0
        names = [path.name for path in scratch.glob(f"__{rank}_*.distcp")] + [".metadata"] * self.chief
        return {name: {"bytes": (scratch / name).stat().st_size, "sha256": sha256(scratch / name)} for name in names}

    def finish(self) -> None:
        """Wait until the checkpoint in hand is whole. Raises OSError with a sentence where it could not be written."""
        if self.writing is None:
            return
        (future, scratch, state), self.writing = self.writing, None
        files: dict[str, Any] = {}
        failed: BaseException | None = None
        try:
            files = future.result()
        except (Exception, CheckpointException) as error:  # torch's is no Exception
            failed = error
        every = self.gathered(first_line(failed) if failed else files)
        whys = [part for part in every if isinstance(part, str)]
        if not whys and self.chief:
            try:
                for part in every:
                    state.setdefault("files", {}).update(part)
                (scratch / "state.json").write_text(json.dumps(state | {"sha256": digest(state)}, indent=1))
                final = scratch.with_suffix("")
                shutil.rmtree(final, ignore_errors=True)
                scratch.rename(final)
            except OSError as error:
                failed, whys = error, [first_line(error)]
        whys = self.from_chief(whys)
        if whys:
            shutil.rmtree(scratch, ignore_errors=True)
            rest = [path.name for path in self.all()]
            raise OSError(
                f"the checkpoint of step {state['step']} could not be written to {self.folder} ({whys[0]}); "
                f"{f'the last whole one is {rest[-1]}' if rest else 'there is none yet'}. Is the disk full?"
            ) from failed
        if self.chief:
            self.thin()
        self.wait_for_all()

    def thin(self) -> None:
        """Remove all but the newest `keep` and the best. One whose state.json is damaged is put aside, and does not count."""
        losses: dict[Path, float | None] = {}
        for path in self.all():
            try:
                loss = about(path).get("val_loss")
            except DamagedError as error:
                self.put_aside(path, str(error))
                continue
            losses[path] = float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None
        there, known = list(losses), {path: loss for path, loss in losses.items() if loss is not None}
        best = {min(known, key=lambda path: known[path])} if known else set()
        for path in there[: -self.keep] if self.keep else there:
            if path not in best:
                shutil.rmtree(path)

    def load(self, network: Any, optimizer: Any, average: dict[str, torch.Tensor]) -> dict[str, Any] | None:
        """Take up the newest whole checkpoint, in place; what is known of it, or None where there never was one.

        All processes decide alike. One that is damaged is put aside, and the one before it is tried. Raises ValueError where none
        is whole, or where the parameters of one are not those that learn now.
        """
        whys: list[str] = []
        for path in reversed([self.folder / name for name in self.from_chief([p.name for p in self.folders()])]):
            found = self.damage(path) or self.take_up(path, network, optimizer, average)
            if not found:
                if whys and self.chief:
                    print(f"{path.name} is taken up in its place", flush=True)
                return about(path)
            whys.append(found)
            if self.chief:
                self.put_aside(path, found)
            self.wait_for_all()
        aside = self.from_chief(sorted(path.name for path in self.folder.glob("step-*.damaged*")))
        if aside:
            raise ValueError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(whys) or 'there are only ' + ', '.join(aside)}. Copy one "
                "from elsewhere, or give another --out to begin anew"
            )
        return None

    def take_up(self, path: Path, network: Any, optimizer: Any, average: dict[str, torch.Tensor]) -> str:
        """Read a checkpoint in place; why it is damaged, "" for one that is whole."""
        learnt, momenta = get_state_dict(network, optimizer, options=LEARNT)
        state: dict[str, Any] = {"network": learnt, "optimizer": momenta, "average": average}
        try:
            dcp.load(state, storage_reader=Reader(path), planner=Planner())
        except (RuntimeError, ValueError, CheckpointException) as error:
            if found := damage_of(error):
                return found
            raise ValueError(f"{path} does not fit this network or this variant ({first_line(error)})") from error
        odd = sorted({name for part in self.gathered(non_finite(state)) for name in part})
        if odd:
            return f"{path} holds NaN or infinity in {', '.join(odd[:3])}" + f" and {len(odd) - 3} more" * (
                len(odd) > 3
            )
        set_state_dict(
            network, optimizer, model_state_dict=state["network"], optim_state_dict=state["optimizer"], options=LEARNT
        )
        return ""

    def damage(self, path: Path) -> str:
        """Why a checkpoint cannot be whole, "" where nothing speaks against it. Each process reads its share of the files."""
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        found = ""
        try:
            state = about(path)
            check_state(path, state)
            files = state.get("files", {})  # none in a checkpoint of an earlier version
            for name in sorted(files)[rank::ranks]:
                check_file(path / name, files[name])
            if self.chief:
                metadata_in(path)
        except (DamagedError, OSError) as error:
            found = str(error)
        return next((why for why in self.gathered(found) if why), "")

    def put_aside(self, path: Path, why: str) -> None:
        """Rename a damaged checkpoint, so that it is kept and not taken for one."""
        names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
        aside = next(place for name in names if not (place := path.with_name(name)).exists())
        path.rename(aside)
        print(f"{path.name} is damaged, and kept as {aside.name}: {why}", flush=True)

    def gathered(self, mine: Any) -> list[Any]:
        """What each process says, in the order of their ranks."""
        if self.group is None:
            return [mine]
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, mine, group=self.group)
        return said

    def from_chief(self, mine: Any) -> Any:
        """What the first process says."""
        return self.gathered(mine)[0]

    def wait_for_all(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def about(checkpoint: Path) -> dict[str, Any]:
    """What state.json says. Raises DamagedError, naming it, where it is not what was written."""
    path = checkpoint / "state.json"
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is damaged: it holds no object")
    # one of an earlier version has neither
    if ("files" in state or "sha256" in state) and state.pop("sha256", None) != digest(state):
        raise DamagedError(f"{path} is damaged: it does not have the sha256 that it names")
    return state


def check_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Raises DamagedError where the state of a checkpoint is not one that `Checkpoints.save` was given, or of another step."""
    kinds = {"step": int, "seconds": float, "settings": dict, "loader": dict, "last": dict}
    wrong = [
        name for name, kind in kinds.items() if type(state.get(name)) not in (kind, int if kind is float else kind)
    ]
    files = state.get("files", {})
    known = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(file, dict) and {"bytes", "sha256"} <= set(file) for file in known):
        wrong.append("files")
    if wrong or NAME.fullmatch(checkpoint.name)[1].lstrip("0") != str(state["step"] or ""):  # type: ignore[index]
        raise DamagedError(f"{checkpoint / 'state.json'} is damaged: it says no or other {', '.join(wrong) or 'step'}")


def digest(state: dict[str, Any]) -> str:
    """The sha256 of a state, however it is laid out in its file."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, known: dict[str, Any]) -> None:
    """Raises DamagedError, naming the file, where it is not the one that was written."""
    size = path.stat().st_size if path.is_file() else -1
    if size < 0:
        raise DamagedError(f"{path} is missing")
    if size != known["bytes"]:
        raise DamagedError(f"{path} is damaged: it has {size} bytes instead of {known['bytes']}")
    if sha256(path) != known["sha256"]:
        raise DamagedError(f"{path} is damaged: its sha256 is not that of the file that was written")


def non_finite(state: dict[str, Any]) -> list[str]:
    """The names of parameters and averages with NaN or infinity in this process's part of them."""
    names = []
    for part in ("network", "average"):
        for name, tensor in state[part].items():
            if tensor.is_floating_point() and not bool(local(tensor.detach()).isfinite().all()):
                names.append(f"{part}.{name}")
    return names


def damage_of(error: BaseException) -> str:
    """What a DamagedError says that torch wrapped, on whichever process it was raised; "" where there is none."""
    within = [wrapped[0] for wrapped in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    return next((str(one) for one in within if isinstance(one, DamagedError)), "")


def first_line(error: BaseException) -> str:
    """The cause of an error that torch wraps, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
