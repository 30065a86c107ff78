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
from pipelines.train.settings import Settings, check, check_resume
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
    from pipelines.process_group import init_distributed

    pipeline.quiet()
    process = init_distributed()
    check(settings, process.world_size, encoding)
    if (settings.objective == "dpo") != (reference is not None):
        raise ValueError("the objective dpo, and no other, needs a reference model: give its folder with --reference")
    start = reference or model or out / "start"
    if process.rank == 0:
        if reference:
            check_pairs(shards)
        prepare(shards, out, encoding, start, start == out / "start", process.device)
    if process.world_size > 1:
        dist.barrier()
    trainer = Trainer(out, start, encoding, settings, process, adapters=model if reference else None)
    try:
        return trainer.train()
    finally:
        trainer.log.close()


class Trainer:
    """One process of a training."""

    def __init__(
        self, out: Path, start: Path, encoding: Encoding, settings: Settings, process: Any, adapters: Path | None = None
    ):
        import torch
        from safetensors.torch import load_file

        from pipelines.train.checkpoints import Checkpoints
        from pipelines.train.cost import sample_cost
        from pipelines.train.log import TrainingLog
        from pipelines.train.optimizer_step import TrainStep, prepare_model
        from pipelines.train.preference import load_adapters

        self.out, self.start, self.settings, self.process = out, start, settings, process
        self.encoding = encoding
        null_condition = load_file(out / "encoded" / "no_references.safetensors")["condition"]
        network = load_network(start, encoding.conditioning, settings.frozen_dtype)
        if adapters:
            load_adapters(network, adapters)
        self.train_step = TrainStep(prepare_model(network, settings, process), null_condition, settings, process)
        self.roles = {row.clip_id: row.roles for row in read_index(self.folder("train"))}
        bucket = (encoding.frames, encoding.height, encoding.width)
        self.loader, self.held_out = self.make_loaders(bucket)
        self.checkpoints = Checkpoints(out / "checkpoints", settings.checkpoints_total_limit)
        reports_flops = process.rank == 0 and process.device.type == "cuda"  # FLOP/s are reported for GPUs only
        cost = (
            sample_cost(dict(self.train_step.network.config), encoding, settings).step_flops if reports_flops else 0.0
        )
        self.log = TrainingLog(out, process, cost, tokens(encoding))
        self.step, self.seconds = 0, 0.0
        self.last_metrics: dict[str, float] = {}
        # not used at present; makes any future use of the global generator reproducible
        torch.manual_seed(settings.seed)

    def folder(self, split: str) -> Any:
        from a2data.store.folder import Folder

        return Folder(str(self.out / "encoded" / split))

    def make_loaders(self, bucket: tuple[int, int, int]) -> tuple[Any, list[Any]]:
        """Return the loader of the training samples, and the held-out samples."""
        from a2data.dataset.loader import Loader
        from pipelines.train.parallelize import data_rank

        rank, world_size = data_rank(self.settings, self.process)
        common: dict[str, Any] = {"view": "encoded", "index": "index.parquet", "buckets": [bucket], "tail": "fill"}
        loader = Loader(
            self.folder("train").root, seed=self.settings.seed, global_batch_size=self.settings.global_batch_size, rank=rank,
            world_size=world_size, num_workers=self.settings.num_workers, **common,
        )  # fmt: skip
        held_out_folder = self.folder("held-out")
        count = min(self.settings.validate_samples, len(rows(held_out_folder)))  # 0 if no samples are held out
        if not count:
            return loader, []
        held_out = iter(Loader(held_out_folder.root, seed=0, global_batch_size=1, **common))
        return loader, [next(held_out)[0] for _ in range(count)]

    def train(self) -> dict[str, float]:
        """Train from the newest checkpoint to the last step, export the result and return the last held-out losses."""
        state = self.checkpoints.load(*self.trained_state())
        if state:
            check_resume(state["settings"], self.settings)
            self.loader.load_state_dict(state["loader"])
            self.step, self.seconds, self.last_metrics = state["step"], state["seconds"], state["last"]
            self.print(f"resuming after step {self.step}")
        elif self.held_out:
            self.validate()
        batches = iter(self.loader)
        while self.step < self.settings.steps:
            start_s = time.perf_counter()
            samples = next(batches)
            self.log.data_wait_s += time.perf_counter() - start_s
            result = self.run_step(samples)
            self.log.add_step(result, [self.roles.get(sample.key, []) for sample in samples])
            self.step, self.seconds = self.step + 1, self.seconds + time.perf_counter() - start_s
            if self.is_due(self.settings.log_every):
                self.log.write_line(self.step, result.loss, self.train_step.learning_rate(self.step))
            if self.held_out and self.is_due(self.settings.validate_every):
                self.validate()
            if self.is_due(self.settings.checkpoint_interval):
                self.save()
        self.checkpoints.finish()
        self.export()
        return self.last_metrics

    def run_step(self, samples: list[Any]) -> Any:
        """Run a step. A FloatingPointError also lists the tars of these samples that changed after encoding."""
        try:
            return self.train_step.run(samples, self.step)
        except FloatingPointError as error:
            altered = altered_tars(self.loader.index, samples)
            if not altered:
                raise
            raise FloatingPointError(
                f"{error}. {', '.join(altered)} changed after encoding: remove it and re-run the command to encode it again"
            ) from error

    def is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.steps

    def trained_state(self) -> tuple[Any, Any, Any]:
        """Return the network, optimizer and EMA, which a checkpoint stores."""
        return self.train_step.network, self.train_step.optimizer, self.train_step.ema

    def validate(self) -> None:
        """Compute and log the held-out losses of the EMA weights."""
        from pipelines.train.parallelize import data_rank
        from pipelines.train.preference import evaluate_pairs as held_out_pairs
        from pipelines.train.validation import evaluate

        network, settings = self.train_step.network, self.settings
        self.train_step.swap_ema_weights()
        network.eval()
        inputs, rank = (network, self.held_out, self.train_step.null_condition), data_rank(settings, self.process)
        if settings.objective == "dpo":
            pairs = held_out_pairs(*inputs, settings, *rank)
            self.last_metrics = {"val_loss": pairs.loss, "accuracy": pairs.accuracy, "margin": pairs.margin}
            self.last_metrics |= {"better_change": pairs.better_change, "worse_change": pairs.worse_change}
            self.log.write_pair_validation(self.step, pairs)
        else:
            losses = evaluate(*inputs, settings.mixed_precision, settings.micro_batch_size, *rank)
            self.last_metrics = {"val_loss": losses.loss, "val_loss_shuffled": losses.shuffled, "gap": losses.gap}
            self.log.write_validation(self.step, losses)
        network.train()
        self.train_step.swap_ema_weights()

    def save(self) -> None:
        metadata = {
            "settings": asdict(self.settings),
            "loader": self.loader.state_dict(),
            "seconds": self.seconds,
            "last": self.last_metrics,
            "val_loss": self.last_metrics.get("val_loss"),
        }
        self.checkpoints.save(self.step, *self.trained_state(), metadata)

    def export(self) -> None:
        """Write the EMA weights to DIR/model, which a2data sample and diffusers can load."""
        from pipelines.train.export import export

        self.train_step.swap_ema_weights()
        is_lora = self.settings.trainable == "lora"
        sampling = sampling_settings(self.encoding, self.settings, read_index(self.folder("train")))
        export(self.train_step.network, self.start, self.out / "model", self.process.rank == 0, is_lora, sampling)
        self.train_step.swap_ema_weights()
        self.print(
            f"wrote {self.out / 'model'}, a checkpoint for `a2data sample`, after {self.seconds:.0f} s of training"
        )
        if self.process.rank == 0:
            (self.out / "settings.json").write_text(json.dumps(asdict(self.settings), indent=1))

    def print(self, text: str) -> None:
        if self.process.rank == 0:
            print(text, flush=True)


def sampling_settings(encoding: Encoding, settings: Settings, samples: list[Packed]) -> dict[str, Any]:
    """Return the settings of `a2data sample` that match a training; see pipelines.sample.checkpoint.Checkpoint.defaults.

    Without dropped captions the network has no unconditional branch, so that CFG is off.
    """
    size = {"height": encoding.height, "width": encoding.width, "frames": encoding.frames}
    extra: dict[str, Any] = {} if settings.caption_dropout_prob else {"guidance_scale": 1.0}
    if encoding.conditioning != "a2":
        extra |= {"conditioning": encoding.conditioning, "reference_slots": encoding.reference_slots}
    return size | {"fps": round(statistics.median(row.fps for row in samples), 3)} | extra


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


def load_network(folder: Path, conditioning: str = "a2", frozen_dtype: str = "float32") -> Any:
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
