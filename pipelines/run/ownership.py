"""Ownership of shard folders: the manifest of an out folder names the one work folder that may write into it.

`work.json` in a work folder holds its id and the folder where it was created. If that differs from its present folder, it was
copied or moved and gets a new id. A copied work folder with its shards inside owns the copies of the shards.
"""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from a2data.dataset import writer
from a2data.store.folder import Folder
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.run import outputs
from pipelines.run.lock import LOCK, exclusive_lock

FILE = "work.json"
SCRATCH = re.compile(r".+\.[0-9a-f]{32}\.tmp")  # names given by Folder.scratch


@dataclass(frozen=True)
class Identity:
    """Identity of a work folder."""

    id: str
    made_in: str  # absolute path or URL
    copied_from: tuple[str, ...] = ()  # previous ids, oldest first

    @property
    def owner(self) -> dict[str, str]:
        """The owner entry of the manifest."""
        return {"id": self.id, "work": self.made_in}


def identify(store: Store) -> Identity:
    """Return the identity of a work folder. Creates a new one if it has none or was copied or moved.

    Call it under the lock of the work folder. Raises ValueError for an unreadable file.
    """
    here, data = _absolute_path(store), store.get(FILE)
    try:
        known = Identity(**json.loads(data)) if data else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{store.path(FILE)} is damaged ({error}): delete it, and the next run recreates it") from None
    if known and known.made_in == here:
        return known
    new = Identity(uuid.uuid4().hex, here, (*known.copied_from, known.id) if known else ())
    store.put(json.dumps(asdict(new), indent=1, sort_keys=True).encode(), FILE)
    return new


def _absolute_path(folder: Folder) -> str:
    return os.path.realpath(folder.base) if folder.local else folder.root.rstrip("/")


def _enclosing_work_folder(out: Folder) -> str:
    """Return the work folder that contains a local folder; "" if none does."""
    path = _absolute_path(out)
    candidates = [path, *map(str, PurePath(path).parents)] if out.local else []
    return next((folder for folder in candidates if os.path.exists(os.path.join(folder, "run.json"))), "")


def refusal_reason(
    identity: Identity,
    manifest: dict[str, Any],
    entries: Sequence[str],
    inside: bool,
    tables: str,
    host: str = "",
    packed: Set[str] = frozenset(),
) -> str:
    """Return why a work folder may not write into an out folder; "" if it may. Pure.

    manifest: that of the out folder; {} if it is missing or damaged. entries: other files in it. inside: whether the out folder
    is inside the work folder. tables: digest of the work folder's table `pack`, used for manifests from before 2026-12, which do
    not have an owner. host: work folder that contains the out folder. packed: tars that the work folder packed into this out
    folder; if the manifest is missing, any of them, whose names end in their sha256, identifies the owner. A copied work folder
    packed none.
    """
    owner = manifest.get("owner")
    if isinstance(owner, dict):
        own_ids = (identity.id, *identity.copied_from) if inside else (identity.id,)
        return "" if owner.get("id") in own_ids else f"belongs to the work folder {owner.get('work')}"
    recipe = manifest.get("about")
    packed_here = bool(tables) and isinstance(recipe, dict) and recipe.get("tables") == tables
    owns_entries = not manifest and not identity.copied_from and not packed.isdisjoint(entries)
    if inside or not entries or ((packed_here or owns_entries) and not host):
        return ""
    if host:
        return f"is inside the work folder {host}"
    remainder = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
    return f"holds files that this work folder did not write ({', '.join(entries[:3])}{remainder})"


def check(store: Store, out: Folder, take_over: bool = False) -> tuple[Identity, dict[str, Any]]:
    """Return the identity of the work folder, and the manifest of the out folder.

    Raises PermissionError if the one may not write into the other.
    """
    identity, manifest = identify(store), writer.manifest(out)
    # manifests with an owner decide by that alone: neither the folder nor the footers of `pack` are read
    owned = isinstance(manifest.get("owner"), dict)
    entries = [] if owned else [name for name in out.entries() if name != LOCK]
    inside = f"{_absolute_path(out)}/".startswith(f"{_absolute_path(store)}/")
    tables = "" if take_over or owned else outputs.tables_digest(Ledger(store))
    packed = frozenset() if take_over or manifest else _packed(store, out)
    reason = (
        ""
        if take_over
        else refusal_reason(identity, manifest, entries, inside, tables, _enclosing_work_folder(out), packed)
    )
    if reason:
        raise PermissionError(
            f"{out.root} {reason}: choose another folder with `a2data run --out`, or pass --take-over to make {store.root} its "
            "owner; tars listed in its manifest are then removed once new ones replace them, other files are kept"
        )
    return identity, manifest


@contextlib.contextmanager
def claim(
    store: Store, out: Folder, take_over: bool = False, checked: tuple[Identity, dict[str, Any]] | None = None
) -> Iterator[dict[str, str]]:
    """Claim the out folder of a work folder and keep other runs out of it during the block. Yields the manifest's owner entry.

    The claim is written into the manifest before the first tar. Local folders are locked. A URL has no lock; if a second run
    claims the folder at the same time, this one stops before it publishes. Raises PermissionError if another work folder owns it
    or it contains other files, unless take_over is set, and BlockingIOError if another run uses it.

    checked: the result of `check`, if it was called already; it is used if the folder needs no claim.
    """
    if checked is None or checked[1].get("owner") != checked[0].owner:
        checked = check(store, out, take_over)  # before the lock, which writes a file
    identity, manifest = checked
    with exclusive_lock(out) if _absolute_path(out) != _absolute_path(store) else contextlib.nullcontext():
        if out.local:
            identity, manifest = check(store, out, take_over)
        owner = identity.owner
        if out.local:  # half-written files of killed runs
            for name in filter(SCRATCH.fullmatch, out.names()):
                out.remove(name)
        if "owner" not in manifest:
            _mark_unlisted(store, out, writer.listed_tars(manifest))
        if manifest.get("owner") != owner:
            initial = manifest or {"format": writer.FORMAT, "samples": 0, "shards": []}
            writer.put_manifest(out, initial | {"owner": owner})
        yield owner


def _mark_unlisted(store: Store, out: Folder, listed: set[str]) -> None:
    """Mark the unlisted tars that this work folder packed into an out folder before manifests had owners."""
    for name in _packed(store, out) & set(out.names()) - listed:
        out.put(b"", name + writer.PENDING)


def _packed(store: Store, out: Folder) -> frozenset[str]:
    """Return the names of the tars that, by its tables, a work folder packed into an out folder."""
    names = set[str]()
    for shard in store.shards("pack"):
        footer = store.footer("pack", shard)
        if footer and footer.settings.get("out") == out.root:
            names |= set(store.values("pack", shard, "shard"))
    return frozenset(names)
