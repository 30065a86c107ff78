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
from pipelines.train.parallelize import to_local
from pipelines.train.safe_reading import DamagedError, Planner, Reader, metadata_in

NAME = re.compile(r"step-(\d+)")
TRAINABLE_ONLY = StateDictOptions(ignore_frozen_params=True, strict=False)


class Checkpoints:
    """Checkpoints of one training, in a folder that all processes can reach. One is written at a time."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self.is_main = not dist.is_initialized() or dist.get_rank() == 0
        # a separate group, so that collectives of the background thread do not interleave with those of the training
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self.pending: tuple[Future, Path, dict[str, Any]] | None = None
        # hashes the written files in the background
        self.thread = ThreadPoolExecutor(1)
        if self.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            for scratch in folder.glob("*.tmp"):
                shutil.rmtree(scratch)
        self.barrier()

    def all(self) -> list[Path]:
        """Return every checkpoint that was completely written, oldest first."""
        return [path for path in self.folders() if (path / "state.json").exists()]

    def folders(self) -> list[Path]:
        return sorted((p for p in self.folder.iterdir() if NAME.fullmatch(p.name)), key=lambda p: int(p.name[5:]))

    def save(
        self, step: int, network: Any, optimizer: Any, ema: dict[str, torch.Tensor], metadata: dict[str, Any]
    ) -> None:
        """Start writing a checkpoint. The state is copied before this returns; the files are written in the background."""
        self.finish()
        scratch = self.folder / f"step-{step:06d}.tmp"
        model_state, optimizer_state = get_state_dict(network, optimizer, options=TRAINABLE_ONLY)
        state: dict[str, Any] = {"network": model_state, "optimizer": optimizer_state, "average": ema}
        saved = dcp.async_save(state, checkpoint_id=str(scratch), process_group=self.group)
        self.pending = self.thread.submit(self.hash_files, saved, scratch), scratch, {"step": step, **metadata}

    def hash_files(self, saved: Any, scratch: Path) -> dict[str, Any]:
        """Wait for the files of this process to be written and return their sizes and sha256."""
        saved.result()
        rank = dist.get_rank() if dist.is_initialized() else 0
        names = [path.name for path in scratch.glob(f"__{rank}_*.distcp")] + [".metadata"] * self.is_main
        return {
            name: {"bytes": (scratch / name).stat().st_size, "sha256": file_sha256(scratch / name)} for name in names
        }

    def finish(self) -> None:
        """Wait until the pending checkpoint is complete. Raises OSError if it could not be written."""
        if self.pending is None:
            return
        (future, scratch, state), self.pending = self.pending, None
        files: dict[str, Any] = {}
        failed: BaseException | None = None
        try:
            files = future.result()
        except (Exception, CheckpointException) as error:  # CheckpointException derives from BaseException
            failed = error
        results = self.all_gather(first_line(failed) if failed else files)
        errors = [result for result in results if isinstance(result, str)]
        if not errors and self.is_main:
            try:
                for result in results:
                    state.setdefault("files", {}).update(result)
                (scratch / "state.json").write_text(json.dumps(state | {"sha256": digest(state)}, indent=1))
                final = scratch.with_suffix("")
                shutil.rmtree(final, ignore_errors=True)
                scratch.rename(final)
            except OSError as error:
                failed, errors = error, [first_line(error)]
        errors = self.from_main(errors)
        if errors:
            shutil.rmtree(scratch, ignore_errors=True)
            complete = [path.name for path in self.all()]
            raise OSError(
                f"the checkpoint of step {state['step']} could not be written to {self.folder} ({errors[0]}); "
                f"{f'the last complete one is {complete[-1]}' if complete else 'there is none yet'}. Is the disk full?"
            ) from failed
        if self.is_main:
            self.prune()
        self.barrier()

    def prune(self) -> None:
        """Remove all checkpoints but the newest `keep` and the best. Those with a damaged state.json are set aside first."""
        losses: dict[Path, float | None] = {}
        for path in self.all():
            try:
                loss = read_state(path).get("val_loss")
            except DamagedError as error:
                self.set_aside(path, str(error))
                continue
            losses[path] = float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None
        intact, finite = list(losses), {path: loss for path, loss in losses.items() if loss is not None}
        best = {min(finite, key=lambda path: finite[path])} if finite else set()
        for path in intact[: -self.keep] if self.keep else intact:
            if path not in best:
                shutil.rmtree(path)

    def load(self, network: Any, optimizer: Any, ema: dict[str, torch.Tensor]) -> dict[str, Any] | None:
        """Load the newest intact checkpoint in place and return its state.json, or None if there never was one.

        All processes take the same decision. A damaged checkpoint is set aside and the previous one is tried. Raises ValueError
        if none is intact, or if a checkpoint's parameters are not the ones being trained.
        """
        errors: list[str] = []
        for path in reversed([self.folder / name for name in self.from_main([p.name for p in self.folders()])]):
            error = self.find_damage(path) or self.read(path, network, optimizer, ema)
            if not error:
                if errors and self.is_main:
                    print(f"{path.name} is loaded instead", flush=True)
                return read_state(path)
            errors.append(error)
            if self.is_main:
                self.set_aside(path, error)
            self.barrier()
        damaged = self.from_main(sorted(path.name for path in self.folder.glob("step-*.damaged*")))
        if damaged:
            raise ValueError(
                f"no checkpoint in {self.folder} is intact: {'; '.join(errors) or 'there are only ' + ', '.join(damaged)}. "
                "Copy one from elsewhere, or use another --out to start a new training"
            )
        return None

    def read(self, path: Path, network: Any, optimizer: Any, ema: dict[str, torch.Tensor]) -> str:
        """Read a checkpoint in place. Returns why it is damaged, or "" if it is intact."""
        model_state, optimizer_state = get_state_dict(network, optimizer, options=TRAINABLE_ONLY)
        state: dict[str, Any] = {"network": model_state, "optimizer": optimizer_state, "average": ema}
        try:
            dcp.load(state, storage_reader=Reader(path), planner=Planner())
        except (RuntimeError, ValueError, CheckpointException) as error:
            if message := damage_message(error):
                return message
            raise ValueError(f"{path} does not fit this network or --trainable ({first_line(error)})") from error
        non_finite_names = sorted({name for part in self.all_gather(non_finite(state)) for name in part})
        if non_finite_names:
            return (
                f"{path} holds NaN or infinity in {', '.join(non_finite_names[:3])}"
                + f" and {len(non_finite_names) - 3} more" * (len(non_finite_names) > 3)
            )
        set_state_dict(
            network,
            optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=TRAINABLE_ONLY,
        )
        return ""

    def find_damage(self, path: Path) -> str:
        """Return why a checkpoint is damaged, or "" if all checks pass. The processes divide the files between them."""
        rank, world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        error_message = ""
        try:
            state = read_state(path)
            check_state(path, state)
            files = state.get("files", {})  # missing in checkpoints of earlier versions
            for name in sorted(files)[rank::world_size]:
                check_file(path / name, files[name])
            if self.is_main:
                metadata_in(path)
        except (DamagedError, OSError) as error:
            error_message = str(error)
        return next((message for message in self.all_gather(error_message) if message), "")

    def set_aside(self, path: Path, reason: str) -> None:
        """Rename a damaged checkpoint, so that it is kept but not loaded."""
        names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
        target = next(candidate for name in names if not (candidate := path.with_name(name)).exists())
        path.rename(target)
        print(f"{path.name} is damaged, and kept as {target.name}: {reason}", flush=True)

    def all_gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in rank order."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_main(self, value: Any) -> Any:
        """Return the value of the first process."""
        return self.all_gather(value)[0]

    def barrier(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def read_state(checkpoint: Path) -> dict[str, Any]:
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
    entries = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(file, dict) and {"bytes", "sha256"} <= set(file) for file in entries):
        wrong.append("files")
    if wrong or NAME.fullmatch(checkpoint.name)[1].lstrip("0") != str(state["step"] or ""):  # type: ignore[index]
        raise DamagedError(
            f"{checkpoint / 'state.json'} is damaged: missing or wrong value of {', '.join(wrong) or 'step'}"
        )


def digest(state: dict[str, Any]) -> str:
    """Return the sha256 of a state, independent of its layout in the file."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def check_file(path: Path, recorded: dict[str, Any]) -> None:
    """Raise DamagedError with the file's path if its size or sha256 is not what was recorded."""
    size = path.stat().st_size if path.is_file() else -1
    if size < 0:
        raise DamagedError(f"{path} is missing")
    if size != recorded["bytes"]:
        raise DamagedError(f"{path} is damaged: it has {size} bytes instead of {recorded['bytes']}")
    if file_sha256(path) != recorded["sha256"]:
        raise DamagedError(f"{path} is damaged: its sha256 is not the recorded one")


def non_finite(state: dict[str, Any]) -> list[str]:
    """Return the names of parameters and averages with NaN or infinity in this process's part."""
    names = []
    for part in ("network", "average"):
        for name, tensor in state[part].items():
            if tensor.is_floating_point() and not bool(to_local(tensor.detach()).isfinite().all()):
                names.append(f"{part}.{name}")
    return names


def damage_message(error: BaseException) -> str:
    """Return the message of a DamagedError that torch wrapped, from any process, or "" if there is none."""
    errors = [wrapped[0] for wrapped in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    return next((str(each) for each in errors if isinstance(each, DamagedError)), "")


def first_line(error: BaseException) -> str:
    """Return the root cause of an error that torch wrapped, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
