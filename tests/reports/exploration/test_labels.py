import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flowers_tpu.data.classes import FLOWERS
from flowers_tpu.reports.exploration import labels

NAMES = ("iris", "rose", "lotus", "daisy")


def test_class_counts():
    by_split = {"train": np.array([0, 3, 3, 0, 3]), "val": np.array([1])}
    table = labels.class_counts(by_split, NAMES)
    assert table.to_dict("list") == {
        "label": [0, 1, 2, 3],
        "class": list(NAMES),
        "train": [2, 0, 0, 3],
        "val": [0, 1, 0, 0],
    }


def test_counts_as_text():
    table = counts(train=[3, 9, 5, 3], val=[4, 12, 4, 0])
    assert labels.counts_text(table[2:], width=20).split("\n") == [
        "label  class  train  val",
        "    2  lotus      5    4",
        "    3  daisy      3    0",
    ]


def test_counts_of_many_classes_stand_side_by_side():
    table = labels.class_counts({"val": np.arange(21)}, [f"no {n}" for n in range(21)])
    lines = labels.counts_text(table, width=40).split("\n")
    assert [lines[0], lines[1], lines[10], lines[11]] == [
        "label  class  val    label  class  val",
        "    0  no 0     1       11  no 11    1",
        "    9  no 9     1       20  no 20    1",
        "   10  no 10    1",
    ]
    assert len(labels.counts_text(table, width=37).split("\n")) == 22


def test_the_text_of_104_classes_fits_a_terminal():
    table = labels.class_counts(dict.fromkeys(("train", "val"), np.arange(104)), FLOWERS)
    lines = labels.counts_text(table).split("\n")
    assert len(lines) == 1 + 104 / 2 and max(map(len, lines)) <= 100
    assert all(sum(name in line for line in lines) for name in FLOWERS)


def test_imbalance_by_hand():
    """Shares 1/2, 1/4, 1/4: entropy 1.5 bits, so 2^1.5 classes of equal size."""
    assert labels.imbalance(np.array([8, 4, 0, 4])) == {
        "largest": 8,
        "smallest": 4,
        "ratio": 2.0,
        "effective_classes": pytest.approx(2**1.5),
        "absent": 1,
    }


def test_effective_classes_are_the_exponential_of_the_entropy():
    counts = np.array([1, 782, 18, 40, 250])
    expected = np.exp(stats.entropy(counts))
    assert labels.imbalance(counts)["effective_classes"] == pytest.approx(expected)


def test_total_variation_and_what_chance_gives_by_hand():
    """4 and 2 photos of two classes, 2 dealt to the second split.

    It gets 0, 1, 2 of the second class with probabilities 6/15, 8/15, 1/15, which are distances of
    1/2, 1/4 and 1: 0.4 on average.
    """
    result = labels.compare(np.array([3, 1]), np.array([1, 1]), seed=3)
    assert result.total_variation == pytest.approx(0.25)
    assert result.chance_mean == pytest.approx(0.4, abs=0.015)
    assert (result.chance_low, result.chance_high) == (0.25, 1.0)
    assert result == labels.compare(np.array([3, 1]), np.array([1, 1]), seed=3)


def test_what_the_comparison_says():
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(20))
    train, val = (generator.multinomial(size, shares) for size in (1000, 400))
    assert "no sign of a difference" in str(labels.compare(train, val, seed=0))
    moved = np.roll(val, 1)
    assert "distributed differently" in str(labels.compare(train, moved, seed=0))
    alike = np.full(20, 10)
    text = str(labels.compare(alike, alike, seed=0))
    assert "distance 0.000: 0.0% of" in text and "more alike than by chance" in text


def counts(**splits) -> pd.DataFrame:
    return pd.DataFrame({"label": range(4), "class": NAMES, **splits})


