import numpy as np
import pandas as pd
import pytest

from flowers_tpu.reports import predictions, style

TABLE = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "name": ["rose", "iris", "iris", "lily"],
        "predicted_name": ["rose", "rose", "iris", "iris"],
        "confidence": [0.9, 0.8, 0.41, 0.7],
        "loss": [0.1, 1.5, 0.9, np.nan],
    },
    index=[10, 11, 12, 13],
)
TEST = TABLE.drop(columns=["name", "loss"])


def test_a_wrong_prediction_is_red_and_names_the_truth():
    texts, colors = predictions.titles(TABLE)
    assert texts == ["rose", "rose → iris", "iris", "iris → lily"]
    assert colors == ["black", style.WRONG, "black", style.WRONG]


def test_without_the_truth_the_confidence_is_told():
    texts, colors = predictions.titles(TEST)
    assert texts == ["rose\n90%", "rose\n80%", "iris\n41%", "iris\n70%"]
    assert set(colors) == {"black"}


def test_choices():
    assert list(predictions.worst(TABLE, 3).index) == [13, 11, 12]
    assert list(predictions.least_confident(TEST, 2).index) == [12, 13]


def test_the_random_choice_depends_on_the_seed_alone():
    table = pd.DataFrame({"id": range(100)})
    first = predictions.random(table, seed=1)
    assert len(set(first.index)) == 9 and first.index.is_monotonic_increasing
    pd.testing.assert_frame_equal(first, predictions.random(table, seed=1))
    assert list(first.index) != list(predictions.random(table, seed=2).index)
    assert len(predictions.random(TABLE, seed=1)) == 4, "all, where there are fewer"


@pytest.mark.parametrize("table", [TABLE, TEST], ids=["labeled", "test"])
def test_a_sheet_shows_each_photo_under_its_title(table):
    pixels = [np.full((4, 4, 3), 50 * number, np.uint8) for number in range(4)]
    figure = predictions.sheet(table, pixels, "Validation")
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown, pixels)
    texts, colors = predictions.titles(table)
    found = {text.get_text(): text.get_color() for text in figure.texts}
    assert found == {"Validation": "black", **dict(zip(texts, colors, strict=True))}
