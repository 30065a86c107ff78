"""Checkpoints that are whole or not there: written in the background, read by any number of processes.

DIR/step-000100/ holds what learns, the optimiser and the average as torch.distributed.checkpoint writes them (each process
its own part), and state.json: step, place of the loader, settings, losses. It is written under another name and renamed when
all of it is there. Frozen parameters are not in it: they are in the folder that training began with.
"""

import json
import re
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

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
        if self.chief:
            folder.mkdir(parents=True, exist_ok=True)
            for scratch in folder.glob("*.tmp"):
                shutil.rmtree(scratch)
        self.wait_for_all()

    def all(self) -> list[Path]:
        """Every whole checkpoint, the oldest first."""
        return sorted(
            path for path in self.folder.iterdir() if NAME.fullmatch(path.name) and (path / "state.json").exists()
        )

    def save(
        self, step: int, network: Any, optimizer: Any, average: dict[str, torch.Tensor], about: dict[str, Any]
    ) -> None:
        """Begin to write a checkpoint: a copy is taken before this returns, the rest goes on beside the training."""
        self.finish()
        scratch = self.folder / f"step-{step:06d}.tmp"
        learnt, momenta = get_state_dict(network, optimizer, options=LEARNT)
        state: dict[str, Any] = {"network": learnt, "optimizer": momenta, "average": average}
        future = dcp.async_save(state, checkpoint_id=str(scratch), process_group=self.group)
        self.writing = future, scratch, {"step": step, **about}  # type: ignore[assignment]

    def finish(self) -> None:
        """Wait until the checkpoint in hand is whole. Raises OSError with a sentence where it could not be written."""
        if self.writing is None:
            return
        (future, scratch, state), self.writing = self.writing, None
        try:
            future.result()
            if self.chief:
                (scratch / "state.json").write_text(json.dumps(state, indent=1))
                final = scratch.with_suffix("")
                shutil.rmtree(final, ignore_errors=True)
                scratch.rename(final)
        except (Exception, CheckpointException) as error:  # torch's is no Exception
            shutil.rmtree(scratch, ignore_errors=True)
            rest = [path.name for path in self.all()]
            raise OSError(
                f"the checkpoint of step {state['step']} could not be written to {self.folder} ({first_line(error)}); "
                f"{f'the last whole one is {rest[-1]}' if rest else 'there is none yet'}. Is the disk full?"
            ) from error
        if self.chief:
            self.thin()
        self.wait_for_all()

    def thin(self) -> None:
        """Remove all but the newest `keep` and the best."""
        there = self.all()
        losses = {path: about(path).get("held_out") for path in there}
        known = {path: loss for path, loss in losses.items() if loss is not None}
        best = {min(known, key=lambda path: known[path])} if known else set()
        for path in there[: -self.keep] if self.keep else there:
            if path not in best:
                shutil.rmtree(path)

    def load(self, network: Any, optimizer: Any, average: dict[str, torch.Tensor]) -> dict[str, Any] | None:
        """Take up the newest checkpoint, in place; what is known of it, or None where there is none.

        Raises ValueError where its parameters are not those that learn now.
        """
        there = self.all()
        if not there:
            return None
        learnt, momenta = get_state_dict(network, optimizer, options=LEARNT)
        state: dict[str, Any] = {"network": learnt, "optimizer": momenta, "average": average}
        try:
            dcp.load(state, checkpoint_id=str(there[-1]))
        except (RuntimeError, ValueError, CheckpointException) as error:
            raise ValueError(f"{there[-1]} does not fit this network or this variant ({first_line(error)})") from error
        set_state_dict(
            network, optimizer, model_state_dict=state["network"], optim_state_dict=state["optimizer"], options=LEARNT
        )
        return about(there[-1])

    def wait_for_all(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def about(checkpoint: Path) -> dict[str, Any]:
    """What state.json says."""
    return json.loads((checkpoint / "state.json").read_text())


def first_line(error: BaseException) -> str:
    """The cause of an error that torch wraps, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
