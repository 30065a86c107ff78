"""`a2data reward train`: a reward model from preference pairs, by the Bradley-Terry model with ties.

    a2data reward train PAIRS --out DIR [--model reward-tiny]

DIR/reward.safetensors has the trained parameters, DIR/reward.json the settings and the results on held-out pairs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from a2data.dataset import pair as pairs
from a2data.dataset import writer
from a2data.dataset.batch_plan import rng
from a2data.media import video
from a2data.store.folder import Folder
from model_zoo import cards
from model_zoo.reward import bradley_terry
from pipelines.prefer.make import read
from pipelines.prefer.reward_settings import RewardSettings
from pipelines.statistics import wilson

BINS = 5  # of the calibration


class Rated(NamedTuple):
    """A pair as a reward model sees it."""

    key: str
    kind: str
    tie: bool
    held_out: bool
    chosen: Any
    rejected: Any


def train(
    shards: str, out: Path, settings: RewardSettings, device: str = "cpu", say: Callable[[str], Any] = print
) -> dict[str, Any]:
    """Train a reward model, write it and return its results on held-out pairs.

    Raises ValueError for pairs that disagree and for a data set without pairs in one of the splits, FloatingPointError for a
    reward that is NaN or infinite; nothing is written then.
    """
    if settings.tie_k <= 1 or settings.epochs < 1 or settings.batch_size < 1:
        raise ValueError("tie_k must be above 1, epochs and batch_size at least 1")
    folder = Folder(shards)
    rows = writer.rows(folder)
    pairs.check_agreement(pairs.read(folder, {row.shard for row in rows}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = cards.load(settings.model, device)
        if settings.start:
            if not hasattr(model, "load_published"):
                raise ValueError(
                    f"{settings.model} does not start from {settings.start}: use the model qwen2-vl-reward"
                )
            model.load_published(Path(settings.start))
        rated = [rate(model, folder, row) for row in rows]
        learning = [one for one in rated if not one.held_out]
        held_out = [one for one in rated if one.held_out]
        if not learning or not held_out:
            raise ValueError(
                f"{shards} has {len(learning)} pairs to train on and {len(held_out)} held out: both are needed"
            )
        model.fit([each for one in learning for each in (one.chosen, one.rejected)])
        fit(model, learning, settings, say)
    found = evaluate(model, held_out, settings.tie_k)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.trained().items()}, out / "reward.safetensors")
    (out / "reward.json").write_text(json.dumps({"settings": asdict(settings), "held_out": found}, indent=1))
    return found


def rate(model: Any, folder: Folder, row: Any) -> Rated:
    """Return a pair with the model's inputs, which are computed once."""
    triplet = read(folder, row)
    assert triplet.pair
    inputs = [
        model.inputs(video.decode(mp4), triplet.facts.fps, triplet.prompt) for mp4 in (triplet.video, triplet.rejected)
    ]
    return Rated(row.clip_id, triplet.pair.kind, triplet.pair.tie, row.split not in ("", "train"), *inputs)


def fit(model: Any, learning: Sequence[Rated], settings: RewardSettings, say: Callable[[str], Any]) -> None:
    """Train the model on pairs, in an order that depends on the seed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    model.train()
    for epoch in range(settings.epochs):
        order, losses = rng(settings.seed, epoch, 0, "reward").permutation(len(learning)), []
        for start in range(0, len(order), settings.batch_size):
            batch = [learning[n] for n in order[start : start + settings.batch_size]]
            chosen, rejected = rewards(model, batch)
            ties = torch.tensor([one.tie for one in batch], device=chosen.device)
            loss = bradley_terry.loss(chosen, rejected, ties, settings.tie_k).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        if (epoch + 1) % max(1, settings.epochs // 5) == 0:
            say(f"epoch {epoch + 1:3d}  loss {np.mean(losses):.4f}")
    model.eval()


def rewards(model: Any, batch: Sequence[Rated]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rewards of the chosen and the rejected videos. Raises FloatingPointError with the key of a non-finite one."""
    made = model([one.chosen for one in batch] + [one.rejected for one in batch]).float().view(2, -1)
    if not made.isfinite().all():
        odd = batch[int((~made.isfinite()).any(0).nonzero()[0, 0])]
        raise FloatingPointError(
            f"the reward of the pair {odd.key} is NaN or infinite: lower --learning-rate, or remove the pair"
        )
    return made[0], made[1]


