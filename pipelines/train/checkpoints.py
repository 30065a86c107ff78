"""Atomic checkpoints: written in the background, verified before loading, readable by any number of processes.

DIR/step-000100/ holds the trainable parameters, the optimizer state and the EMA as torch.distributed.checkpoint writes them
(each process its own part), and state.json: step, loader position, settings, losses, size and sha256 of each file, and a sha256
of all that. A checkpoint is written under a temporary name and renamed once complete. Frozen parameters are not included: they
are in the folder that training started from. A damaged checkpoint is renamed to step-000100.damaged, and the previous one is
loaded instead.
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

from a2data.store.folder import file_sha256
from pipelines.train.parallelize import local
from pipelines.train.safe_reading import DamagedError, Planner, Reader, metadata_in

NAME = re.compile(r"step-(\d+)")
LEARNT = StateDictOptions(ignore_frozen_params=True, strict=False)


class Checkpoints:
    """Checkpoints of one training, in a folder that all processes can reach. One is written at a time."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.chief = not dist.is_initialized() or dist.get_rank() == 0
        # a separate group, so that collectives of the background thread do not interleave with those of the training
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self.writing: tuple[Future, Path, dict[str, Any]] | None = None
        # hashes the written files in the background
        self.thread = ThreadPoolExecutor(1)
        if self.chief:
            folder.mkdir(parents=True, exist_ok=True)
            for scratch in folder.glob("*.tmp"):
                shutil.rmtree(scratch)
        self.wait_for_all()

    def all(self) -> list[Path]:
        """Return every checkpoint that was completely written, oldest first."""
        return [path for path in self.folders() if (path / "state.json").exists()]

    def folders(self) -> list[Path]:
        return sorted((p for p in self.folder.iterdir() if NAME.fullmatch(p.name)), key=lambda p: int(p.name[5:]))

    def save(
        self, step: int, network: Any, optimizer: Any, average: dict[str, torch.Tensor], about: dict[str, Any]
    ) -> None:
        """Start writing a checkpoint. The state is copied before this returns; the files are written in the background."""
        self.finish()
        scratch = self.folder / f"step-{step:06d}.tmp"
        learnt, momenta = get_state_dict(network, optimizer, options=LEARNT)
        state: dict[str, Any] = {"network": learnt, "optimizer": momenta, "average": average}
        saved = dcp.async_save(state, checkpoint_id=str(scratch), process_group=self.group)
        self.writing = self.thread.submit(self.hashed, saved, scratch), scratch, {"step": step, **about}

    def hashed(self, saved: Any, scratch: Path) -> dict[str, Any]:
        """Wait for the files of this process to be written and return their sizes and sha256."""
        saved.result()
        rank = dist.get_rank() if dist.is_initialized() else 0
        names = [path.name for path in scratch.glob(f"__{rank}_*.distcp")] + [".metadata"] * self.chief
        return {
            name: {"bytes": (scratch / name).stat().st_size, "sha256": file_sha256(scratch / name)} for name in names
        }

    def finish(self) -> None:
        """Wait until the pending checkpoint is complete. Raises OSError if it could not be written."""
        if self.writing is None:
            return
        (future, scratch, state), self.writing = self.writing, None
        files: dict[str, Any] = {}
        failed: BaseException | None = None
        try:
            files = future.result()
        except (Exception, CheckpointException) as error:  # CheckpointException derives from BaseException
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
                f"{f'the last complete one is {rest[-1]}' if rest else 'there is none yet'}. Is the disk full?"
            ) from failed
        if self.chief:
            self.thin()
        self.wait_for_all()

    def thin(self) -> None:
        """Remove all checkpoints but the newest `keep` and the best. Those with a damaged state.json are set aside first."""
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
        """Load the newest intact checkpoint in place and return its state.json, or None if there never was one.

        All processes take the same decision. A damaged checkpoint is set aside and the previous one is tried. Raises ValueError
        if none is intact, or if a checkpoint's parameters are not the ones being trained.
        """
        whys: list[str] = []
        for path in reversed([self.folder / name for name in self.from_chief([p.name for p in self.folders()])]):
            found = self.damage(path) or self.take_up(path, network, optimizer, average)
            if not found:
                if whys and self.chief:
                    print(f"{path.name} is loaded instead", flush=True)
                return about(path)
            whys.append(found)
            if self.chief:
                self.put_aside(path, found)
            self.wait_for_all()
        aside = self.from_chief(sorted(path.name for path in self.folder.glob("step-*.damaged*")))
        if aside:
            raise ValueError(
                f"no checkpoint in {self.folder} is intact: {'; '.join(whys) or 'there are only ' + ', '.join(aside)}. Copy one "
                "from elsewhere, or use another --out to start a new training"
            )
        return None

    def take_up(self, path: Path, network: Any, optimizer: Any, average: dict[str, torch.Tensor]) -> str:
        """Read a checkpoint in place. Returns why it is damaged, or "" if it is intact."""
        learnt, momenta = get_state_dict(network, optimizer, options=LEARNT)
        state: dict[str, Any] = {"network": learnt, "optimizer": momenta, "average": average}
        try:
            dcp.load(state, storage_reader=Reader(path), planner=Planner())
        except (RuntimeError, ValueError, CheckpointException) as error:
            if found := damage_of(error):
                return found
            raise ValueError(f"{path} does not fit this network or --trainable ({first_line(error)})") from error
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
        """Return why a checkpoint is damaged, or "" if all checks pass. The processes divide the files between them."""
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        found = ""
        try:
            state = about(path)
            check_state(path, state)
            files = state.get("files", {})  # missing in checkpoints of earlier versions
            for name in sorted(files)[rank::ranks]:
                check_file(path / name, files[name])
            if self.chief:
                metadata_in(path)
        except (DamagedError, OSError) as error:
            found = str(error)
        return next((why for why in self.gathered(found) if why), "")

    def put_aside(self, path: Path, why: str) -> None:
        """Rename a damaged checkpoint, so that it is kept but not loaded."""
        names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
        aside = next(place for name in names if not (place := path.with_name(name)).exists())
        path.rename(aside)
        print(f"{path.name} is damaged, and kept as {aside.name}: {why}", flush=True)

    def gathered(self, mine: Any) -> list[Any]:
        """Return the values of all processes, in rank order."""
        if self.group is None:
            return [mine]
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, mine, group=self.group)
        return said

    def from_chief(self, mine: Any) -> Any:
        """Return the value of the first process."""
        return self.gathered(mine)[0]

    def wait_for_all(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def about(checkpoint: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's state.json. Raises DamagedError with its path if it is not what was written."""
    path = checkpoint / "state.json"
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is damaged: it is not a JSON object")
    # checkpoints of earlier versions have neither key
    if ("files" in state or "sha256" in state) and state.pop("sha256", None) != digest(state):
        raise DamagedError(f"{path} is damaged: its content does not match the sha256 that it records")
    return state


def check_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Raise DamagedError if a state lacks keys that `Checkpoints.save` writes, has wrong types or belongs to another step."""
    kinds = {"step": int, "seconds": float, "settings": dict, "loader": dict, "last": dict}
    wrong = [
        name for name, kind in kinds.items() if type(state.get(name)) not in (kind, int if kind is float else kind)
    ]
    files = state.get("files", {})
    known = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(file, dict) and {"bytes", "sha256"} <= set(file) for file in known):
        wrong.append("files")
    if wrong or NAME.fullmatch(checkpoint.name)[1].lstrip("0") != str(state["step"] or ""):  # type: ignore[index]
        raise DamagedError(
            f"{checkpoint / 'state.json'} is damaged: missing or wrong value of {', '.join(wrong) or 'step'}"
        )


def digest(state: dict[str, Any]) -> str:
    """Return the sha256 of a state, independent of its layout in the file."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def check_file(path: Path, known: dict[str, Any]) -> None:
    """Raise DamagedError with the file's path if its size or sha256 is not what was recorded."""
    size = path.stat().st_size if path.is_file() else -1
    if size < 0:
        raise DamagedError(f"{path} is missing")
    if size != known["bytes"]:
        raise DamagedError(f"{path} is damaged: it has {size} bytes instead of {known['bytes']}")
    if file_sha256(path) != known["sha256"]:
        raise DamagedError(f"{path} is damaged: its sha256 is not the recorded one")


def non_finite(state: dict[str, Any]) -> list[str]:
    """Return the names of parameters and averages with NaN or infinity in this process's part."""
    names = []
    for part in ("network", "average"):
        for name, tensor in state[part].items():
            if tensor.is_floating_point() and not bool(local(tensor.detach()).isfinite().all()):
                names.append(f"{part}.{name}")
    return names


def damage_of(error: BaseException) -> str:
    """Return the message of a DamagedError that torch wrapped, from any process, or "" if there is none."""
    within = [wrapped[0] for wrapped in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    return next((str(one) for one in within if isinstance(one, DamagedError)), "")


def first_line(error: BaseException) -> str:
    """Return the root cause of an error that torch wrapped, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
