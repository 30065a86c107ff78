"""CFG branches of a denoising step and their combination: with the prompt, without it, and without references.

Let `no_references` be the prediction with the negative prompt and no references, `uncond` with the negative prompt and
references, `cond` with prompt and references. The velocity is no_references + s (uncond - no_references) + g (cond - uncond)
(SkyReels-V3, arXiv 2601.17323). At s = 1 this is the CFG of A2 and Wan, and `no_references` is not needed. The branches are
independent, so processes can split them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import distributed

# cache contexts of cond, uncond and no_references, so that caches keep the branches separate
BRANCHES = ("cond", "uncond", "without references")
HOOK = "a2_batched_cfg"
Drop = Callable[[dict[str, Any]], dict[str, Any]]


def check(s: float, g: float) -> None:
    """Raise ValueError for a reference guidance scale s other than 1 without a guidance scale g above 1."""
    if s != 1 and g <= 1:
        raise ValueError(f"a reference guidance scale needs a guidance scale above 1, not {g:g}")


def predict_branches(
    transformer: Any, run: Callable[..., tuple], inputs: Sequence[dict[str, Any]], group: Any = None
) -> list[torch.Tensor]:
    """Return the transformer's prediction for each of these inputs, (b, 16, t, h, w) each, in the order of BRANCHES.

    run: its forward pass, with keyword arguments. With a process group, each process computes every n-th branch and receives the
    others: the results are bit-identical to computing all of them.
    """
    rank, size = (distributed.get_rank(group), distributed.get_world_size(group)) if group else (0, 1)
    velocities = []
    for number, (name, branch_inputs) in enumerate(zip(BRANCHES, inputs, strict=False)):
        if number % size == rank:
            with transformer.cache_context(name):
                velocities.append(run(**branch_inputs)[0].contiguous())
        else:
            noise = branch_inputs["hidden_states"]
            shape = (noise.shape[0], transformer.config.out_channels, *noise.shape[2:])
            velocities.append(noise.new_empty(shape))
    if size > 1:
        for number, velocity in enumerate(velocities):
            distributed.broadcast(velocity, group=group, group_src=number % size)
    return velocities


def without_references(inputs: dict[str, Any], condition: torch.Tensor) -> dict[str, Any]:
    """Return the inputs with dropped references, as in training: `condition`, (1, 20, t, h, w), and image tokens of 0."""
    noise = inputs["hidden_states"][:, : -condition.shape[1]]
    hidden_states = torch.cat([noise, condition.to(noise).expand(len(noise), -1, -1, -1, -1)], dim=1)
    tokens = torch.zeros_like(inputs["encoder_hidden_states_image"])
    return inputs | {"hidden_states": hidden_states, "encoder_hidden_states_image": tokens}


def combine_dual_cfg(uncond: torch.Tensor, no_references: torch.Tensor, s: float, g: float) -> torch.Tensor:
    """Return the unconditional prediction u that makes single-scale CFG, u + g (cond - u), equal dual-scale CFG. float32."""
    # in bfloat16 the small difference would be lost
    uncond = uncond.float()
    return uncond - (s - 1) / (g - 1) * (uncond - no_references.float())


class BatchedCFGHook(ModelHook):
    """Hook that computes all CFG branches in the first of a pipeline's two transformer calls per step.

    The second call returns the stored result. It is u of `combine_dual_cfg` instead of `uncond`, so that the pipeline's loop need
    not change. negative: the embedded negative prompt; drop: returns a branch's inputs without references.
    """

    def __init__(self, s: float, g: float, negative: torch.Tensor, drop: Drop | None, group: Any = None):
        super().__init__()
        check(s, g)
        self.s, self.g, self.negative, self.drop, self.group = s, g, negative, drop, group
        self.cached: torch.Tensor | None = None

    def new_forward(self, module: Any, **cond: Any) -> tuple[torch.Tensor]:
        """Return the prediction with the prompt in the first call of a step, and the unconditional one in the second."""
        if self.cached is not None:
            cached, self.cached = self.cached, None
            return (cached,)
        uncond = cond | {"encoder_hidden_states": self.negative.to(cond["encoder_hidden_states"])}
        inputs = [cond, uncond] + ([] if self.drop is None else [self.drop(uncond)])
        velocity, self.cached, *no_references = predict_branches(
            module, self.fn_ref.original_forward, inputs, self.group
        )
        if no_references:
            self.cached = combine_dual_cfg(self.cached, no_references[0], self.s, self.g)
        return (velocity,)


@contextmanager
def batched_cfg(
    transformer: Any, s: float, g: float, negative: torch.Tensor | None, drop: Drop | None, group: Any = None
) -> Iterator[None]:
    """Install a BatchedCFGHook for the video that is sampled in the context, if it is needed, and clear its caches at the end."""
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    if g > 1 and (drop is not None or group):
        assert negative is not None  # there is guidance on the prompt
        registry.register_hook(BatchedCFGHook(s, g, negative, drop, group), HOOK)
    try:
        yield
    finally:
        registry.remove_hook(HOOK, recurse=False)
        registry.reset_stateful_hooks()


def encode_prompts(
    pipe: Any, prompt: str | None, guided: bool, settings: dict[str, Any]
) -> dict[str, torch.Tensor | None]:
    """Return a pipeline's prompt embeddings, and remove the settings that concern them from `settings`."""
    options = {
        name: settings.pop(name, None) for name in ("negative_prompt", "prompt_embeds", "negative_prompt_embeds")
    }
    positive, negative = pipe.encode_prompt(
        prompt=prompt,
        do_classifier_free_guidance=guided,
        max_sequence_length=settings.get("max_sequence_length", 512),
        device=pipe._execution_device,
        **options,
    )
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}
