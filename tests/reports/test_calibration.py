import numpy as np
import pytest

from flowers_tpu.reports import calibration, style

# Four bins: (0, .25], (.25, .5], (.5, .75], (.75, 1].
CONFIDENCE = np.array([0.25, 0.4, 0.5, 0.9, 1.0, 0.8])
RIGHT = np.array([True, False, True, True, True, False])


def test_bins_by_hand():
    bins = calibration.reliability(CONFIDENCE, RIGHT, 4)
    assert bins["lower"].tolist() == [0, 0.25, 0.5, 0.75]
    assert bins["upper"].tolist() == [0.25, 0.5, 0.75, 1]
    assert bins["count"].tolist() == [1, 2, 0, 3]  # 0.25 and 0.5 belong to the bin below them
    np.testing.assert_allclose(bins["confidence"], [0.25, 0.45, np.nan, 0.9])
    np.testing.assert_allclose(bins["accuracy"], [1, 0.5, np.nan, 2 / 3])


def test_calibration_error_by_hand():
    bins = calibration.reliability(CONFIDENCE, RIGHT, 4)
    # (1·|1 - .25| + 2·|.5 - .45| + 3·|2/3 - .9|) / 6 = (.75 + .1 + .7) / 6
    assert calibration.expected_calibration_error(bins) == pytest.approx(1.55 / 6)


def test_calibration_error_as_summed_bin_by_bin():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0, 1, 500)
    right = generator.uniform(0, 1, 500) < confidence**2
    expected = 0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        expected += abs(right[inside].sum() - confidence[inside].sum()) / 500
    bins = calibration.reliability(confidence, right)
    assert calibration.expected_calibration_error(bins) == pytest.approx(expected)
    assert len(bins) == 15 and bins["count"].sum() == 500


@pytest.mark.parametrize(("right", "error"), [([True] * 3, 0), ([False] * 3, 1)])
def test_a_sure_model(right, error):
    bins = calibration.reliability(np.ones(3), np.array(right))
    assert calibration.expected_calibration_error(bins) == error
    assert bins["count"].tolist() == [0] * 14 + [3]


def test_the_diagram_shows_the_bins():
    bins = calibration.reliability(CONFIDENCE, RIGHT, 4)
    figure = calibration.reliability_diagram(bins, "validation")
    axes = figure.axes[0]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in axes.patches]
    assert bars == [(0, 0.25, 1), (0.25, 0.25, 0.5), (0.75, 0.25, pytest.approx(2 / 3))]
    points = axes.lines[0]
    np.testing.assert_allclose(points.get_xdata(), [0.25, 0.45, 0.9])
    np.testing.assert_allclose(points.get_ydata(), [1, 0.5, 2 / 3])
    assert axes.get_title() == "Reliability, validation: ECE 0.258"


def test_the_histogram_stacks_right_and_wrong():
    axes = calibration.confidence_histogram(CONFIDENCE, RIGHT, "validation").axes[0]
    by_color = {}
    for bar in axes.patches:
        by_color.setdefault(tuple(bar.get_facecolor()[:3]), []).append(bar.get_height())
    counts = [np.nonzero(heights)[0].tolist() for heights in by_color.values()]
    # In fifteenths: .25 -> 3, .4 -> 6, .5 -> 7, .8 -> 12, .9 -> 13, 1.0 -> 14.
    assert counts == [[3, 7, 13, 14], [6, 12]]
    texts = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert {"right (4)", "wrong (2)", "mean confidence: 0.642"} == set(texts)
    assert style.RIGHT != style.WRONG and len(by_color) == 2
