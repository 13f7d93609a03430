import base64
import dataclasses
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from sklearn import metrics

from flowers_tpu import experiment, parts, reporting
from flowers_tpu.config import Config
from flowers_tpu.errors import RequestError, StoppedError
from flowers_tpu.reports import report_sections
from flowers_tpu.run_directory import RunDirectory
from tests import runs
from tests.photos import write_data_set


class Never:
    """Stands in for `Interruption`: no signal comes."""

    def check(self):
        pass


class Stop:
    """The same, but one comes before the second picture is drawn."""

    polls = 0

    def check(self):
        self.polls += 1
        if self.polls == 2:
            raise StoppedError("stopped")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_data_set(tmp_path_factory.mktemp("data") / "d", train=30, val=20, test=4)
    (folder / "classes.txt").write_text("nan\n<i>rose</i> & $co\nlily\n")
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run with its report, the files of it, and its splits."""
    run, splits = runs.write_run(tmp_path_factory.mktemp("runs") / "my run", data, seed=5)
    reporting.write_report(run, splits, images="embedded", interruption=Never())
    return run, splits


@pytest.fixture
def other(data, tmp_path):
    return runs.write_run(tmp_path / "run", data)


def sources(html):
    return re.findall(r'<img src="([^"]*)"', html)


def read(run, name="report.html"):
    return Path(run.file(name)).read_text("utf-8")


PICTURES = {
    *("loss", "accuracy", "macro_f1", "learning_rate", "confused_pairs"),
    *("confusion_train", "confusion_val", "reliability_train", "reliability_val"),
    *("confidence_train", "confidence_val", "predictions_train_random"),
    *("predictions_train_highest_loss", "predictions_val_random", "predictions_val_highest_loss"),
    *("predictions_test_random", "predictions_test_least_confident"),
}


def test_every_picture_is_a_file_and_in_the_page(finished):
    run, _ = finished
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
    assert len(photos) == 6 + 1
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
    run, splits = finished
    page = reporting.make_page(run, splits)
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
    about = sections["Configuration"].tables[1].rows.set_index("")["value"]
    assert about["packages"] == "numpy 2"


def test_each_photo_stands_under_its_own_title(finished):
    """A photo is as bright as its class is; see `write_data_set`."""
    run, splits = finished
    page = reporting.make_page(run, splits)
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
    numbered = reporting._numbered(table, ["a", "007", "b"])
    assert numbered["id"].to_dict() == {0: "a", 1: "007", 2: "b"}


def test_images_beside_the_page_are_the_same_ones(finished, tmp_path):
    """Drawn again byte by byte; without the test split all but its photos."""
    run, splits = finished
    shutil.copytree(run.path, tmp_path / "my run")
    shutil.rmtree(tmp_path / "my run" / "plots")
    copy = RunDirectory(str(tmp_path / "my run"))
    labeled = {name: splits[name] for name in ("train", "val")}
    reporting.write_report(copy, labeled, images="files", interruption=Never())
    shown = {name for name in PICTURES if "_test_" not in name}
    assert sorted(sources(read(copy))) == sorted(f"plots/{name}.png" for name in shown)
    assert set(os.listdir(copy.file("plots"))) == {f"{name}.png" for name in shown}
    for name in shown:
        first, again = (
            Path(which.file("plots", f"{name}.png")).read_bytes() for which in (run, copy)
        )
        assert first == again, name


def test_what_is_lacking_is_read(other, data, monkeypatch):
    run, splits = other
    _, config = run.read_configs()
    given = {}
    monkeypatch.setattr(reporting, "write_report", lambda run, splits, **_: given.update(splits))
    reporting.report(config, run, {"val": splits["val"]}, Never())
    assert given.keys() == {"train", "val", "test"}
    assert list(given["test"].ids) == list(splits["test"].ids)

    def load_all_but_test(config, names):
        if names == ("test",):
            raise RequestError("test: no such folder")
        return original(config, names)

    original = parts.load_data
    monkeypatch.setattr(parts, "load_data", load_all_but_test)
    given.clear()
    reporting.report(config, run, {}, Never())
    assert given.keys() == {"train", "val"}


def test_a_report_that_cannot_be_drawn_is_a_warning(other, caplog, monkeypatch):
    run, splits = other
    monkeypatch.setattr(report_sections, "training", lambda history: 1 / 0)
    Path(run.file("report.html")).write_text("of scores before these")
    before = {name: read(run, name) for name in ("scores.json", "submission.csv")}
    reporting.report(Config(), run, splits, Never())
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "ZeroDivisionError" in message and f"--run_dir={run.path}" in message
    assert not run.has("report.html")
    assert before == {name: read(run, name) for name in before}


def test_a_stop_leaves_no_half_report(other):
    run, splits = other
    with pytest.raises(StoppedError):
        reporting.report(Config(), run, splits, Stop())
    assert not run.has("report.html") and len(os.listdir(run.file("plots"))) == 2


def test_a_finished_run_gets_the_report_it_lacks(other, monkeypatch, capsys):
    run, _ = other
    _, config = run.read_configs()
    scores = read(run, "scores.json")
    whole = reporting.make_page
    monkeypatch.setattr(
        reporting, "make_page", lambda *a: dataclasses.replace(whole(*a), sections=())
    )
    experiment.train(dataclasses.replace(config, report=False))
    assert not run.has("report.html")
    experiment.train(config)
    assert run.has("report.html") and read(run, "scores.json") == scores
    assert "plots/, report.html" in capsys.readouterr().out
    monkeypatch.setattr(reporting, "write_report", lambda *_, **__: pytest.fail("drawn again"))
    experiment.train(config)


def test_no_report_where_none_is_asked_for(other):
    run, splits = other
    reporting.report(Config(report=False), run, splits, Never())
    assert not run.has("plots") and not run.has("report.html")
