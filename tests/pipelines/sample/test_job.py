"""Jobs of `a2data sample` from flags and lines of a file, and a sentence for all that can be wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jaxtyping")
from a2data.media import pictures
from pipelines.sample import checks
from pipelines.sample import job as jobs
from pipelines.sample.job import Job


@pytest.fixture
def folder(tmp_path):
    for name in ("woman", "cup", "room"):
        Image.fromarray(np.full((24, 40, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def job(folder, **values) -> Job:
    given = {"out": str(folder / "a.mp4"), "prompt": "a woman", "ref": ["human=woman.png", "object=cup.png"]}
    return jobs.resolve_paths(given | {"height": 32, "width": 48, "frames": 17} | values, str(folder))


def lines(folder, *rows) -> str:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


ROW = {"out": "a.mp4", "prompt": "a woman", "ref": ["human=woman.png"]}


def refused(*wanted) -> list[str]:
    """The sentences with which these jobs are refused."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        checks.validate([("", each) for each in wanted])
    return str(error.value).splitlines()


# -- files of jobs -----------------------------------------------------------------------------------------------------


def test_a_line_is_a_job_whose_files_are_seen_from_the_jobs_file_and_whose_video_is_below_out(folder):
    path = lines(folder, "", ROW | {"audio": "song.wav", "flow-shift": 3})
    ((where, made),) = jobs.read(path, {}, "videos")

    assert where == f"{path} line 2: "
    assert made.references() == [("human", str(folder / "woman.png"))]
    assert made.audio == str(folder / "song.wav")
    assert made.out == str(Path.cwd() / "videos" / "a.mp4")
    assert (made.flow_shift, made.steps) == (3.0, 50)


def test_flags_hold_for_lines_that_do_not_say_otherwise(folder):
    path = lines(folder, ROW | {"seed": 7}, ROW | {"out": "b.mp4"})
    one, two = (made for _, made in jobs.read(path, {"seed": 1, "steps": 4}, str(folder)))

    assert (one.seed, two.seed) == (7, 1)
    assert (one.steps, two.steps) == (4, 4)


def test_every_line_that_is_not_a_job_is_named_before_anything_is_done(folder):
    without = {"out": "a.mp4"}
    bad = ["{", "3", without, ROW | {"promt": "x"}, ROW | {"steps": 2.5}, ROW | {"ref": [1]}, ROW | {"out": "../a.mp4"}]
    path = lines(folder, *bad, ROW)

    with pytest.raises(ValueError, match="line 1") as error:
        jobs.read(path, {}, "out")

    said = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in said] == [f"{path} line {n}" for n in range(1, 8)]
    for line, words in zip(
        said,
        (
            "not valid JSON",
            "a job must be a JSON object",
            "lacks prompt",
            "unknown key 'promt'",
            "integer",
            "list of strings",
            "inside",
        ),
        strict=True,
    ):
        assert words in line


def test_a_file_without_jobs_is_told_how_one_looks(folder):
    with pytest.raises(ValueError, match=r'has no jobs: write one per line, such as \{"out"'):
        jobs.read(lines(folder, "", ""), {}, "out")


