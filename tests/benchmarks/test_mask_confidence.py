import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from benchmarks.mask_confidence import Judged, auc, table
from model_zoo.detect.mask_confidence import MaskCues


def test_the_area_under_the_curve_is_mann_and_whitneys_u():
    rng = np.random.default_rng(0)
    values, right = rng.integers(0, 9, 60) / 8, rng.random(60) < 0.6
    u = mannwhitneyu(values[right], values[~right]).statistic
    assert auc(values, right) == pytest.approx(u / right.sum() / (~right).sum())


def test_the_picture_is_chosen_by_quality_and_confidence_and_thresholds_count_what_stays():
    def seen(confidence, quality, right):
        return Judged("human", MaskCues(confidence, 1.0, 1.0, 1.0), quality, right)

    lines = [*table([[seen(0.9, 0.5, True), seen(0.4, 0.6, False)], [seen(0.65, 0.5, False)]])]
    assert lines[0] == "3 observations of 2 tracks, 1 right"
    assert "chosen by quality: 0 right; by quality and confidence: 1" in lines
    assert "confidence from 0.63: 1 right, 1 wrong" in lines
    assert "confidence from 0.67: 1 right, 0 wrong" in lines
