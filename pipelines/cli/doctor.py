"""Whether models can run on this machine, and what is missing: `a2data models doctor`."""

import os
import re
import shutil
from importlib import metadata
from typing import Any, NamedTuple

from model_zoo import cards, weights
from model_zoo.roles import Card


class Machine(NamedTuple):
    """What models may take of this machine, in MB of 1e6 bytes."""

    ram_mb: int
    gpu_mb: int  # of the largest GPU; 0 without one
    disk_mb: int  # free in the folder of the weights


def measure_machine() -> Machine:
    """Return this machine's memory and the free disk space."""
    gpu = 0
    if cards.device() == "cuda":
        import torch

        gpu = max(torch.cuda.get_device_properties(n).total_memory for n in range(torch.cuda.device_count()))
    folder = weights.folder().absolute()
    while not folder.exists():
        folder = folder.parent
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(ram // 10**6, gpu // 10**6, shutil.disk_usage(folder).free // 10**6)


def examine_card(card: Card, machine: Machine) -> dict[str, Any]:
    """Return what a card needs, and a line for each thing that keeps it from running on this machine ("problems")."""
    gpu = bool(card.gpus and machine.gpu_mb)
    available_mb = machine.gpu_mb if gpu else machine.ram_mb
    problems = []
    path = weights.located(card) if weights.fetched(card) else None
    if weights.fetched(card) and path is None:
        problems.append(f"weights are missing: {weights.how_to_get(card)}")
    elif path:
        problems += weights.differences(card, path)
    if packages := missing_packages(card.extra):
        problems.append(f"packages are missing ({', '.join(packages)}): pip install 'a2data[{card.extra}]'")
    if card.memory_mb > available_mb:
        device = "GPU" if gpu else "machine"
        problems.append(f"needs {card.memory_mb:,} MB of memory, and the {device} has {available_mb:,} MB")
    if card.trust_remote_code and os.environ.get("A2DATA_REMOTE_CODE") != "yes":
        problems.append("runs code that comes with its weights: read it, then set A2DATA_REMOTE_CODE=yes")
    return {
        **{"model": card.name, "role": card.role, "use": card.use},
        **{"code_license": card.code_license, "weights_license": card.weights_license},
        **{"weights": str(path) if path else card.weights, "present": path is not None or not weights.fetched(card)},
        **{"size_mb": card.size_mb, "memory_mb": card.memory_mb, "device": "gpu" if gpu else "cpu"},
        "problems": problems,
    }


def missing_packages(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed; [] where a2data itself is not, whose metadata lists them."""
    try:
        required = metadata.requires("a2data") or []
    except metadata.PackageNotFoundError:
        return []
    of_extra = [r for r in required if re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", r)]
    names = [re.split(r"[\s\[<>=!~;(]", r, maxsplit=1)[0] for r in of_extra]
    return [name for name in names if name != "a2data" and not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return bool(metadata.distribution(name))
    except metadata.PackageNotFoundError:
        return False


def report(selected: list[Card], machine: Machine) -> dict[str, Any]:
    """Return {"ready", "machine", "to_fetch_mb", "problems", "models"}; ready if all models can run on this machine."""
    rows = [examine_card(card, machine) for card in selected]
    # two cards may share one network
    to_fetch = sum({row["weights"]: row["size_mb"] for row in rows if not row["present"]}.values())
    problems = []
    if to_fetch > machine.disk_mb:
        problems.append(
            f"{to_fetch:,} MB are to be fetched, and {weights.folder()} has {machine.disk_mb:,} MB of free space"
        )
    ready = not problems and not any(row["problems"] for row in rows)
    return {
        **{"ready": ready, "machine": machine._asdict(), "to_fetch_mb": to_fetch},
        **{"problems": problems, "models": rows},
    }
