"""Shared parts of the commands that start jobs: flags, opening a work folder, the executor and the closing messages."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.cli.flags import argparse_type
from pipelines.export.clock import CLOCKS, segment_settings
from pipelines.run import outputs, settings_file, verify
from pipelines.run import status as planning
from pipelines.run.bounded import TimeoutExecutor
from pipelines.run.recipe import Recipe
from pipelines.run.schedule import Summary
from pipelines.run.schedule import run as run_jobs
from pipelines.run.served import served
from pipelines.run.settings_file import SettingsFile
from pipelines.run.watchdog import WORKER_TIMEOUT_S, Timeouts
from pipelines.triplets import IMPORTED, PROFILES, triplets
from stages.caption.stage import Caption
from stages.pack.stage import Pack


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the executor flags, shared by every command that starts jobs."""
    sub.add_argument(
        "--ray", metavar="ADDRESS", help="Ray cluster address, or auto to join a running local cluster or start one"
    )
    sub.add_argument(
        "--workers",
        action="append",
        default=[],
        metavar="[STAGE=]N",
        help="number of workers: per stage with --ray, otherwise in total (default without --ray: 1)",
    )
    sub.add_argument(
        "--cpus-per-worker",
        type=_cpus,
        metavar="CPUS",
        help="CPUs that a Ray worker requests; may be fractional (default: 1)",
    )
    sub.add_argument(
        "--gpu-memory-gb",
        type=argparse_type("--gpu-memory-gb", float),
        metavar="GB",
        help="memory of each GPU of a Ray cluster in GB: workers share a GPU if their models fit, by the memory on their cards "
        "(default: by the GPU fraction on their cards)",
    )
    sub.add_argument(
        "--unit-timeout",
        action="append",
        default=[],
        metavar="[STAGE=]SECONDS",
        help="time in seconds without a row, frame or task done after which a video or clip is marked as failed; "
        "0: no limit (default: 1800; pack 21600, retrieve 86400)",
    )
    sub.add_argument(
        "--worker-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="time in seconds without a heartbeat after which a worker is killed and replaced; 0: no limit (default: 600)",
    )
    sub.add_argument(
        "--serve",
        metavar="SERVER",
        help="vllm or sglang, in quotes with its flags: start this server for caption.captioner on this machine, one replica "
        "per GPU, and stop it after the run",
    )
    sub.add_argument("--in-process", action="store_true", help="run the jobs in this process, for a debugger")
    sub.add_argument("--quiet", action="store_true", help="print only the result and errors")
    sub.add_argument(
        "--log-json", action="store_true", help="print a JSON line for each finished job instead of progress"
    )
    sub.add_argument(
        "--metrics",
        type=_address,
        metavar="[HOST:]PORT",
        help="serve Prometheus metrics at this port of the driver (default host: 127.0.0.1)",
    )


def add_out_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags of a command that publishes shards."""
    sub.add_argument(
        "--take-over",
        action="store_true",
        help="take ownership of the shard folder even if another work folder owns it or it contains other files",
    )
    sub.add_argument(
        "--allow-shrink", action="store_true", help="publish shards even if fewer than half of the triplets remain"
    )
    sub.add_argument(
        "--verify",
        action="store_true",
        help="compare the sha256 of every tar, not only its size, and repack damaged ones",
    )


def _cpus(text: str) -> float:
    value = argparse_type("--cpus-per-worker", float)(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of at least 0")
    return value


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST:]PORT with a port of at most 65535")
    return host or "127.0.0.1", int(port)


def _seconds(text: str) -> float:
    """Return a limit in seconds, infinity for 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds of at least 0")
    return value or float("inf")


def add_recipe_flags(sub: argparse._ActionsContainer) -> None:
    """Add the flags that choose a profile and its settings."""
    sub.add_argument(
        "--profile", choices=sorted(PROFILES), help="set of models (default: that of the last run, or builtin)"
    )
    sub.add_argument(
        "--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", help="setting of a stage; repeatable"
    )
    sub.add_argument(
        "--config", metavar="FILE", help="settings file in TOML, see `a2data config dump`; --set has precedence"
    )
    add_clock_flag(sub)


def add_clock_flag(sub: argparse._ActionsContainer) -> None:
    """Add --clock, whose settings `configure` applies."""
    sub.add_argument(
        "--clock",
        choices=["a2", *sorted(CLOCKS)],
        help="cut clips at the frame rate, length and size of a trainer, see docs/export.md (a2: the defaults)",
    )


