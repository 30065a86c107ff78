"""A name that comes from data goes through `a2data.store.filename` before it becomes part of a path; the code is searched for
others.

Where a path is built (PATH / x, Path(x), open(x), os.path.join(x), joinpath, with_name …), x is suspicious if it is

* an f-string with a value in it, other than a number in a format that ends in "d" or a constant in capitals;
* an attribute or an entry called like what shards, tables, lists and repositories name things by (FIELDS), or a variable called
  like an identifier (IDENTIFIERS);
* a variable that the same function sets to one of these.

It is fine inside safe_name(…) or safe_path(…), or where ALLOWED says why. `Folder` checks its names itself, see
a2data/store/folder.py. Benchmarks are not searched: they read what they made. The rule knows no types, and a name that passes
through a call escapes it.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("a2data", "stages", "pipelines", "model_zoo", "examples")
IDENTIFIERS = {
    "case",
    "clip",
    "clip_id",
    "element_id",
    "key",
    "member",
    "reference",
    "sample",
    "shard",
    "suffix",
    "video_id",
}
FIELDS = IDENTIFIERS | {"file", "id", "label", "name", "path", "picture", "plate", "source", "source_element_id"}
METHODS = {"joinpath", "with_name", "with_stem", "with_suffix", "symlink_to", "hardlink_to", "rename", "replace"}
FUNCTIONS = {
    "Path", "PurePath", "PurePosixPath", "open", "os.open", "os.path.join", "os.rename", "os.replace", "os.link",
    "os.symlink", "os.mkdir", "os.makedirs", "os.remove", "os.unlink", "shutil.copy", "shutil.copyfile", "shutil.move",
}  # fmt: skip
PIECES = {"name", "stem", "suffix"}  # of a Path that opens nothing
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

OURS = "the module makes the name itself, of numbers and hashes"
CONSTANT = "the films of the demo and of tier S are constants of their scripts"
TYPED = "the user typed it on the command line"
ALLOWED = {
    ("examples/train_40_lines.py", "f'{out}.new'"): TYPED,
    ("model_zoo/torchvision_shim.py", "self.path"): "where Python found the installed torchvision",
    ("model_zoo/weights.py", "Path(file[0]).name"): "a card names it; cards are code",
    ("pipelines/bench/a2/cases.py", "name"): OURS,
    ("pipelines/bench/a2/study/page.py", "file"): "a hash, or the result of safe_name",
    (
        "pipelines/cli/commands.py",
        """f"{modules[class_name].replace('.', '/')}.py\"""",
    ): "a module that the recipe's own source imports",
    ("pipelines/films/demo.py", "movie.file"): CONSTANT,
    ("pipelines/films/demo.py", "truth['plate']"): CONSTANT,
    ("pipelines/cli/download.py", "path.name + suffix"): "a path that a card names, with an ending",
    ("pipelines/cli/fetch.py", "partial.name + '.zip'"): "a path that a card names, with an ending",
    ("pipelines/cli/fetch.py", "f'.{target.name}.part'"): "the last part of a path that a card names",
    ("pipelines/cli/fetch.py", "f'{package}-{version}'"): "PYPI allows no separator in either",
    ("pipelines/sample/cutouts.py", "f\"{job.out.removesuffix('.mp4')}-cut-{number}.png\""): "jobs.read checks --out",
    ("pipelines/train/export.py", "f'{folder.name}.tmp'"): TYPED,
    ("pipelines/train/safe_reading.py", "self.path"): "a checkpoint's folder, in an error message",
    ("pipelines/films/tier_c.py", "file"): OURS,
    ("pipelines/films/tier_c.py", "name"): OURS,
    ("pipelines/films/tier_s.py", "name"): CONSTANT,
    ("pipelines/films/tier_s.py", "reel.file"): CONSTANT,
    ("pipelines/ui/sample.py", "f'{stem}.json'"): "job_of numbers the videos",
    ("pipelines/ui/sample.py", "f'{stem}.png'"): "job_of numbers the videos",
    ("pipelines/ui/shards.py", "reader.videos.name"): "a temporary folder",
}


def functions(tree: ast.Module) -> Iterator[ast.AST]:
    """Every function of a module, and the module without its functions."""
    yield from (node for node in ast.walk(tree) if isinstance(node, FUNCTION))
    yield ast.Module([node for node in tree.body if not isinstance(node, (*FUNCTION, ast.ClassDef))], [])