@torch.no_grad()
def evaluate(model: Any, held_out: Sequence[Rated], tie_k: float) -> dict[str, Any]:
    """Return accuracies with 95 % Wilson intervals, and the calibration, on held-out pairs.

    with ties: the likeliest of better, worse and tie is right. without: of the pairs that are not ties, the better video has the
    higher reward. expected calibration error: the mean difference, weighted by the number of pairs, of the stated probability
    that the first video of a pair is better, given that there is no tie, from the fraction of pairs of which it is. Each pair
    counts in both orders.
    """
    model.eval()
    parts = [rewards(model, held_out[n : n + 64]) for n in range(0, len(held_out), 64)]
    difference = torch.cat([chosen - rejected for chosen, rejected in parts]).cpu().double()
    ties = np.array([one.tie for one in held_out])
    stated = bradley_terry.probabilities(difference, tie_k).numpy()
    told, higher = stated.argmax(1) == np.where(ties, 2, 0), difference.numpy() > 0
    kinds = {
        kind: accuracy([bool(higher[n]) for n, one in enumerate(held_out) if one.kind == kind and not one.tie])
        for kind in sorted({one.kind for one in held_out if not one.tie})
    }
    firsts = stated[~ties][:, :2] / stated[~ties][:, :2].sum(1, keepdims=True)
    error, bins = calibration(firsts.ravel(), np.tile([1.0, 0.0], len(firsts)))
    return {
        "pairs": len(held_out),
        "ties": int(ties.sum()),
        "accuracy_with_ties": accuracy(told.tolist()),
        "accuracy_without_ties": accuracy(higher[~ties].tolist()),
        "by_kind": kinds,
        "log_likelihood": float(np.log(np.where(ties, stated[:, 2], stated[:, 0]).clip(1e-12)).mean()),
        "expected_calibration_error": error,
        "calibration": bins,
    }


def accuracy(right: Sequence[bool]) -> dict[str, float]:
    low, high = wilson(sum(right), len(right))
    return {"value": sum(right) / len(right) if right else float("nan"), "low": low, "high": high, "pairs": len(right)}


def calibration(stated: np.ndarray, true: np.ndarray) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error and, by bin of stated probabilities, their mean, the true fraction and the count."""
    place = np.minimum((stated * BINS).astype(int), BINS - 1)
    found = [
        {
            "stated": float(stated[place == n].mean()),
            "true": float(true[place == n].mean()),
            "count": int((place == n).sum()),
        }
        for n in range(BINS)
        if (place == n).any()
    ]
    return sum(each["count"] * abs(each["stated"] - each["true"]) for each in found) / max(1, len(stated)), found


def to_text(found: dict[str, Any]) -> str:
    """Return results as text."""

    def shown(each: dict[str, float]) -> str:
        return f"{each['value']:.1%} ({each['low']:.0%} to {each['high']:.0%}, {each['pairs']} pairs)"

    lines = [f"held out: {found['pairs']} pairs, {found['ties']} of them ties"]
    lines += [f"accuracy {kind} ties: {shown(found[f'accuracy_{kind}_ties'])}" for kind in ("with", "without")]
    lines += [f"  {kind}: {shown(each)}" for kind, each in found["by_kind"].items()]
    lines.append(
        f"expected calibration error {found['expected_calibration_error']:.3f}, log-likelihood {found['log_likelihood']:.3f}"
    )
    return "\n".join(lines)
