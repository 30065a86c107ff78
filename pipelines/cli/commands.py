"""The table of commands: what `a2data --help` prints, and where the flags of each are. Imports none of them."""

import re
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A command, whose module is imported when the command is chosen."""

    summary: str
    flags: str  # "module:function" in pipelines.cli; the function adds the flags to a parser, and the default `func`
    work: bool = False  # whether the first argument is a work folder
    extra: str = ""  # what it needs beyond the core. A stage has none: the cards of its models name theirs


def stage_summaries() -> dict[str, str]:
    """Return the stages of the pipeline in order, by name, with the first line of their docstrings.

    They are read from the source, since importing all stages takes a second. A test compares them with the imported ones.
    """
    root = Path(__file__).parents[2]
    recipe = (root / "pipelines" / "triplets.py").read_text(encoding="utf-8")
    modules = {
        name: module for module, name in re.findall(r"^from (stages\.[\w.]+) import (\w+)$", recipe, re.MULTILINE)
    }
    builtin_recipe = recipe.partition("def builtin")[2].partition("    ]")[0]
    summaries = {}
    for class_name in re.findall(r"^        (\w+)\(\),", builtin_recipe, re.MULTILINE):
        source = (root / f"{modules[class_name].replace('.', '/')}.py").read_text(encoding="utf-8")
        docstring = re.search(rf'^class {class_name}\b.*\n    """(.*?)(?:"""|$)', source, re.MULTILINE)
        summaries[re.sub(r"(?<!^)(?=[A-Z])", "-", class_name).lower()] = docstring[1] if docstring else ""
    return summaries


COMMANDS = {
    "run": Command("run videos through the whole pipeline", "jobs:add_run_flags"),
    "estimate": Command("estimate the cost of a run from a sample of its videos", "jobs:add_estimate_flags"),
    **{name: Command(summary, "jobs:add_stage_flags", work=True) for name, summary in stage_summaries().items()},
    "status": Command("show the progress of every stage", "work_folder:add_status_flags", work=True),
    "verify": Command(
        "check shards against their manifest and tables against their checksums", "work_folder:add_verify_flags"
    ),
    "plan": Command(
        "list the jobs that a run with these settings would do, with the reasons",
        "work_folder:add_plan_flags",
        work=True,
    ),
    "failures": Command("list all failures with their reasons", "work_folder:add_failures_flags", work=True),
    "retry": Command("retry failed units and jobs", "jobs:add_retry_flags", work=True),
    "explain": Command(
        "explain why a video, clip, element or reference was kept, rejected or paired",
        "work_folder:add_explain_flags",
        work=True,
    ),
    "report": Command("write the report as one HTML file", "work_folder:add_report_flags", work=True),
    "config": Command("print the settings of a run as a settings file: dump", "config:add_flags"),
    "models": Command("manage models: list, show, doctor, fetch, verify, licences", "models:add_flags"),
    "encode": Command("encode shards with A2's encoders for training", "encode:add_flags", extra="train"),
    "train": Command("fine-tune A2 on shards; `train estimate` estimates the cost", "train:add_flags", extra="train"),
    "prefer": Command(
        "make preference pairs and have people compare them: make, study", "prefer:add_flags", extra="train"
    ),
    "reward": Command("train a reward model on preference pairs", "reward:add_flags", extra="train"),
    "sample": Command("sample videos from prompts and references", "sample:add_flags", extra="train"),
    "export": Command("export shards to the data that another trainer reads", "export:add_flags"),
    "import": Command(
        "import a data set that others made: Phantom-Data, OpenS2V-5M, folders, shards", "import_:add_flags"
    ),
    "audit": Command("report the faults of the references of a data set, measured on its pictures", "audit:add_flags"),
    "diff": Command(
        "compare two runs or two data sets: counts, triplets that came or went with reasons, references",
        "diff:add_flags",
    ),
    "ui": Command("serve a local page to sample videos and browse shards", "ui:add_flags", extra="ui"),
    "calibrate": Command("estimate the thresholds of retrieve from the corpus", "calibrate:add_flags", work=True),
    "forget": Command(
        "permanently delete a source or a person from every table and every shard", "forget:add_flags", work=True
    ),
    "triplet-bench": Command("run TripletBench: make, score, report, check", "triplet_bench:add_flags", extra="demo"),
    "bench": Command("run A2-Bench: make, run, score, study, leaderboard", "a2_bench:add_flags", extra="bench"),
    "completion": Command(
        "print a script that completes commands and flags in bash, zsh or fish", "completion:add_flags"
    ),
    "demo-films": Command("render the demo films with their ground truth", "demo_films:add_flags", extra="demo"),
}
