import numpy as np
import pandas as pd
import pytest

from flowers_tpu.reports import curves, style


def make_history(stages, val_losses):
    count = len(stages)
    steps = np.arange(1, count + 1)
    return pd.DataFrame(
        {
            "epoch": steps,
            "stage": stages,
            "learning_rate": 1e-3 / steps,
            **dict.fromkeys(("loss", "accuracy", "macro_f1"), steps / 10),
            "val_loss": val_losses,
            "val_accuracy": steps / 20,
            "val_macro_f1": steps / 30,
        }
    )


HISTORY = make_history(
    ["warmup", "warmup", "finetune", "finetune", "finetune"], [0.1, 0.2, 0.9, 0.4, 0.5]
)


def line(figure, label):
    (found,) = [x for x in figure.axes[0].lines if str(x.get_label()).startswith(label)]
    return found


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("stages", "losses", "best"),
    [
        (["warmup", "finetune", "finetune"], [0.1, 0.5, 0.4], 3),  # not the warm-up's
        (["finetune", "finetune"], [0.4, 0.4], 1),  # the first of equals
        (["finetune", "finetune"], [float("nan"), 0.4], 2),
        (["finetune"], [0.4], 1),
        (["warmup", "warmup"], [0.4, 0.3], None),
    ],
)
def test_best_epoch(stages, losses, best):
    assert curves.best_epoch(make_history(stages, losses)) == best


@pytest.mark.parametrize("metric", ["loss", "accuracy", "macro_f1"])
def test_both_splits_are_drawn_with_the_best_epoch(metric):
    figure = curves.curve(HISTORY, metric)
    for label, column, color in (
        ("train", metric, style.TRAIN),
        ("validation", f"val_{metric}", style.VAL),
    ):
        drawn = line(figure, label)
        np.testing.assert_array_equal(drawn.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(drawn.get_ydata(), HISTORY[column])
        assert drawn.get_color() == color
    star = line(figure, "best epoch: 4")
    assert list(star.get_xdata()) == [4]
    assert list(star.get_ydata()) == [HISTORY[f"val_{metric}"][3]]


def test_the_learning_rate_is_drawn():
    figure = curves.curve(HISTORY, "learning_rate")
    np.testing.assert_array_equal(line(figure, "rate").get_ydata(), HISTORY["learning_rate"])
    assert "best epoch: 4 (0.00025)" in labels(figure)


def test_the_stages_are_marked_where_they_are():
    figure = curves.curve(HISTORY, "loss")
    spans = {
        patch.get_label(): (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in figure.axes[0].patches
    }
    assert spans == {"warm-up": (0.5, 2.5), "fine-tuning": (2.5, 5.5)}
    assert spans.keys() <= set(labels(figure))


@pytest.mark.parametrize(
    ("stages", "axis"),
    [
        (["finetune"], "epoch of fine-tuning"),
        (["warmup", "warmup"], "epoch of warm-up"),
    ],
)
@pytest.mark.parametrize("metric", curves.METRICS)
def test_one_stage_is_named_at_the_axis(stages, axis, metric):
    figure = curves.curve(make_history(stages, [0.5] * len(stages)), metric)
    axes = figure.axes[0]
    assert axes.get_xlabel() == axis and not axes.patches
    assert any("best" in label for label in labels(figure)) == (stages == ["finetune"])
    assert all(tick == int(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize("metric", curves.METRICS)
def test_no_text_is_clipped(metric):
    history = make_history(["warmup"] * 4 + ["finetune"] * 96, np.linspace(2, 1.2345, 100))
    figure = curves.curve(history, metric)
    style.png(figure, dpi=80)
    axes = figure.axes[0]
    for artist in (*figure.legends, axes.title, axes.xaxis.label, axes.yaxis.label):
        box = artist.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0, artist
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, artist
    assert "best epoch: 100" in " ".join(labels(figure))