def configure(recipe: Recipe, args: argparse.Namespace) -> None:
    """Apply --profile, --config, --clock and --set; the later have precedence. Raises ValueError for an invalid one.

    An imported set does not take a profile: other stages cannot make its tables.
    """
    path, clock = getattr(args, "config", None), getattr(args, "clock", None)
    file = settings_file.read(path) if path else SettingsFile()
    profile = getattr(args, "profile", None) or file.profile
    if profile and recipe.profile == IMPORTED:
        raise ValueError(f"{args.work} is an imported set, which does not take a profile")
    recipe.profile = profile or recipe.profile
    stages = triplets(recipe.profile)
    recipe.update(stages, file.settings, file.path)
    recipe.set(stages, [*(segment_settings(clock) if clock else []), *getattr(args, "set", [])])


def open_work_folder(args: argparse.Namespace) -> tuple[Store, Recipe, list[Stage]]:
    """Open an existing work folder and return its store, recipe and stages. Raises ValueError if it was never run."""
    store = Store(args.work)
    recipe = Recipe.existing(store)
    configure(recipe, args)
    return store, recipe, recipe.apply(triplets(recipe.profile), store)


def run_stages(
    args: argparse.Namespace,
    stages: Sequence[Stage],
    store: Store,
    shards: list[int],
    names: Mapping[int, str] = MappingProxyType({}),
    ledger: Ledger | None = None,
) -> Summary:
    """Run the jobs that are due, in this process, in child processes or on Ray, depending on the flags.

    names: {shard: name} for the progress display. ledger: that of the store, if the caller has it.
    """
    from pipelines.run.progress import progress_listener

    ledger = ledger or Ledger(store)
    for stage in stages:
        if isinstance(stage, Pack):
            hashed = getattr(args, "verify", False)
            verification = verify.forget_damaged_tars(ledger, Folder(stage.out), hashed)
            if hashed:
                verify.record_verification(Folder(stage.out), verification)
    executor = _executor(args, stages, store)
    listeners = [progress_listener(store, args.quiet, shards, names, args.log_json)]
    if args.metrics:
        from pipelines.run.metrics import Metrics

        listeners.append(Metrics(store, *args.metrics))

    def notify(event: str, about: Any) -> None:
        for listener in listeners:
            listener(event, about)

    with ExitStack() as stack:
        caption = next((stage for stage in stages if isinstance(stage, Caption)), None)
        if args.serve and caption and not all(map(ledger.is_fresh(caption), ((shard,) for shard in shards))):
            stack.enter_context(served(args.serve, caption.captioner, args.work))
        return run_jobs(stages, store, shards, executor, notify, ledger)


def _executor(args: argparse.Namespace, stages: Sequence[Stage], store: Store) -> Any:
    """Return the executor that the flags ask for: on Ray, in this process, or with child processes."""
    limits = timeouts(args.unit_timeout, args.worker_timeout, stages)
    if args.ray:
        from pipelines.run import on_ray

        on_ray.connect(args.ray)
        if args.gpu_memory_gb is not None and not args.gpu_memory_gb > 0:
            raise ValueError(f"--gpu-memory-gb {args.gpu_memory_gb:g}: the memory must be above 0")
        actors = on_ray.RayExecutor(
            store, _workers(args.workers, stages), args.cpus_per_worker, limits, gpu_memory_gb=args.gpu_memory_gb
        )
        return TimeoutExecutor(actors)
    from pipelines.run import local

    count = max([1, *_workers(args.workers, stages).values()])  # a wrong number is an error with --in-process too
    if args.in_process:
        local.set_threads()
        return local.InProcessExecutor(store)
    return local.ProcessExecutor(store, count, limits)


def _workers(texts: Sequence[str], stages: Sequence[Stage]) -> dict[str, int]:
    """Parse ["detect=2", "3"] into {"detect": 2, …}; a bare number applies to every stage."""
    out: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.isdigit() or int(number) < 1 or (name and name not in {s.name() for s in stages}):
            raise ValueError(f"--workers {text!r}: write a number, or stage=number, such as detect=2")
        out.update({name: int(number)} if name else {stage.name(): int(number) for stage in stages})
    return out


