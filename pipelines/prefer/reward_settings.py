"""Settings of `a2data reward train`. Does not import torch, which help does without."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RewardSettings:
    """Settings of a reward training."""

    model: str = "reward-tiny"
    """card of the reward model: reward-tiny, or qwen2-vl-reward"""
    start: str = ""
    """folder in the layout of VideoReward to start from (model qwen2-vl-reward)"""
    epochs: int = 40
    """passes over the pairs"""
    learning_rate: float = 3e-3
    """learning rate of AdamW; VideoReward uses 2e-6"""
    weight_decay: float = 0.01
    """weight decay of AdamW"""
    batch_size: int = 32
    """pairs per optimizer step"""
    tie_k: float = 5.0
    """tie parameter of the Bradley-Terry model, above 1; larger: ties are likelier"""
    seed: int = 0
    """seed of the initial layers and of the order of the pairs"""
