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

CALIBRATION_BINS = 5  # of the calibration


class EncodedPair(NamedTuple):
    """A pair as a reward model sees it."""

    key: str
    kind: str
    tie: bool
    held_out: bool
    chosen: Any
    rejected: Any


def train(
    shards: str, out: Path, settings: RewardSettings, device: str = "cpu", log: Callable[[str], Any] = print
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
        encoded = [encode_pair(model, folder, row) for row in rows]
        training = [pair for pair in encoded if not pair.held_out]
        held_out = [pair for pair in encoded if pair.held_out]
        if not training or not held_out:
            raise ValueError(
                f"{shards} has {len(training)} pairs to train on and {len(held_out)} held out: both are needed"
            )
        model.fit([inputs for pair in training for inputs in (pair.chosen, pair.rejected)])
        fit(model, training, settings, log)
    results = evaluate(model, held_out, settings.tie_k)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.trained().items()}, out / "reward.safetensors")
    (out / "reward.json").write_text(json.dumps({"settings": asdict(settings), "held_out": results}, indent=1))
    return results


def encode_pair(model: Any, folder: Folder, row: Any) -> EncodedPair:
    """Return a pair with the model's inputs, which are computed once."""
    triplet = read(folder, row)
    assert triplet.pair
    inputs = [
        model.inputs(video.decode(mp4), triplet.facts.fps, triplet.prompt) for mp4 in (triplet.video, triplet.rejected)
    ]
    return EncodedPair(row.clip_id, triplet.pair.kind, triplet.pair.tie, row.split not in ("", "train"), *inputs)


def fit(model: Any, training: Sequence[EncodedPair], settings: RewardSettings, log: Callable[[str], Any]) -> None:
    """Train the model on pairs, in an order that depends on the seed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    model.train()
    for epoch in range(settings.epochs):
        order, losses = rng(settings.seed, epoch, 0, "reward").permutation(len(training)), []
        for start in range(0, len(order), settings.batch_size):
            batch = [training[n] for n in order[start : start + settings.batch_size]]
            chosen, rejected = rewards(model, batch)
            ties = torch.tensor([pair.tie for pair in batch], device=chosen.device)
            loss = bradley_terry.loss(chosen, rejected, ties, settings.tie_k).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
        if (epoch + 1) % max(1, settings.epochs // 5) == 0:
            log(f"epoch {epoch + 1:3d}  loss {np.mean(losses):.4f}")
    model.eval()


def rewards(model: Any, batch: Sequence[EncodedPair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rewards of the chosen and the rejected videos. Raises FloatingPointError with the key of a non-finite one."""
    values = model([pair.chosen for pair in batch] + [pair.rejected for pair in batch]).float().view(2, -1)
    if not values.isfinite().all():
        non_finite = batch[int((~values.isfinite()).any(0).nonzero()[0, 0])]
        raise FloatingPointError(
            f"the reward of the pair {non_finite.key} is NaN or infinite: lower --learning-rate, or remove the pair"
        )
    return values[0], values[1]


@torch.no_grad()
def evaluate(model: Any, held_out: Sequence[EncodedPair], tie_k: float) -> dict[str, Any]:
    """Return accuracies with 95 % Wilson intervals, and the calibration, on held-out pairs.

    with ties: the likeliest of better, worse and tie is right. without: of the pairs that are not ties, the better video has the
    higher reward. expected calibration error: the mean difference, weighted by the number of pairs, of the stated probability
    that the first video of a pair is better, given that there is no tie, from the fraction of pairs of which it is. Each pair
    counts in both orders.
    """
    model.eval()
    batches = [rewards(model, held_out[n : n + 64]) for n in range(0, len(held_out), 64)]
    difference = torch.cat([chosen - rejected for chosen, rejected in batches]).cpu().double()
    ties = np.array([pair.tie for pair in held_out])
    probabilities = bradley_terry.probabilities(difference, tie_k).numpy()
    correct, is_higher = probabilities.argmax(1) == np.where(ties, 2, 0), difference.numpy() > 0
    kinds = {
        kind: accuracy([bool(is_higher[n]) for n, pair in enumerate(held_out) if pair.kind == kind and not pair.tie])
        for kind in sorted({pair.kind for pair in held_out if not pair.tie})
    }
    two_way = probabilities[~ties][:, :2] / probabilities[~ties][:, :2].sum(1, keepdims=True)
    error, bins = calibration(two_way.ravel(), np.tile([1.0, 0.0], len(two_way)))
    return {
        "pairs": len(held_out),
        "ties": int(ties.sum()),
        "accuracy_with_ties": accuracy(correct.tolist()),
        "accuracy_without_ties": accuracy(is_higher[~ties].tolist()),
        "by_kind": kinds,
        "log_likelihood": float(np.log(np.where(ties, probabilities[:, 2], probabilities[:, 0]).clip(1e-12)).mean()),
        "expected_calibration_error": error,
        "calibration": bins,
    }


def accuracy(correct: Sequence[bool]) -> dict[str, float]:
    low, high = wilson(sum(correct), len(correct))
    return {
        "value": sum(correct) / len(correct) if correct else float("nan"),
        "low": low,
        "high": high,
        "pairs": len(correct),
    }


def calibration(stated: np.ndarray, true: np.ndarray) -> tuple[float, list[dict[str, float]]]:
    """Return the expected calibration error and, by bin of stated probabilities, their mean, the true fraction and the count."""
    bin_of = np.minimum((stated * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = [
        {
            "stated": float(stated[bin_of == n].mean()),
            "true": float(true[bin_of == n].mean()),
            "count": int((bin_of == n).sum()),
        }
        for n in range(CALIBRATION_BINS)
        if (bin_of == n).any()
    ]
    return sum(each["count"] * abs(each["stated"] - each["true"]) for each in bins) / max(1, len(stated)), bins


def to_text(results: dict[str, Any]) -> str:
    """Return results as text."""

    def format_accuracy(each: dict[str, float]) -> str:
        return f"{each['value']:.1%} ({each['low']:.0%} to {each['high']:.0%}, {each['pairs']} pairs)"

    lines = [f"held out: {results['pairs']} pairs, {results['ties']} of them ties"]
    lines += [
        f"accuracy {kind} ties: {format_accuracy(results[f'accuracy_{kind}_ties'])}" for kind in ("with", "without")
    ]
    lines += [f"  {kind}: {format_accuracy(each)}" for kind, each in results["by_kind"].items()]
    lines.append(
        f"expected calibration error {results['expected_calibration_error']:.3f}, log-likelihood {results['log_likelihood']:.3f}"
    )
    return "\n".join(lines)
