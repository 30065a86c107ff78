"""Flags that limit how sources are listed and downloaded."""

import argparse

from a2data.store.source_files import SourceFiles
from a2data.store.tables import Store
from pipelines.sources.download import Downloader, Limits
from pipelines.sources.enrolment import DEFAULT
from pipelines.sources.manifest import Access


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the flags for listing and downloading sources."""
    sub.add_argument(
        "--max-source-bytes", type=_positive, default=DEFAULT.max_bytes, metavar="BYTES",
        help="size limit of a downloaded video in bytes (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--source-timeout", type=_positive, default=int(DEFAULT.timeout_s), metavar="S",
        help="time limit of a download in seconds (default: %(default)s)",
    )  # fmt: skip
    sub.add_argument(
        "--allow-local-urls", action="store_true",
        help="allow file:// URLs and hosts outside the public internet in lists",
    )  # fmt: skip
    sub.add_argument(
        "--list-encoding", default="", metavar="NAME",
        help="encoding of csv and jsonl lists (default: that of the byte order mark, or UTF-8)",
    )  # fmt: skip
    sub.add_argument(
        "--replace-licenses", action="store_true",
        help="replace the licences of known videos with those stated in the inputs",
    )  # fmt: skip


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def access(args: argparse.Namespace, store: Store) -> Access:
    """Return the source access that the flags describe."""
    limits = Limits(max_bytes=args.max_source_bytes, timeout_s=float(args.source_timeout))
    downloader = Downloader(limits, args.allow_local_urls)
    return Access(downloader, SourceFiles(store), args.list_encoding, args.replace_licenses)
