"""The command `a2data audit`: the faults of the references of any data set."""

import argparse
import json

from a2data.store.folder import Folder
from model_zoo import cards
from pipelines.corpus import audit
from pipelines.run.progress import status_line
from stages.faces import Faces


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data audit`."""
    command.add_argument(
        "shards", metavar="SHARDS", help="folder (or URL) of the shards; other sets: `a2data import` first"
    )
    command.add_argument(
        "--face-model", default=Faces.model, help='card that compares faces; "" = none (default: %(default)s)'
    )
    command.add_argument("--json", metavar="FILE", help="also write the findings as JSON Lines")
    command.add_argument("--quiet", action="store_true", help="print only the result and errors")
    command.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the audit. Returns 1 if a sample cannot be read."""
    faces = cards.load(args.face_model, cards.device()) if args.face_model else None
    min_similarity = cards.base_card(args.face_model).match_threshold if args.face_model else 0.0
    with status_line("audit", args.quiet) as report:
        result = audit.audit(Folder(args.shards), faces, min_similarity, report)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(finding._asdict(), ensure_ascii=False) + "\n" for finding in result.findings)
    print(audit.format_audit(result), end="")
    return int(any(finding.fault == "unreadable" for finding in result.findings))
