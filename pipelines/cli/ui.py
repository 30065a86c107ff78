"""The command `a2data ui`."""

import argparse

from pipelines import marks
from pipelines.cli import session
from pipelines.ui.page import LOOPBACK, page, serve
from pipelines.ui.work import WorkFolder


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data ui`."""
    command.add_argument(
        "--checkpoint", metavar="DIR", help="checkpoint to sample with: A2, Wan2.1-I2V for diffusers, or an export"
    )
    command.add_argument("--work", metavar="DIR", help="work folder (or URL) to look at and to mark the pairs of")
    command.add_argument(
        "--marks", metavar="FILE", help="file of the marks (default: WORK.marks.json, beside the work folder)"
    )
    command.add_argument("--shards", metavar="DIR", help="folder (or URL) of packed shards to browse")
    command.add_argument("--out", default="videos", metavar="DIR", help="folder for sampled videos (default: videos)")
    command.add_argument(
        "--host", default=LOOPBACK, help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    command.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    command.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if available)")
    command.set_defaults(func=ui)


def ui(args: argparse.Namespace) -> int:
    """Serve the page until interrupted."""
    work = None
    if args.work:
        _, _, stages = session.open_work_folder(args)
        work = WorkFolder(args.work, stages, args.marks or marks.beside(args.work))
    app = page(args.checkpoint, args.shards, args.out, args.device, work)
    print(f"a2data ui: http://{args.host}:{args.port}", flush=True)
    serve(app, args.host, args.port, args.out).block_thread()
    return 0