def test_a_file_that_is_not_text_is_reported(folder):
    (folder / "jobs.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"jobs.jsonl is not UTF-8 text"):
        jobs.read(str(folder / "jobs.jsonl"), {}, "out")


def test_what_is_wrong_with_the_files_of_a_line_names_the_line(folder):
    path = lines(folder, ROW, ROW | {"out": "b.mp4", "ref": ["human=gone.png"]})
    with pytest.raises(ValueError, match=r"jobs.jsonl line 2: .*gone.png: No such file") as error:
        checks.validate(jobs.read(path, {}, str(folder)))
    assert "line 1" not in str(error.value)


def test_two_jobs_for_one_video_are_refused(folder):
    assert refused(job(folder), job(folder, seed=2)) == [f"another job also writes {folder / 'a.mp4'}"]


# -- what can be wrong -------------------------------------------------------------------------------------------------


def test_a_good_job_is_told_the_digests_of_its_files(folder):
    found = checks.validate([("", job(folder))])
    assert sorted(Path(path).name for path in found) == ["cup.png", "woman.png"]
    assert {len(sha256) for sha256 in found.values()} == {64}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "word " * 3000}, "the prompt has 3000 words; the network reads 512 tokens"),
        ({"negative_prompt": "word " * 600}, "the negative prompt has 600 words"),
        ({"ref": []}, "no reference: give at least one with --ref ROLE=FILE"),
        ({"ref": ["woman.png"]}, "--ref woman.png: write ROLE=FILE with one of the roles human, object, background"),
        ({"ref": ["dog=woman.png"]}, "one of the roles human, object, background, such as human="),
        ({"ref": ["human="]}, "--ref human=: write ROLE=FILE"),
        ({"height": 30}, "30 x 48 px: height and width must be divisible by 16; 32 x 48 is close"),
        ({"frames": 18}, "18 frames: the VAE takes 4 n + 1, such as 17 or 21"),
        ({"frames": 9, "ref": ["human=woman.png"] * 3}, "3 references take 12 of 9 frames: none is left"),
        ({"height": 0}, "height is 0; it must be from 16 to 8192"),
        ({"steps": 0}, "steps is 0; it must be from 1 to 1000"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; it must be from 0 to 100"),
        ({"flow_shift": 0.0}, "flow_shift is 0.0; it must be from 0.01"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"scheduler": "ddim"}, "unknown scheduler 'ddim': choose unipc, unipc-released, euler"),
        ({"reference_guidance_scale": 2.0, "guidance_scale": 1.0}, "needs a --guidance-scale above 1, not 1"),
        ({"frames": 33, "window": 16}, "16 frames: the VAE takes 4 n + 1"),
        ({"frames": 33, "window": 13, "history": 8}, "no room for 2 of references, 2 of history"),
        ({"next_prompt": ["she leaves"]}, "--next-prompt is for the windows of a long video"),
        (
            {"frames": 33, "window": 21, "history": 4, "next_prompt": ["word " * 600]},
            "the prompt of window 2 has 600 words",
        ),
        ({"out": "a.avi"}, "a.avi: its name must end in .mp4"),
        ({"ref": ["human=gone.png"]}, "gone.png: No such file or directory"),
        ({"audio": "gone.wav"}, "gone.wav: No such file or directory"),
        ({"audio": "woman.png"}, "woman.png: not a container in a supported format"),
        ({"audio": "text.txt"}, "text.txt: not a video"),
    ],
)
def test_each_thing_that_is_wrong_is_one_sentence(folder, values, sentence):
    (folder / "text.txt").write_text("no sound")
    (said,) = refused(job(folder, **values))
    assert sentence in said


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_text("no picture"), "is not a readable image"),
        (lambda path: Image.new("L", (1, 1)).save(path), "is 1 x 1 px; a picture must have at least 16 px a side"),
        (
            lambda path: Image.new("1", (10_000, 5_001)).save(path),
            "has 50.01 megapixels; a picture may have at most 50",
        ),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_a_file_that_is_not_a_usable_picture_is_one_error_message(folder, make, sentence):
    make(folder / "odd.png")
    (said,) = refused(job(folder, ref=["human=odd.png"]))
    assert "odd.png" in said
    assert sentence in said


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16"])
def test_grey_cmyk_and_transparent_pictures_are_welcome(folder, mode):
    Image.new(mode, (40, 24)).save(folder / "odd.tif")
    checks.validate([("", job(folder, ref=["human=odd.tif"]))])


def test_a_folder_in_the_place_of_the_video_is_one_sentence(folder):
    (folder / "a.mp4").mkdir()
    assert refused(job(folder)) == [f"out is {folder / 'a.mp4'}, which is a folder: name an .mp4 file"]


def test_a_picture_of_many_jobs_is_read_once(folder, monkeypatch):
    read, seen = pictures.read_picture, []
    monkeypatch.setattr(pictures, "read_picture", lambda path: seen.append(path) or read(path))
    checks.validate([("", job(folder, out=f"{n}.mp4")) for n in range(3)])
    assert len(seen) == 2


# -- sweeps and shapes -------------------------------------------------------------------------------------------------


def test_a_sweep_is_a_job_for_each_value_with_a_name_of_its_own(folder):
    made = jobs.sweep(job(folder), "flow-shift=1,3, 5")
    assert [each.flow_shift for each in made] == [1.0, 3.0, 5.0]
    assert [Path(each.out).name for each in made] == [f"a-flow-shift-{n}.mp4" for n in (1, 3, 5)]
    assert {each.seed for each in made} == {42}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("shift=1,2", "write SETTING=VALUE,VALUE,… with one of frames, steps"),
        ("flow-shift=8", "at least two distinct values"),
        ("flow-shift=8,8", "distinct values"),
        ("steps=1,x", "expected int, got 'x'"),
        ("preview=1,0", "with one of frames"),
    ],
)
def test_a_sweep_of_nothing_is_refused(folder, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        jobs.sweep(job(folder), text)


def test_jobs_of_one_shape_go_together_in_the_order_in_which_shapes_come(folder):
    made = [job(folder, out=f"{n}.mp4", frames=frames) for n, frames in enumerate((21, 17, 21, 17, 13))]
    assert [Path(each.out).stem for each in jobs.sort_by_shape(made)] == ["0", "2", "1", "3", "4"]


def test_the_steps_of_a_long_video_are_those_of_all_its_windows(folder):
    assert jobs.num_forward_passes(job(folder, steps=5)) == 5
    assert jobs.num_forward_passes(job(folder, steps=5, window=17)) == 5
    # 5 frames of latents, then 2 and 2
    assert jobs.num_forward_passes(job(folder, steps=5, frames=33, window=17, history=4)) == 3 * 5
    assert jobs.num_forward_passes(
        job(folder, steps=5, frames=33, window=17, history=4, causal_block_size=1, ar_step=2)
    ) == (5 + 4 * 2) + 2 * (5 + 2)
