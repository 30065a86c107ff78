"""The flags that limit how sources are listed and downloaded."""

import argparse

from a2data.store.source_files import SourceFiles
from a2data.store.tables import Store
from pipelines.sources.download import Downloader, Limits
from pipelines.sources.enrolment import DEFAULT
from pipelines.sources.manifest import Access


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Which sources may be read, and how."""
    sub.add_argument(
        "--max-source-bytes", type=_positive, default=DEFAULT.max_bytes, metavar="BYTES",
        help="largest video to download (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--source-timeout", type=_positive, default=int(DEFAULT.timeout_s), metavar="S",
        help="longest download, in seconds (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--allow-local-urls", action="store_true",
        help="let lists name file:// URLs and hosts that are not on the public internet",
    )  # fmt: skip
    sub.add_argument(
        "--list-encoding", default="", metavar="NAME",
        help="encoding of csv and jsonl lists (default: UTF-8, or what a byte order mark says)",
    )  # fmt: skip
    sub.add_argument(
        "--replace-licenses", action="store_true",
        help="the licences that the inputs state take the place of those of videos that are known",
    )  # fmt: skip


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def access(args: argparse.Namespace, store: Store) -> Access:
    """What the flags say."""
    limits = Limits(max_bytes=args.max_source_bytes, timeout_s=float(args.source_timeout))
    downloader = Downloader(limits, args.allow_local_urls)
    return Access(downloader, SourceFiles(store), args.list_encoding, args.replace_licenses)
