import numpy as np
import pandas as pd
import pytest

from flowers_tpu.reports import report_sections

NAMES = ["rose", "iris", "lily"]


def predictions(labels, predicted, confidence, loss, numbers):
    names = np.array(NAMES)
    return pd.DataFrame(
        {
            "id": [f"id-{number}" for number in numbers],
            **{"label": labels, "name": names[labels]},
            **{"predicted_label": predicted, "predicted_name": names[predicted]},
            **{"confidence": confidence, "loss": loss},
        },
        index=numbers,
    )


# Two roses are taken for irises, one iris for a rose; there is no lily in training.
VAL = predictions([0, 0, 0, 1], [1, 1, 0, 0], [0.5, 0.75, 0.5, 0.25], [1, 2, 0.5, 3], [2, 4, 6, 8])
TRAIN = predictions([0, 0, 1], [0, 0, 1], [0.5, 1.0, 1.0], [0.7, 0.1, 0.2], [1, 3, 5])
TABLES = {"val": VAL, "train": TRAIN}
MATRICES = {
    split: pd.crosstab(table["name"], table["predicted_name"]).reindex(
        index=NAMES, columns=NAMES, fill_value=0
    )
    for split, table in TABLES.items()
}


def album(*splits):
    """Photos of 2 px whose every pixel is their number."""
    return {s: {n: np.full((2, 2, 3), n, np.uint8) for n in TABLES[s].index} for s in splits}


def test_the_chosen_photos_are_all_that_is_shown():
    chosen = report_sections.chosen(MATRICES, TABLES, seed=0)
    assert chosen == {"val": [2, 4, 6, 8], "train": [1, 3, 5]}
    pictures = [
        *report_sections.confused_pairs(MATRICES, TABLES, album("val", "train")).pictures,
        *report_sections.prediction_sheets(TABLES, album("val", "train"), seed=0).pictures,
    ]
    for picture in pictures:
        assert picture.draw().axes  # every photo it asks for is there


def test_the_sheet_of_confused_pairs():
    section = report_sections.confused_pairs(MATRICES, TABLES, album("val", "train"))
    (table,) = section.tables  # nothing is confused in training
    assert table.rows[["true", "predicted", "count"]].to_numpy().tolist() == [
        ["rose", "iris", 2],
        ["iris", "rose", 1],
    ]
    figure = section.pictures[0].draw()
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    # Training photos with the lowest loss, then the mistaken ones, the surest first; 255: none.
    assert shown == [3, 5, 4, 2, 5, 3, 8, 255]
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    assert {"75% sure", "25% sure", "rose, taken for iris", "train: rose"} < set(texts)


def test_a_class_without_training_photos_is_shown_blank():
    matrices = {**MATRICES, "val": MATRICES["val"].copy()}
    matrices["val"].loc["rose", "lily"] = 9
    section = report_sections.confused_pairs(matrices, TABLES, album("val", "train"))
    figure = section.pictures[0].draw()
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    assert shown[:4] == [3, 255, 255, 255]


def test_nothing_confused():
    section = report_sections.confused_pairs(
        {"val": MATRICES["train"], "train": MATRICES["train"]},
        {"val": TRAIN, "train": TRAIN},
        album("train"),
    )
    assert section.tables == section.pictures == () and "No photo" in section.text


def test_scores_with_records_left_out():
    scores = {"val": {"examples": 4, "macro_f1": 0.5}}
    scores["train"] = {"examples": 3, "macro_f1": 1.0, "left_out": 2}
    rows = report_sections.scores(scores).tables[0].rows
    assert rows.to_dict("records") == [
        {"split": "validation", "examples": 4, "macro F1": 0.5, "left out": 0},
        {"split": "training", "examples": 3, "macro F1": 1.0, "left out": 2},
    ]
    assert rows["examples"].dtype == rows["left out"].dtype == int


def test_calibration_of_both_splits():
    section = report_sections.calibrations(TABLES)
    rows = section.tables[0].rows
    assert rows["split"].tolist() == ["validation", "training"]
    # Validation: bins of .25 (wrong), .5 (one of two right) and .75 (wrong); accuracy 1/4.
    assert rows["ECE"].tolist() == pytest.approx([(0.25 + 0 + 0.75) / 4, 0.5 / 3])
    assert rows["mean confidence"].tolist() == pytest.approx([0.5, 2.5 / 3])
    assert rows["accuracy"].tolist() == [0.25, 1]
    assert len(section.pictures) == 4


@pytest.mark.parametrize(("num_classes", "parts"), [(3, 0), (104, 3)])
def test_large_matrices_come_in_parts_and_whole(num_classes, parts):
    names = [f"class {number}" for number in range(num_classes)]
    matrix = pd.DataFrame(np.eye(num_classes, dtype=int), index=names, columns=names)
    section = report_sections.confusions({"val": matrix})
    expected = [f"confusion_val_{number}" for number in range(1, parts + 1)] + ["confusion_val"]
    assert [picture.name for picture in section.pictures] == expected
    assert ("A part shows" in section.text) == bool(parts)


def test_the_configuration_tells_what_is_not_the_default():
    section = report_sections.configuration(
        {"seed": 3, "dropout": 0.0, "tpu": ""},
        {"seed": 0, "dropout": 0.0, "tpu": ""},
        {"packages": {"numpy": "2.0", "tf_keras": None}, "command": ["train.py", "--seed=3"]},
    )
    changed, environment, every = section.tables
    assert changed.rows.to_numpy().tolist() == [["--seed", "3", "0"]]
    assert len(every.rows) == 3 and every.folded
    assert environment.rows.to_numpy().tolist() == [
        ["packages", "numpy 2.0"],
        ["command", "train.py --seed=3"],
    ]
