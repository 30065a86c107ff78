"""The likelihoods of the Bradley-Terry model with ties, computed from its odds."""

import math

import pytest

torch = pytest.importorskip("torch")

from model_zoo.reward import bradley_terry  # noqa: E402

DIFFERENCES = [-3.0, -0.4, 0.0, 1.7, 4.0]


@pytest.mark.parametrize("k", [1.5, 5.0])
def test_probabilities_follow_from_the_odds_and_sum_to_one(k):
    """Rao and Kupper: a against k times b, b against k times a, each by exp of the reward."""
    found = bradley_terry.probabilities(torch.tensor(DIFFERENCES, dtype=torch.float64), k).tolist()
    for d, (better, worse, tie) in zip(DIFFERENCES, found, strict=True):
        a, b = math.exp(d), 1.0
        assert better == pytest.approx(a / (a + k * b))
        assert worse == pytest.approx(b / (b + k * a))
        assert tie == pytest.approx((k * k - 1) * a * b / ((a + k * b) * (b + k * a)))
        assert better + worse + tie == pytest.approx(1)


def test_the_loss_is_the_negative_log_likelihood():
    rewards, zero = torch.tensor(DIFFERENCES, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    stated = bradley_terry.probabilities(rewards)
    for ties, column in ((torch.zeros(5, dtype=torch.bool), 0), (torch.ones(5, dtype=torch.bool), 2)):
        assert torch.allclose(bradley_terry.loss(rewards, zero, ties), -stated[:, column].log())