def widths(axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def test_bars_are_the_counts_in_the_order_of_the_labels():
    figure = labels.plot_labels(counts(train=[3, 9, 5, 3], val=[4, 2, 4, 0]))
    train, val = figure.axes
    figure.draw_without_rendering()
    assert [label.get_text() for label in train.get_yticklabels()] == list(NAMES)
    assert widths(train) == [3, 9, 5, 3]
    assert widths(val) == [4, 2, 4, 0]
    assert [text.get_text() for text in val.texts] == ["4", "2", "4", "0"]
    # 10 photos with the shares 3/20, 9/20, 5/20, 3/20
    np.testing.assert_allclose(val.lines[0].get_xdata(), [1.5, 4.5, 2.5, 1.5])
    middles = [bar.get_y() + bar.get_height() / 2 for bar in val.patches]
    np.testing.assert_allclose(val.lines[0].get_ydata(), middles)
    low, high = train.get_ylim()
    assert low > high, "the first on top"
    assert train.get_title() == "train: 20 photos"
    assert train.get_xlabel() == "photos"


def test_one_split_alone():
    (axes,) = labels.plot_labels(counts(val=[4, 2, 4, 0])).axes
    assert widths(axes) == [4, 2, 4, 0]
    assert not axes.lines


def test_names_of_104_classes_can_be_read():
    names = ["$x$ " + "a very long name of a flower " * 2, *FLOWERS[1:]]
    generator = np.random.default_rng(0)
    table = pd.DataFrame({"label": range(104), "class": names})
    table["train"], table["val"] = generator.integers(0, 800, (2, 104))
    figure = labels.plot_labels(table)
    figure.draw_without_rendering()
    ticks = figure.axes[0].get_yticklabels()
    boxes = [tick.get_window_extent() for tick in ticks]
    assert len(boxes) == 104
    assert all(tick.get_fontsize() >= 8 for tick in ticks)
    for one, below in itertools.pairwise(boxes):
        assert one.y0 >= below.y1
    texts = [
        *ticks,
        *(text for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label)),
    ]
    width, height = figure.get_size_inches() * figure.dpi
    for box in (text.get_window_extent() for text in texts):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


WARMUP, FINETUNE = [2e-4] * 4, [1e-8, 1e-8, 3e-4, 3e-4, 1e-4, 1e-4]
RATES = np.array(WARMUP + FINETUNE, np.float32)
STAGES = {"warm-up": 2, "fine-tuning": 3}


def test_rates_in_words():
    assert labels.rate_range(np.array([1e-8, 3e-5, 1.123e-6])) == "1e-08 to 3e-05 to 1.12e-06"


def test_rates_by_stage():
    parts = labels.split_stages(RATES, STAGES)
    assert list(parts) == ["warm-up", "fine-tuning"]
    np.testing.assert_array_equal(parts["warm-up"], np.float32(WARMUP))
    np.testing.assert_array_equal(parts["fine-tuning"], np.float32(FINETUNE))


def test_the_rate_of_every_step_is_drawn():
    figure = labels.plot_learning_rate(RATES, STAGES, "Rates of 12 photos")
    assert figure.get_suptitle() == "Rates of 12 photos"
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    warmup = lines["warm-up: 0.0002 to 0.0002 to 0.0002"]
    finetune = lines["fine-tuning: 1e-08 to 0.0003 to 0.0001"]
    np.testing.assert_array_equal(warmup.get_xdata(), range(4))
    np.testing.assert_array_equal(warmup.get_ydata(), np.float32(WARMUP))
    np.testing.assert_array_equal(finetune.get_xdata(), range(4, 10))
    np.testing.assert_array_equal(finetune.get_ydata(), np.float32(FINETUNE))
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in marks] == [[0, 3], [4, 6, 9]]
    assert axes.get_yscale() == "linear"
    figure.draw_without_rendering()
    (epochs,) = axes.child_axes
    assert axes.get_xlim() == (0, 10)
    assert epochs.get_xlim() == (0, 5)
    assert epochs.get_xlabel() == "epoch (2 steps each)"


def test_stages_of_very_different_rates_can_both_be_seen():
    rates, stages = np.float32([1e-2, 1e-2, 1e-6, 3e-5]), {"warm-up": 1, "fine-tuning": 1}
    (axes,) = labels.plot_learning_rate(rates, stages, "").axes
    assert axes.get_yscale() == "log"
    rates[2] = 0
    (axes,) = labels.plot_learning_rate(rates, stages, "").axes
    assert axes.get_yscale() == "linear"


def test_one_stage_alone():
    rates = np.float32([1e-3, 1e-4])
    (axes,) = labels.plot_learning_rate(rates, {"fine-tuning": 2}, "").axes
    assert axes.lines[0].get_label() == "fine-tuning: 0.001 to 0.001 to 0.0001"
