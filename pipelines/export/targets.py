"""The targets of `a2data export`."""

from pipelines.export import ai_toolkit, energon, fastvideo, h3, hf, lance, ltx, opens2v, wan
from pipelines.export.target import Target

TARGETS = {
    "h3": Target("h3", h3.MAX_PICTURES, "cutout", "h3", h3.write, h3.check),
    "videox-vace": Target("wan", wan.VIDEOX_PICTURES, "cutout", "plain", wan.write_videox, wan.check_videox),
    "refalign": Target("wan", 99, "cutout", "plain", wan.write_refalign, wan.check_refalign),
    "diffsynth": Target(
        "wan",
        1,
        "cutout",
        "plain",
        wan.write_diffsynth,
        wan.check_diffsynth,
        note="DiffSynth-Studio's VACE reads one reference of a sample",
    ),
    "ltx": Target(
        "ltx",
        0,
        "cutout",
        "plain",
        ltx.write,
        ltx.check,
        note="ltx-trainer reads no pictures as references (only `reference_video`), so none are written: text and video alone",
    ),
    "ai-toolkit": Target(
        "h3", ai_toolkit.MAX_PICTURES, "cutout", "h3", ai_toolkit.write, ai_toolkit.check, ai_toolkit.picture_path
    ),
    "hf": Target("", 99, "cutout", "plain", hf.write, hf.check, media=".a2data/media/"),
    "fastvideo": Target(
        "wan",
        0,
        "cutout",
        "plain",
        fastvideo.write,
        fastvideo.check,
        note="FastVideo reads no references, so none are written: text and video alone",
    ),
    "energon": Target("wan", 99, "cutout", "plain", energon.write, energon.check, media=".a2data/media/"),
    "opens2v": Target("", 99, "in-place", "plain", opens2v.write, opens2v.check, holds_masks=True),
    "lance": Target("", 99, "cutout", "plain", lance.write, lance.check, media=".a2data/media/"),
}
