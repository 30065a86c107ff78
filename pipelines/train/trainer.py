"""`a2data train`: fine-tune an A2 transformer on shards. Re-running the command resumes, bit-identical to an uninterrupted run.

    a2data train SHARDS --preset tiny --out DIR
    a2data train --objective dpo --pairs PAIRS --reference MODEL --preset 14b --out DIR
    torchrun --nproc-per-node 8 $(which a2data) train SHARDS --preset 14b --model A2 --out DIR
    a2data train SHARDS --preset 14b --model A2 --out DIR --ray auto --gpus 8

Every random choice is keyed by seed, epoch, sample and purpose, so training is independent of interruptions and of the number of
processes.
"""

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from a2data.dataset.writer import rows
from a2data.records import Packed
from a2data.store.folder import file_sha256
from pipelines.encode import read_index
from pipelines.train.settings import Settings, check, check_same
from pipelines.train.start import prepare
from stages.encode.settings import Encoding, tokens


def train(
    shards: str,
    out: Path,
    encoding: Encoding,
    settings: Settings,
    model: Path | None = None,
    reference: Path | None = None,
) -> dict[str, float]:
    """Train for settings.steps steps, resuming from checkpoints in `out`, and return the last held-out losses.

    reference: the model that DPO starts from and compares with; `model`, if any, is then an export of an earlier DPO training
    with that reference, whose adapters are trained further.

    Raises ValueError for unsuitable data, settings or model, OSError for a full disk, and FloatingPointError for a non-finite
    loss; existing checkpoints are kept.
    """

    import torch.distributed as dist

    from model_zoo.a2 import pipeline
    from pipelines.process_group import join

    pipeline.quiet()
    place = join()
    check(settings, place.ranks, encoding)
    if (settings.objective == "dpo") != (reference is not None):
        raise ValueError("the objective dpo, and no other, needs a reference model: give its folder with --reference")
    begin = reference or model or out / "start"
    if place.rank == 0:
        if reference:
            check_pairs(shards)
        prepare(shards, out, encoding, begin, begin == out / "start", place.device)
    if place.ranks > 1:
        dist.barrier()
    run = Run(out, begin, encoding, settings, place, adapters=model if reference else None)
    try:
        return run.go()
    finally:
        run.log.close()