def timeouts(texts: Sequence[str], worker_s: float | None, stages: Sequence[Stage]) -> Timeouts:
    """Parse the values of --unit-timeout, such as ["caption=600", "3600"], and of --worker-timeout.

    A number without a stage applies to every stage that is not named. Raises ValueError.
    """
    for_all: dict[str, float] = {}
    named: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            limit_s = _seconds(number)
        except argparse.ArgumentTypeError:
            limit_s = 0.0
        if not limit_s or (name and name not in {s.name() for s in stages}):
            raise ValueError(f"--unit-timeout {text!r}: write seconds, or stage=seconds, such as caption=600")
        named.update({name: limit_s} if name else {})
        for_all.update({} if name else {stage.name(): limit_s for stage in stages})
    return Timeouts(for_all | named, WORKER_TIMEOUT_S if worker_s is None else worker_s)


def finish(
    store: Store,
    stages: Sequence[Stage],
    recipe: Recipe,
    summary: Summary,
    owner: dict[str, str],
    allow_shrink: bool = False,
    quiet: bool = False,
    forgotten: Callable[[str], bool] = lambda clip_id: False,
) -> int:
    """Publish the index, manifest and report, and print the failures. Returns the exit code.

    owner: owner record of the shards. allow_shrink: publish even if fewer than half of the published samples remain. quiet: print
    only the number of triplets and what failed. forgotten: whether a clip_id is not counted among the published ones. Returns 1,
    with the reason on the last line, if a job failed, every unit of a stage failed, or all triplets (without allow_shrink: more
    than half) would be gone.
    """
    # a tenth of a second at start-up that only this needs
    from pipelines.report import page

    out = recipe.folder(store)
    data = out.get("index.parquet")
    old_ids = [clip_id for clip_id in outputs.published_clip_ids(data) if not forgotten(clip_id)]
    shrink_error, num_triplets = "", len(old_ids)
    if summary.failed_jobs or summary.blocked:
        print(f"the index in {out.root} was not updated because some jobs failed", file=sys.stderr)
    else:
        try:
            min_samples = 0 if allow_shrink else (len(old_ids) + 1) // 2
            manifest = outputs.write_index(summary.ledger, out, recipe.profile, stages, owner, min_samples, data)
            num_triplets = manifest["samples"]
            print(f"{num_triplets} triplets in {out.root}")
            print("" if quiet else outputs.describe_splits(manifest), end="")
        except outputs.ShrinkError as error:
            shrink_error = str(error)
    changed = bool(summary.jobs or summary.failed_jobs)
    tables_ns = max(summary.ledger.modified_ns.values(), default=0)
    report = page.report(store, out, stages, changed, tables_ns)
    failed = planning.failures(summary.ledger, [stage.name() for stage in stages])
    if failed:
        print(
            f"{len(failed)} failed: list them with `a2data failures {store.root}`, retry with `a2data retry {store.root}`",
            file=sys.stderr,
        )
    if not quiet:
        print(f"report: {report}")
    reasons = [shrink_error] if shrink_error else none_left(num_triplets, len(old_ids))
    return conclude(
        print_failures(summary), planning.all_failed(summary.ledger, [stage.name() for stage in stages]) + reasons
    )


def none_left(remaining: int, before: int) -> list[str]:
    """Return the reason to fail if all triplets are gone; [] if some remain or none existed before."""
    return [f"no triplets remain, {before} before"] if before and not remaining else []


def conclude(code: int, reasons: Sequence[str]) -> int:
    """Print on the last line why a command failed although its jobs were done. Returns the exit code."""
    if reasons:
        sys.stdout.flush()
        print(f"a2data: {'; '.join(reasons)}", file=sys.stderr)
    return 1 if reasons else code


def print_failures(summary: Summary) -> int:
    """Print each reason of failed jobs once, with the number of jobs. Returns the exit code."""
    reasons = Counter((stage, error) for (stage, _), error in summary.failed_jobs.items())
    for (stage, error), jobs in reasons.most_common(3):
        print(f"a2data: {stage}: {error}" + f" ({jobs} jobs)" * (jobs > 1), file=sys.stderr)
    if len(reasons) > 3:
        print(f"a2data: {len(reasons) - 3} more reasons: see `a2data failures`", file=sys.stderr)
    return 1 if summary.failed_jobs else 0