def suspicious(node: ast.expr, variables: set[str]) -> bool:
    """Whether an expression may carry a name from data. variables: those that the function sets to such an expression."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(value, ast.FormattedValue) and not plain(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return suspicious(node.left, variables) or suspicious(node.right, variables)
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in FIELDS
    if isinstance(node, ast.Attribute):
        return node.attr in FIELDS
    return isinstance(node, ast.Name) and node.id in IDENTIFIERS | variables


def plain(value: ast.FormattedValue) -> bool:
    """Whether a value of an f-string is a number such as {step:06d}, or a constant such as {SUFFIX}."""
    constant = isinstance(value.value, ast.Name) and value.value.id.isupper()
    return constant or (value.format_spec is not None and ast.unparse(value.format_spec).strip("f'\"").endswith("d"))


def path_parts(node: ast.AST) -> list[ast.expr]:
    """The operand or the arguments of a node that become parts of a path; none where it builds none."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return [node.right]
    if isinstance(node, ast.Call):
        method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        method = method and (node.func.attr != "replace" or len(node.args) == 1)  # that of a text has two
        return list(node.args) if method or dotted(node.func) in FUNCTIONS else []
    return []


def dotted(node: ast.expr) -> str:
    """Return a name such as os.path.join, "" for what is none. As ast.unparse, but quick."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def findings(source: str) -> dict[str, int]:
    """Expression -> line of every suspicious part of a path."""
    found = {}
    for function in functions(ast.parse(source)):
        nodes = list(ast.walk(function))
        set_to = [(node.targets, node.value) for node in nodes if isinstance(node, ast.Assign)]
        set_to += [([node.target], node.value) for node in nodes if isinstance(node, ast.NamedExpr)]
        named = [
            target.id
            for targets, value in set_to
            if suspicious(value, set())
            for target in targets
            if isinstance(target, ast.Name)
        ]
        unopened = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr in PIECES}
        for node in nodes:
            if id(node) not in unopened:
                found |= {ast.unparse(part): part.lineno for part in path_parts(node) if suspicious(part, set(named))}
    return found


@functools.cache
def searched() -> dict[tuple[str, str], int]:
    """(file, expression) -> line, over all code."""
    files = [path.relative_to(ROOT) for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    each = {str(file): findings((ROOT / file).read_text(encoding="utf-8")) for file in files}
    return {(file, text): line for file, found in each.items() for text, line in found.items()}


def test_no_name_from_data_becomes_part_of_a_path_unchecked():
    unchecked = [f"{file}:{line}: {text}" for (file, text), line in searched().items() if (file, text) not in ALLOWED]
    assert unchecked == [], "wrap it in a2data.store.filename.safe_name, or say in ALLOWED why it needs no check"


def test_every_exception_is_still_needed():
    assert sorted(set(ALLOWED) - set(searched())) == []


@pytest.mark.parametrize(
    "fault",
    [
        'file = folder / f"{facts.clip_id}.{given.name}.png"',
        'video = Path(reader.videos.name) / f"{clip}.mp4"',
        'open(shards / row.shard, "rb")',
        'file: Path = home / data["path"]',
        "os.path.join(folder, element_id)",
        'path.with_name(f"{Path(name).stem}.npy")',
        'folder.joinpath("videos", row.video_id)',
        'shutil.copy(source, out + "/" + clip + ".mp4")',
        'def write(given):\n    name = f"{given.name}.png"\n    return folder / name',
        'def write(case):\n    if (file := case.id + ".mp4"):\n        return folder / file',
    ],
)
def test_the_search_finds_a_name_that_is_not_checked(fault):
    assert findings(fault)


@pytest.mark.parametrize(
    "fine",
    [
        'folder / safe_name(f"{facts.clip_id}.mp4", where)',
        'folder / f"step-{step:06d}.tmp"',
        'folder / f"{LOCK}.part"',
        "Path(origin.path).name",
        "seen / of",
        'def write(clip):\n    name = safe_name(f"{clip}.mp4", "here")\n    return folder / name',
    ],
)
def test_the_search_leaves_checked_names_and_numbers_alone(fine):
    assert not findings(fine)
