"""Bradley-Terry model with ties (Rao and Kupper 1967), as VideoReward uses it (Liu et al. 2025, arXiv 2501.13918).

For rewards a and b and the tie parameter k >= 1, P(a better) = sigmoid(a - b - log k), P(b better) = sigmoid(b - a - log k), and
P(tie) is the rest, (k^2 - 1) P(a better) P(b better).
"""

import math

import torch
from jaxtyping import Bool, Float

TIE = 5.0  # k of VideoReward


def loss(
    chosen: Float[torch.Tensor, " n"],
    rejected: Float[torch.Tensor, " n"],
    ties: Bool[torch.Tensor, " n"],
    k: float = TIE,
) -> Float[torch.Tensor, " n"]:
    """Return the negative log-likelihood of each pair."""
    better, worse = (torch.nn.functional.logsigmoid(d - math.log(k)) for d in (chosen - rejected, rejected - chosen))
    return -torch.where(ties, better + worse + math.log(k * k - 1), better)


def probabilities(difference: Float[torch.Tensor, " n"], k: float = TIE) -> Float[torch.Tensor, "n 3"]:
    """Return the probabilities that the first video is better, that the second is, and of a tie, from a - b."""
    better, worse = torch.sigmoid(difference - math.log(k)), torch.sigmoid(-difference - math.log(k))
    return torch.stack([better, worse, 1 - better - worse], -1)
