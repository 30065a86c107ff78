"""Export as a stage of the common runner: one shard for each tar, whose clips and pictures are written, see docs/export.md.

The runner writes a row for each exported sample to a work folder inside the export, so that a rerun skips finished tars. The
metadata of a target is written from all rows at the end.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import av

from a2data import heartbeat
from a2data.dataset import writer
from a2data.dataset.triplet import ReferenceMeta, Triplet, from_sample
from a2data.media import sound
from a2data.media.video import Opener
from a2data.records import Failure, Packed, Reject
from a2data.stage import Stage
from a2data.store.filename import safe_name
from a2data.store.folder import Folder
from a2data.store.source_files import SourceFiles
from a2data.store.tables import Store
from pipelines.export import cut, pictures, prompts
from pipelines.export.clock import CLOCKS, Clock, TooSmallError
from pipelines.export.cut import CutPlan
from pipelines.export.target import Exported, Picture, Target
from pipelines.export.targets import TARGETS

STATE = ".a2data"  # folder in the export with the tables


@dataclass(frozen=True)
class SampleLocation:
    """A sample to export."""

    clip_id: str
    shard: str
    shard_sha256: str
    offset: int
    bytes: int
    license: str


@dataclass
class Draft:
    """A sample that is being exported."""

    triplet: Triplet
    license: str
    plan: CutPlan | None = None  # None: the mp4 of the sample is copied
    mp4: bytes = b""
    sound: bool = False
    losses: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.triplet.facts.clip_id


@dataclass(frozen=True)
class Export(Stage):
    """Writes the clips and references of samples for a target."""

    reads = {"samples": SampleLocation}
    writes = Exported
    per = "shard"
    accounts_for = "clip_id"
    unit_timeout_s = 21600.0
    uncached_fields = ("shards", "out")

    target: str
    shards: str
    out: str
    clock: Literal["", "h3", "ltx", "wan", "none"] = ""
    """frame rate, frame counts and sizes; "none": clips as they are in the shards (default: that of the target)"""
    min_frames: int = 0
    """shortest clip, frames; 0: that of the clock"""
    max_frames: int = 0
    """longest clip, frames; 0: that of the clock"""
    short_side_px: int = 0
    """largest short side, pixels; pictures are never enlarged; 0: that of the clock"""
    margin_frames: int = 2
    """frames beyond the count that the trainer takes, as far as the clip has them"""
    references: Literal["", "cutout", "in-place", "crop"] = ""
    """references cut out on white, on white at their position, or cropped with their background (default: that of the target)"""
    prompt: Literal["", "plain", "picture", "h3"] = ""
    """naming of references: none, "<Picture N>" after phrases, or the sections of MiniMax-H3 (default: that of the target)"""
    sound: bool = True
    """keep the sound of the source, if the trainer reads it"""
    crf: int = 16
    """x264 quality, 0 (lossless) to 51"""
    work: str = ""
    """work folder with the copies of downloaded sources"""

    def target_and_clock(self) -> tuple[Target, Clock | None]:
        """Return the target, and the clock with the settings; None if clips are copied."""
        target = TARGETS[self.target]
        name = self.clock or target.clock
        if name in ("", "none"):
            return target, None
        if target.holds_masks:
            raise ValueError(
                f"--clock {name}: {self.target} holds masks in the frames of the shards, so it takes no clock"
            )
        clock = CLOCKS[name]
        return target, Clock(
            clock.fps,
            clock.step,
            clock.rest,
            self.min_frames or clock.min_frames,
            self.max_frames or clock.max_frames,
            clock.side_px,
            self.short_side_px or clock.short_side_px,
            clock.sound_hz if self.sound else 0,
        )

    def run(self, model: None, locations: list[SampleLocation], shard: int) -> Iterator[Exported | Reject | Failure]:
        target, clock = self.target_and_clock()
        folder, out = Folder(self.shards), Folder(self.out)
        # only where each sample is from: one source's samples are in memory at a time
        groups: dict[tuple[str, str], list[SampleLocation]] = {}
        for row in locations:
            draft_or_failure = self.read(folder, row)
            if isinstance(draft_or_failure, Failure):
                yield draft_or_failure
            else:
                meta = draft_or_failure.triplet.facts
                groups.setdefault((meta.video_id, meta.path), []).append(row)
        for (video_id, path), rows in groups.items():
            drafts = [draft for row in rows if isinstance(draft := self.read(folder, row), Draft)]
            planned: list[Draft] = []
            for draft in drafts:
                try:
                    draft.plan = cut.plan_from_source(draft.triplet.facts, clock, self.margin_frames) if clock else None
                    planned.append(draft)
                except TooSmallError as error:
                    yield Reject(draft.key, "outside the clock", str(error))
            for draft_or_error in self.cut(planned, video_id, path, clock):
                yield (
                    draft_or_error
                    if isinstance(draft_or_error, Reject | Failure)
                    else self.try_write(draft_or_error, target, out)
                )

    def try_write(self, draft: Draft, target: Target, out: Folder) -> Exported | Failure:
        """Return the row of `write`, or its failure: a damaged picture must not fail the tar."""
        try:
            return self.write(draft, target, out)
        except (ValueError, OSError, KeyError) as error:
            return Failure(draft.key, f"{type(error).__name__}: {error}")

    def read(self, folder: Folder, row: SampleLocation) -> Draft | Failure:
        try:
            members = writer.read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes)
            triplet = from_sample(members | {"__key__": row.clip_id})
            if triplet.facts.clip_id != row.clip_id:
                raise ValueError(f"the JSON of the sample is that of {triplet.facts.clip_id!r}")
            return Draft(triplet, row.license)
        except (ValueError, KeyError, TypeError, OSError) as error:
            return Failure(row.clip_id, f"{type(error).__name__}: {error}")

    def cut(
        self, drafts: Sequence[Draft], video_id: str, path: str, clock: Clock | None
    ) -> Iterator[Draft | Reject | Failure]:
        """Yield the samples of one source with their clips, from the source, or from the shard with the reason."""
        if clock is None:
            for draft in drafts:
                draft.mp4, draft.sound = draft.triplet.video, draft.triplet.facts.sound.duration_s > 0
                yield draft
            return
        remaining = {draft.key: draft for draft in drafts}
        error_text = ""
        try:
            opener = self.opener(video_id, path)
            plans = [draft.plan for draft in drafts if draft.plan]
            with sound.reading(path, opener, clock.sound_hz) if clock.sound_hz and plans else nullcontext() as track:
                for plan, mp4 in cut.cut_from_source(path, opener, plans, self.crf) if plans else ():
                    draft = remaining.pop(plan.facts.clip_id)
                    draft.mp4 = mp4
                    if track:
                        add_sound(draft, track.cut(plan.facts.source_pts_s[0], plan.frames / plan.fps), clock)
                    yield draft
        except (ValueError, OSError) as error:
            error_text = f"{type(error).__name__}: {error}"
        for draft in remaining.values():
            heartbeat.step()
            yield self.cut_from_shard(draft, clock, error_text)

    def cut_from_shard(self, draft: Draft, clock: Clock, error_text: str) -> Draft | Reject | Failure:
        """Return the sample with a clip from its own mp4. error_text: reason that the source could not be cut."""
        meta = draft.triplet.facts
        draft.losses.append(f"made from the {meta.fps:g} fps clip of the shard: {error_text}")
        try:
            plan = draft.plan = cut.plan_from_shard(meta, clock, self.margin_frames)
            draft.mp4 = cut.cut_from_shard(draft.triplet.video, plan, self.crf)
            if clock.sound_hz:
                add_sound(draft, sound.of_clip(draft.triplet.video, clock.sound_hz, 0, plan.frames / plan.fps), clock)
        except TooSmallError as error:
            return Reject(draft.key, "outside the clock", str(error))
        except (ValueError, av.error.FFmpegError) as error:
            return Failure(draft.key, f"{type(error).__name__}: {error}")
        return draft

    def opener(self, video_id: str, path: str) -> Opener | None:
        """Return the opener of the local copy of a downloaded source. Raises FileNotFoundError for a web address without one."""
        return SourceFiles(Store(self.work or f"{self.out}/{STATE}")).opener(video_id, path)

    def write(self, draft: Draft, target: Target, out: Folder) -> Exported:
        """Write the files of a sample and return its row."""
        meta, key = draft.triplet.facts, safe_name(draft.key, self.shards)
        references = meta.references[: target.max_pictures]
        if references and (dropped := len(meta.references) - len(references)):
            draft.losses.append(
                f"{dropped} of {len(meta.references)} references dropped: at most {target.max_pictures}"
            )
        style = self.references or target.picture_style
        written = []
        for n, reference in enumerate(references, 1):
            name = target.media + target.picture_path(key, n, safe_name(reference.role, key))
            data = self.picture(draft, reference, style)
            out.put(data, name)
            written.append((Picture(name, reference), len(data)))
        name = f"{target.media}videos/{key}.mp4"
        out.put(draft.mp4, name)
        heartbeat.step()
        plan = draft.plan
        return Exported(
            clip_id=key,
            video=name,
            prompt=prompts.prompt(draft.triplet.prompt, references, self.prompt or target.prompt_style),
            captions=prompts.other_captions(meta),
            count=plan.count if plan else meta.frames,
            frames=plan.frames if plan else meta.frames,
            fps=plan.fps if plan else meta.fps,
            width=plan.width if plan else meta.width,
            height=plan.height if plan else meta.height,
            sound=draft.sound,
            pictures=[each for each, _ in written],
            license=draft.license,
            losses=draft.losses,
            sizes=[len(draft.mp4), *(size for _, size in written)],
        )

    def picture(self, draft: Draft, reference: ReferenceMeta, style: str) -> bytes:
        """Return the PNG of a reference; cut out, with the reason noted, if its source cannot be read for a crop."""
        if style == "crop" and reference.name != "bg":
            try:
                origin = reference.origin
                return pictures.crop(origin, origin.path, self.opener(origin.video_id, origin.path))
            except (ValueError, OSError) as error:
                draft.losses.append(f"{reference.name} is cut out, not cropped: {type(error).__name__}: {error}")
        return pictures.picture(draft.triplet, reference, style)


def add_sound(draft: Draft, cut: sound.Cut, clock: Clock) -> None:
    """Add the sound of a clip, if there is any, to its mp4."""
    if cut.samples is not None:
        draft.mp4, draft.sound = sound.with_sound(draft.mp4, cut.samples, clock.sound_hz), True
    if cut.problem:
        draft.losses.append(f"{'with gaps in' if draft.sound else 'without'} its sound: {cut.problem}")


def write_sample_list(store: Store, out: Folder, rows: Sequence[Packed], stage: Export) -> dict[int, str]:
    """Write the samples to export, a shard for each tar. Returns shard -> tar.

    Parts whose files are gone and parts with failures are removed, so that the run makes them again.
    """
    tars: dict[str, list[SampleLocation]] = {}
    for row in rows:
        tars.setdefault(row.shard, []).append(
            SampleLocation(row.clip_id, row.shard, row.shard_sha256, row.offset, row.bytes, row.license)
        )
    for shard in set(store.shards("samples")) - set(range(len(tars))):
        for table in ("samples", stage.name()):
            store.remove(table, f"{shard:05d}.parquet")
    for shard, locations in enumerate(tars.values()):
        store.write("samples", shard, SampleLocation, sorted(locations, key=lambda each: each.clip_id))
        footer = store.footer(stage.name(), shard)
        if footer and (footer.failed or not _files_complete(store, out, stage.name(), shard)):
            store.remove(stage.name(), f"{shard:05d}.parquet")
    return dict(enumerate(tars))


def _files_complete(store: Store, out: Folder, table: str, shard: int) -> bool:
    """Return whether every file of an exported tar exists with its size."""
    sizes: dict[str, dict[str, int]] = {}
    for row in store.read(table, shard, Exported):
        for path, size in zip([row.video, *(each.path for each in row.pictures)], row.sizes, strict=True):
            folder, _, name = path.rpartition("/")
            if folder not in sizes:
                sizes[folder] = out.sizes(folder)
            if sizes[folder].get(name) != size:
                return False
    return True
