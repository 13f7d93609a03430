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
    # Training photos with the lowest loss, then the mistaken ones, the surest first.
    assert shown == [3, 5, 4, 2, 5, 3, 8]
    (_, second, third, _, _, _, last) = (axes.get_position().x0 for axes in figure.axes)
    assert last == third > second, "one photo of the second pair, under the first of the other"
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    assert {"75% sure", "25% sure", "rose, taken for iris", "train: rose"} < set(texts)


def test_the_place_of_a_class_without_training_photos_stays_empty():
    matrices = {**MATRICES, "val": MATRICES["val"].copy()}
    matrices["val"].loc["rose", "lily"] = 9
    section = report_sections.confused_pairs(matrices, TABLES, album("val", "train"))
    figure = section.pictures[0].draw()
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    assert shown == [3, 3, 5, 4, 2, 5, 3, 8]
    texts = [" ".join(text.get_text().split()) for text in figure.texts]
    assert "rose, taken for lily" in texts and "train: lily" not in texts


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


def test_the_interval_follows_its_score():
    scores = {"val": {"macro_f1": 0.5, "macro_f1_low": 0.25, "macro_f1_high": 0.75, "loss": 1.0}}
    rows = report_sections.scores(scores).tables[0].rows
    assert list(rows.columns) == ["split", "macro F1", "its 95 % interval", "loss"]
    assert rows["its 95 % interval"][0] == "0.2500 to 0.7500"


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
        {"seed": 3},
        {"packages": {"numpy": "2.0", "tf_keras": None}, "command": ["train.py", "--seed=3"]},
    )
    changed, environment, every = section.tables
    assert changed.rows.to_numpy().tolist() == [["--seed", "3", "0"]]
    assert len(every.rows) == 3 and every.folded
    assert environment.rows.to_dict("records") == [
        {"name": "packages", "value": "numpy 2.0"},
        {"name": "command", "value": "train.py --seed=3"},
    ]


def test_the_configuration_tells_how_an_evaluation_differs():
    flags = {"data_dir": "photos", "precision": "float32"}
    evaluated = {"data_dir": "others", "precision": "float32"}
    _, different, *_ = report_sections.configuration(flags, flags, evaluated, {}).tables
    assert different.rows.to_dict("records") == [
        {"flag": "--data_dir", "evaluated with": "others", "trained with": "photos"}
    ]


def test_views_of_an_evaluation_are_no_flag_of_the_run():
    section = report_sections.configuration({"a": 1}, {"a": 1}, {"a": 1, "views": "flip"}, {})
    (row,) = section.tables[1].rows.to_dict("records")
    assert (row["flag"], row["evaluated with"], row["trained with"]) == ("--views", "flip", "")
    without = report_sections.configuration({"a": 1}, {"a": 1}, {"a": 1, "views": ""}, {})
    assert len(without.tables) == len(section.tables) - 1


@pytest.mark.parametrize(
    ("name", "is_owned"),
    [
        *[("macro_f1.png", True), ("confusion_val.png", True), ("confusion_train_12.png", True)],
        *[("predictions_test_least_confident.png", True), ("confidence_val.png", True)],
        *[("mine.png", False), ("loss.txt", False), ("confusion_val_mine.png", False)],
        *[("predictions_val_random.png.png", False), ("my_loss.png", False), ("loss", False)],
    ],
)
def test_which_files_are_of_a_report(name, is_owned):
    assert bool(report_sections.PICTURE_FILES.fullmatch(name)) == is_owned


def test_what_is_grey_or_a_dash_is_explained():
    """There is no lily among the truth of either split."""
    assert "Grey rows" in report_sections.confusions(MATRICES).text
    full = {"val": MATRICES["val"].loc[["rose", "iris"], ["rose", "iris"]]}
    assert "Grey" not in report_sections.confusions(full).text
    columns = ["class", "label", "precision", "recall", "f1-score", "support"]
    nan = float("nan")
    rows = [("rose", "0", 1.0, 1.0, 1.0, 3), ("lily", "1", nan, nan, nan, 0)]
    reports = {"val": pd.DataFrame(rows, columns=columns)}
    section = report_sections.classes(reports)
    assert section.tables[0].rows["class"].tolist() == ["rose", "lily"]
    assert "A dash:" in section.text
    assert "A dash:" not in report_sections.classes({"val": reports["val"][:1]}).text