class Run:
    """One process of a training."""

    def __init__(
        self, out: Path, begin: Path, encoding: Encoding, settings: Settings, place: Any, adapters: Path | None = None
    ):
        import torch
        from safetensors.torch import load_file

        from pipelines.train.checkpoints import Checkpoints
        from pipelines.train.cost import of_sample
        from pipelines.train.log import Log
        from pipelines.train.optimizer_step import TrainStep, prepare_model
        from pipelines.train.preference import load_adapters

        self.out, self.begin, self.settings, self.place = out, begin, settings, place
        self.encoding = encoding
        nothing = load_file(out / "encoded" / "no_references.safetensors")["condition"]
        network = network_in(begin, encoding.conditioning, settings.frozen_dtype)
        if adapters:
            load_adapters(network, adapters)
        self.learner = TrainStep(prepare_model(network, settings, place), nothing, settings, place)
        self.roles = {row.clip_id: row.roles for row in read_index(self.folder("train"))}
        bucket = (encoding.frames, encoding.height, encoding.width)
        self.loader, self.held_out = self.readers(bucket)
        self.checkpoints = Checkpoints(out / "checkpoints", settings.checkpoints_total_limit)
        timed = place.rank == 0 and place.device.type == "cuda"  # FLOP/s are reported for GPUs only
        cost = of_sample(dict(self.learner.network.config), encoding, settings).step if timed else 0.0
        self.log = Log(out, place, cost, tokens(encoding))
        self.step, self.seconds = 0, 0.0
        self.last: dict[str, float] = {}
        # not used at present; makes any future use of the global generator reproducible
        torch.manual_seed(settings.seed)

    def folder(self, split: str) -> Any:
        from a2data.store.folder import Folder

        return Folder(str(self.out / "encoded" / split))

    def readers(self, bucket: tuple[int, int, int]) -> tuple[Any, list[Any]]:
        """Return the loader of the training samples, and the held-out samples."""
        from a2data.dataset.loader import Loader
        from pipelines.train.parallelize import data_rank

        rank, ranks = data_rank(self.settings, self.place)
        common: dict[str, Any] = {"view": "encoded", "index": "index.parquet", "buckets": [bucket], "tail": "fill"}
        loader = Loader(
            self.folder("train").root, seed=self.settings.seed, global_batch_size=self.settings.global_batch_size, rank=rank,
            world_size=ranks, num_workers=self.settings.num_workers, **common,
        )  # fmt: skip
        there = self.folder("held-out")
        count = min(self.settings.validate_samples, len(rows(there)))  # 0 if no samples are held out
        if not count:
            return loader, []
        aside = iter(Loader(there.root, seed=0, global_batch_size=1, **common))
        return loader, [next(aside)[0] for _ in range(count)]

    def go(self) -> dict[str, float]:
        """Train from the newest checkpoint to the last step, export the result and return the last held-out losses."""
        known = self.checkpoints.load(*self.state())
        if known:
            check_same(known["settings"], self.settings)
            self.loader.load_state_dict(known["loader"])
            self.step, self.seconds, self.last = known["step"], known["seconds"], known["last"]
            self.say(f"resuming after step {self.step}")
        elif self.held_out:
            self.validate()
        batches = iter(self.loader)
        while self.step < self.settings.steps:
            began = time.perf_counter()
            samples = next(batches)
            self.log.waited_s += time.perf_counter() - began
            found = self.learn(samples)
            self.log.step(found, [self.roles.get(sample.key, []) for sample in samples])
            self.step, self.seconds = self.step + 1, self.seconds + time.perf_counter() - began
            if self.due(self.settings.log_every):
                self.log.line(self.step, found.loss, self.learner.rate(self.step))
            if self.held_out and self.due(self.settings.validate_every):
                self.validate()
            if self.due(self.settings.checkpoint_interval):
                self.save()
        self.checkpoints.finish()
        self.export()
        return self.last

    def learn(self, samples: list[Any]) -> Any:
        """Run a step. A FloatingPointError also lists the tars of these samples that changed after encoding."""
        try:
            return self.learner.learn(samples, self.step)
        except FloatingPointError as error:
            altered = altered_tars(self.loader.index, samples)
            if not altered:
                raise
            raise FloatingPointError(
                f"{error}. {', '.join(altered)} changed after encoding: remove it and re-run the command to encode it again"
            ) from error

    def due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def state(self) -> tuple[Any, Any, Any]:
        """Return the network, optimizer and EMA, which a checkpoint stores."""
        return self.learner.network, self.learner.optimizer, self.learner.average

    def validate(self) -> None:
        """Compute and log the held-out losses of the EMA weights."""
        from pipelines.train.parallelize import data_rank
        from pipelines.train.preference import held_out as held_out_pairs
        from pipelines.train.validation import held_out

        network, of = self.learner.network, self.settings
        self.learner.swap_ema_weights()
        network.eval()
        given, mine = (network, self.held_out, self.learner.nothing), data_rank(of, self.place)
        if of.objective == "dpo":
            pairs = held_out_pairs(*given, of, *mine)
            self.last = {"val_loss": pairs.loss, "accuracy": pairs.accuracy, "margin": pairs.margin}
            self.last |= {"better_change": pairs.better_change, "worse_change": pairs.worse_change}
            self.log.held_out_pairs(self.step, pairs)
        else:
            found = held_out(*given, of.mixed_precision, of.micro_batch_size, *mine)
            self.last = {"val_loss": found.loss, "val_loss_shuffled": found.shuffled, "gap": found.gap}
            self.log.held_out(self.step, found)
        network.train()
        self.learner.swap_ema_weights()

    def save(self) -> None:
        about = {
            "settings": asdict(self.settings),
            "loader": self.loader.state_dict(),
            "seconds": self.seconds,
            "last": self.last,
            "val_loss": self.last.get("val_loss"),
        }
        self.checkpoints.save(self.step, *self.state(), about)

    def export(self) -> None:
        """Write the EMA weights to DIR/model, which a2data sample and diffusers can load."""
        from pipelines.train.export import export

        self.learner.swap_ema_weights()
        adapted = self.settings.trainable == "lora"
        sampling = trained_with(self.encoding, self.settings, read_index(self.folder("train")))
        export(self.learner.network, self.begin, self.out / "model", self.place.rank == 0, adapted, sampling)
        self.learner.swap_ema_weights()
        self.say(
            f"wrote {self.out / 'model'}, a checkpoint for `a2data sample`, after {self.seconds:.0f} s of training"
        )
        if self.place.rank == 0:
            (self.out / "settings.json").write_text(json.dumps(asdict(self.settings), indent=1))

    def say(self, text: str) -> None:
        if self.place.rank == 0:
            print(text, flush=True)


def trained_with(encoding: Encoding, settings: Settings, samples: list[Packed]) -> dict[str, Any]:
    """Return the settings of `a2data sample` that match a training; see pipelines.sample.checkpoint.Checkpoint.defaults.

    Without dropped captions the network has no unconditional branch, so that CFG is off.
    """
    size = {"height": encoding.height, "width": encoding.width, "frames": encoding.frames}
    more: dict[str, Any] = {} if settings.caption_dropout_prob else {"guidance_scale": 1.0}
    if encoding.conditioning != "a2":
        more |= {"conditioning": encoding.conditioning, "reference_slots": encoding.reference_slots}
    return size | {"fps": round(statistics.median(row.fps for row in samples), 3)} | more


def check_pairs(shards: str) -> None:
    """Raise ValueError if a data set does not hold pairs, or if two of them disagree."""
    from a2data.dataset import pair
    from a2data.store.folder import Folder

    folder = Folder(shards)
    pair.check_agreement(pair.read(folder, {row.shard for row in read_index(folder)}))


def altered_tars(index: Any, samples: list[Any]) -> list[str]:
    """Return the tars of these samples whose sha256 differs from the index."""

    row_of = {index.tar_path(sample.row): sample.row for sample in samples}
    return [tar for tar, row in sorted(row_of.items()) if file_sha256(tar) != index.table["shard_sha256"][row].as_py()]


def network_in(folder: Path, conditioning: str = "a2", frozen_dtype: str = "float32") -> Any:
    """Return the transformer of a checkpoint folder, float32, or quantised by torchao for "int8" and "fp8".

    Raises ValueError if it does not take that conditioning, or torchao is not installed.
    """
    import torch

    from model_zoo.a2 import checkpoint
    from model_zoo.a2.acceleration import quantisation
    from model_zoo.a2.transformer import load_transformer

    checkpoint.check_conditioning(folder, conditioning)
    quantised = quantisation(frozen_dtype, "--frozen-dtype") if frozen_dtype in ("int8", "fp8") else None
    return load_transformer(folder, torch.bfloat16 if quantised else torch.float32, quantised)
