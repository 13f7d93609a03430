import base64
import dataclasses
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from sklearn import metrics

from flowers_tpu.commands import train
from flowers_tpu.reports import report_sections
from flowers_tpu.runs import report
from flowers_tpu.runs.folder import RunFolder
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.system.errors import RequestError, StoppedError
from tests import finished_runs
from tests.photos import write_data_set
from tests.stopping import StopAt

NEVER = StopAt()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_data_set(tmp_path_factory.mktemp("data") / "d", train=30, val=20, test=4)
    (folder / "classes.txt").write_text("nan\n<i>rose</i> & $co\nlily\n")
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run with its report, its recipe, and its splits."""
    written = finished_runs.write_run(tmp_path_factory.mktemp("runs") / "my run", data, seed=5)
    run, recipe, splits = written
    report.write_report(recipe, run, run, splits, NEVER)
    return written


@pytest.fixture
def other(data, tmp_path):
    return finished_runs.write_run(tmp_path / "run", data)


def sources(html):
    return re.findall(r'<img src="([^"]*)"', html)


def read(run, name="report.html"):
    return Path(run.file(name)).read_text("utf-8")


PICTURES = {
    *("loss", "accuracy", "macro_f1", "learning_rate", "confused_pairs"),
    *("confusion_train", "confusion_val", "reliability_train", "reliability_val"),
    *("confidence_train", "confidence_val", "predictions_train_random"),
    *("predictions_train_highest_loss", "predictions_val_random", "predictions_val_highest_loss"),
    *("predictions_test_random", "predictions_test_least_confident", "disputed_labels"),
}


def test_every_picture_is_a_file_and_in_the_page(finished):
    run, *_ = finished
    assert set(os.listdir(run.file("plots"))) == {f"{name}.png" for name in PICTURES}
    html = read(run)
    assert len(sources(html)) == len(PICTURES)
    embedded = {
        base64.b64decode(source.partition(",")[2])
        for source in sources(html)
        if source.startswith("data:image/png;base64,")
    }
    drawn = {path.read_bytes() for path in Path(run.file("plots")).iterdir()}
    assert len(embedded) == 4 + 2 + 4 and embedded < drawn
    photos = [source for source in sources(html) if source.startswith("data:image/jpeg;base64,")]
    assert len(photos) == 6 + 1 + 1
    assert len(re.findall(r'<img [^>]*alt="[^"]{20,}"', html)) == len(PICTURES)


def test_the_page_needs_nothing_else(finished):
    html = read(finished[0])
    addresses = re.findall(r'(?:src|href)="([^"]{,9})', html)
    assert {address.split(":")[0][0] for address in addresses} == {"d", "#"}
    assert "url(" not in html and "@import" not in html and "http" not in html.lower()
    anchors = re.findall(r'<a href="#([^"]*)"', html)
    assert anchors and set(anchors) <= set(re.findall(r'id="([^"]*)"', html))


def test_names_are_text_and_not_markup(finished):
    html = read(finished[0])
    assert "&lt;i&gt;rose&lt;/i&gt; &amp; $co" in html and "<i>rose" not in html
    assert "<title>my run</title>" in html


def test_the_numbers_are_those_of_the_run(finished):
    run, recipe, splits = finished
    page = report.make_page(recipe, run, run, splits)
    predicted = pd.read_csv(run.file("predictions_val.csv"))["predicted_label"]
    labels = splits["val"].labels
    f1 = metrics.f1_score(labels, predicted, average="macro")
    assert page.figures[0] == ("validation macro F1", f"{f1:.4f}")
    assert "epoch 3" in page.summary and "3 classes" in page.summary
    sections = {section.title: section for section in page.sections}
    (scores,) = sections["Scores"].tables
    assert scores.rows["macro F1"][0] == pytest.approx(f1)
    assert scores.rows["examples"].tolist() == [20, 30]
    classes, _ = sections["Classes"].tables
    expected = metrics.recall_score(labels, predicted, average=None)
    assert classes.rows["class"].tolist() == ["nan", "<i>rose</i> & $co", "lily"]
    assert classes.rows["recall"].tolist() == pytest.approx(list(expected))
    assert classes.footer["class"].tolist() == ["accuracy", "macro avg", "weighted avg"]
    flags = sections["Configuration"].tables[0].rows.set_index("flag")["value"]
    assert flags["--seed"] == "5" and "--dropout" not in flags
    about = sections["Configuration"].tables[1].rows.set_index("name")["value"]
    assert about["packages"] == "numpy 2"


def test_each_photo_stands_under_its_own_title(finished):
    """A photo is as bright as its class is; see `write_data_set`."""
    run, recipe, splits = finished
    page = report.make_page(recipe, run, run, splits)
    names = {"nan": 0, "<i>rose</i> & $co": 1, "lily": 2}
    (sheet,) = [p for p in page.pictures if p.name == "predictions_val_highest_loss"]
    figure = sheet.draw()
    titles = [" ".join(text.get_text().split()) for text in figure.texts[1:]]
    assert len(titles) == 9 and sum("→" in title for title in titles) == 5  # every fourth of 20
    for title, axes in zip(titles, figure.axes, strict=True):
        brightness = axes.images[0].get_array().mean()
        label = names[title.rpartition("→ ")[2]]
        assert brightness == pytest.approx(255 / 6 + 50 * label, abs=25), title


def test_predictions_of_photos_that_are_gone_are_left_out():
    table = pd.DataFrame({"id": ["b", "gone", "007", "a"], "confidence": [1, 2, 3, 4]})
    numbered = report._numbered(table, ["a", "007", "b"])
    assert numbered["id"].to_dict() == {0: "a", 1: "007", 2: "b"}


def test_images_beside_the_page_are_the_same_ones(finished, tmp_path):
    """Drawn again byte by byte; without the test split all but its photos."""
    run, recipe, splits = finished
    shutil.copytree(run.path, tmp_path / "my run")
    shutil.rmtree(tmp_path / "my run" / "plots")
    copy = RunFolder(str(tmp_path / "my run"))
    labeled = {name: splits[name] for name in ("train", "val")}
    beside = recipe.changed(report_images="files")
    report.write_report(beside, copy, copy, labeled, NEVER)
    shown = {name for name in PICTURES if "_test_" not in name}
    assert sorted(sources(read(copy))) == sorted(f"plots/{name}.png" for name in shown)
    assert set(os.listdir(copy.file("plots"))) == {f"{name}.png" for name in shown}
    for name in shown:
        first, again = (
            Path(which.file("plots", f"{name}.png")).read_bytes() for which in (run, copy)
        )
        assert first == again, name


def test_what_is_lacking_is_read(other, monkeypatch):
    run, recipe, splits = other
    given = {}
    monkeypatch.setattr(report, "write_report", lambda c, r, o, splits, s: given.update(splits))
    report.report(recipe, run, run, {"val": splits["val"]}, NEVER)
    assert given.keys() == {"train", "val", "test"}
    assert list(given["test"].ids) == list(splits["test"].ids)

    def load_all_but_test(recipe, names, trained_names):
        if names == ("test",):
            raise RequestError("test: no such folder")
        return original(recipe, names, trained_names)

    original = Recipe.load_data
    monkeypatch.setattr(Recipe, "load_data", load_all_but_test)
    given.clear()
    report.report(recipe, run, run, {}, NEVER)
    assert given.keys() == {"train", "val"}


def test_a_report_that_cannot_be_drawn_is_a_warning(other, caplog, monkeypatch):
    run, recipe, splits = other
    monkeypatch.setattr(report_sections, "training", lambda history: 1 / 0)
    Path(run.file("report.html")).write_text("of scores before these")
    before = {name: read(run, name) for name in ("scores.json", "submission.csv")}
    report.report(recipe, run, run, splits, NEVER)
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"report of {run.path}" in message and "ZeroDivisionError" in message
    assert "the same command tries again" in message
    assert not run.has("report.html")
    assert before == {name: read(run, name) for name in before}


def test_a_stop_leaves_no_half_report(other):
    run, recipe, splits = other
    with pytest.raises(StoppedError):
        report.report(recipe, run, run, splits, StopAt(2))
    assert not run.has("report.html") and len(os.listdir(run.file("plots"))) == 2


def test_a_finished_run_gets_the_report_it_lacks(other, monkeypatch, capsys):
    run, recipe, _ = other
    spec, scores = recipe.spec, read(run, "scores.json")
    whole = report.make_page
    monkeypatch.setattr(report, "make_page", lambda *a: dataclasses.replace(whole(*a), sections=()))
    train.train(spec.changed(report=False))
    assert not run.has("report.html")
    train.train(spec)
    assert run.has("report.html") and read(run, "scores.json") == scores
    assert "plots, report.html" in capsys.readouterr().out
    monkeypatch.setattr(report, "write_report", lambda *_: pytest.fail("drawn again"))
    train.train(spec)


def test_no_report_if_none_is_asked_for(other):
    run, recipe, splits = other
    report.report(recipe.changed(report=False), run, run, splits, NEVER)
    assert not run.has("plots") and not run.has("report.html")


def write_old(run, *names):
    """Writes files of a report of earlier scores."""
    os.makedirs(run.file("plots"), exist_ok=True)
    for name in names:
        Path(run.file(name)).write_text("old")


def test_without_a_report_none_of_earlier_scores_stays(other):
    run, recipe, splits = other
    write_old(run, "report.html", "plots/loss.png", "plots/confusion_val_3.png", "plots/mine.png")
    report.report(recipe.changed(report=False), run, run, splits, NEVER)
    assert not run.has("report.html") and os.listdir(run.file("plots")) == ["mine.png"]
    os.remove(run.file("plots", "mine.png"))
    write_old(run, "plots/loss.png")
    report.report(recipe.changed(report=False), run, run, splits, NEVER)
    assert not run.has("plots")


def test_what_is_not_drawn_any_more_goes(other, monkeypatch):
    run, recipe, splits = other
    write_old(run, "report.html", "plots/confusion_val_3.png", "plots/mine.png")
    whole = report.make_page

    def page_of_curves(*args):
        page = whole(*args)
        (training,) = [section for section in page.sections if section.title == "Training"]
        return dataclasses.replace(page, sections=(training,))

    monkeypatch.setattr(report, "make_page", page_of_curves)
    report.report(recipe, run, run, splits, NEVER)
    curves = {"loss.png", "accuracy.png", "macro_f1.png", "learning_rate.png"}
    assert set(os.listdir(run.file("plots"))) == {*curves, "mine.png"}


def test_a_finished_run_without_a_report_keeps_its_plots(other):
    run, recipe, _ = other
    write_old(run, "plots/loss.png")
    train.train(recipe.spec.changed(report=False))
    assert os.listdir(run.file("plots")) == ["loss.png"]


def test_other_data_that_were_scored_are_named(other, data, tmp_path):
    """With the same ids, so that what was predicted of test seems to be of them."""
    run, recipe, _ = other
    others = write_data_set(tmp_path / "others", train=12, val=10, test=4)
    shutil.copy(data / "classes.txt", others)
    elsewhere = recipe.changed(data_dir=str(others))
    scored = elsewhere.load_data()
    finished_runs.score(run, scored)
    page = report.make_page(elsewhere, run, run, scored.splits)
    assert f"3 classes of {others}, trained on {data}." in page.summary
    sections = {section.title: section for section in page.sections}
    assert sections["Scores"].tables[0].rows["examples"].tolist() == [10, 12]
    _, different, *_ = sections["Configuration"].tables
    assert different.rows.to_numpy().tolist() == [["--data_dir", str(others), str(data)]]
    names = {picture.name for picture in page.pictures}
    assert names == {name for name in PICTURES if "_test_" not in name}


def test_predictions_of_other_test_photos_are_not_shown(other):
    run, recipe, splits = other
    table = run.read_table("predictions_test.csv")
    run.write_table("predictions_test.csv", table.assign(id="other-" + table["id"]))
    page = report.make_page(recipe, run, run, splits)
    assert not [picture for picture in page.pictures if "_test_" in picture.name]


def test_a_class_that_nobody_saw_has_a_row_without_scores(other):
    run, recipe, splits = other
    table = report._read_classes(run, "val")
    scores = ["precision", "recall", "f1-score"]
    table.loc[table["class"] == "lily", [*scores, "support"]] = [float("nan")] * 3 + [0]
    run.write_table("classification_report_val.csv", table)
    page = report.make_page(recipe, run, run, splits)
    (classes,) = [section for section in page.sections if section.title == "Classes"]
    rows = classes.tables[0].rows
    assert rows["class"].tolist() == ["nan", "<i>rose</i> & $co", "lily"]
    assert rows["recall"].isna().tolist() == [False, False, True]
    assert classes.tables[0].is_number("recall")
