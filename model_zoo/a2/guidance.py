"""The looks of a step: with the prompt, without it, without references; and the one velocity that comes of them.

Of `none` with negative prompt and no references, `shown` with negative prompt and references, `asked` with prompt and references,
the velocity is none + s (shown - none) + g (asked - shown) (the sum of SkyReels-V3, arXiv 2601.17323). At s = 1 that is what A2
and Wan do, and needs no `none`. The looks of a step do not depend on one another, so that a group of processes may share them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import distributed

# asked, shown, none; those that a cache must not mistake for one another
BRANCHES = ("cond", "uncond", "without references")
HOOK = "a2_shared_looks"


def check(s: float, g: float) -> None:
    """Raises ValueError for guidance on references, s, without guidance on the prompt, g."""
    if s != 1 and g <= 1:
        raise ValueError(f"guidance on references needs guidance on the prompt above 1, not {g:g}")


def predict_branches(
    transformer: Any, run: Callable[..., tuple], inputs: Sequence[dict[str, Any]], group: Any = None
) -> list[torch.Tensor]:
    """What the transformer says to each of these inputs, (b, 16, t, h, w) each, in the order of NAMES.

    run: its forward pass, with keyword arguments. With a group of processes every one takes every n-th look, and all get all:
    the same bits as if each had looked itself.
    """
    rank, size = (distributed.get_rank(group), distributed.get_world_size(group)) if group else (0, 1)
    made = []
    for number, (name, each) in enumerate(zip(BRANCHES, inputs, strict=False)):
        if number % size == rank:
            with transformer.cache_context(name):
                made.append(run(**each)[0].contiguous())
        else:
            noise = each["hidden_states"]
            shape = (noise.shape[0], transformer.config.out_channels, *noise.shape[2:])
            made.append(noise.new_empty(shape))
    if size > 1:
        for number, velocity in enumerate(made):
            distributed.broadcast(velocity, group=group, group_src=number % size)
    return made


def without_references(inputs: dict[str, Any], condition: torch.Tensor) -> dict[str, Any]:
    """These inputs as a network trained with dropped references gets them: its condition, (1, 20, t, h, w), and tokens of 0."""
    noise = inputs["hidden_states"][:, : -condition.shape[1]]
    seen = torch.cat([noise, condition.to(noise).expand(len(noise), -1, -1, -1, -1)], dim=1)
    tokens = torch.zeros_like(inputs["encoder_hidden_states_image"])
    return inputs | {"hidden_states": seen, "encoder_hidden_states_image": tokens}


def combine_dual_cfg(shown: torch.Tensor, none: torch.Tensor, s: float, g: float) -> torch.Tensor:
    """What must stand where u does in u + g (asked - u), the sum of every pipeline, for the sum above to come out. float32."""
    shown = shown.float()  # in bfloat16 the small difference would be lost
    return shown - (s - 1) / (g - 1) * (shown - none.float())


class BatchedCFGHook(ModelHook):
    """All looks of a step in the transformer's first call, for a pipeline that calls it once for each of two texts.

    The second call gets what was kept for it. So that the pipeline's loop stays as it is, u of `combine_dual_cfg` takes the
    place of `shown`. negative: the embedded negative prompt; condition: that without references, see a2_references.no_references.
    """

    def __init__(self, s: float, g: float, negative: torch.Tensor, condition: torch.Tensor | None, group: Any = None):
        super().__init__()
        check(s, g)
        self.s, self.g, self.negative, self.condition, self.group = s, g, negative, condition, group
        self.kept: torch.Tensor | None = None

    def new_forward(self, module: Any, **asked: Any) -> tuple[torch.Tensor]:
        """The pipeline's first call of a step is that with the prompt."""
        if self.kept is not None:
            kept, self.kept = self.kept, None
            return (kept,)
        shown = asked | {"encoder_hidden_states": self.negative.to(asked["encoder_hidden_states"])}
        inputs = [asked, shown] + ([] if self.condition is None else [without_references(shown, self.condition)])
        velocity, self.kept, *none = predict_branches(module, self.fn_ref.original_forward, inputs, self.group)
        if none:
            self.kept = combine_dual_cfg(self.kept, none[0], self.s, self.g)
        return (velocity,)
