"""Runs are averaged photo by photo, in any order of photos and classes; leaks are refused."""

import dataclasses
import re

import numpy as np
import pytest
from scipy.special import softmax

from flowers_tpu.evaluation.outputs import Outputs
from flowers_tpu.runs.ensemble import Member, gather
from flowers_tpu.system.errors import RequestError

CLASSES = ("daisy", "rose", "tulip")
SPLITS = {"train": range(60), "val": range(60, 90), "test": range(90, 100)}


def make(path, splits=SPLITS, seed=0, size=32) -> Member:
    """A run with outputs by chance; the label of photo n is n % 3."""
    generator = np.random.default_rng(seed)
    outputs = {}
    for name, photos in splits.items():
        photos = np.array(photos)
        outputs[name] = Outputs(
            logits=generator.normal(size=(len(photos), 3)).astype(np.float32),
            ids=np.array([f"p{n:03d}" for n in photos]),
            fingerprints=photos * 7919 % 1009 + size,
            labels=None if name == "test" else (photos % 3).astype(np.int32),
            class_names=CLASSES,
            photo_size=size,
        )
    return Member(path, path, outputs)


def changed(member, **change) -> Member:
    outputs = {name: change.get(name, lambda o: o)(of) for name, of in member.outputs.items()}
    return dataclasses.replace(member, outputs=outputs)


def shuffled(outputs) -> Outputs:
    rows = np.random.default_rng(3).permutation(len(outputs.ids))
    return outputs.taken(rows).with_classes(("tulip", "daisy", "rose"))


def mean(*logits):
    return np.mean([softmax(of.astype(float), 1) for of in logits], axis=0)


def fold(number) -> Member:
    """One of three folds of photos 0 to 89."""
    photos = np.arange(90)
    here = photos // 3 % 3 == number
    splits = {"train": photos[~here], "val": photos[here], "test": range(90, 100)}
    return make(f"fold{number}", splits, seed=number)


@pytest.mark.parametrize("size", [32, 64])
def test_order_of_photos_and_classes_is_no_matter(size):
    one, two = make("one"), make("two", seed=1, size=size)
    other = changed(two, **dict.fromkeys(SPLITS, shuffled))
    made = gather([one, other], search=False)
    for split in SPLITS:
        expected = mean(one.outputs[split].logits, two.outputs[split].logits)
        np.testing.assert_allclose(np.exp(made.outputs[split].logits), expected, rtol=1e-6)
        np.testing.assert_array_equal(made.outputs[split].ids, one.outputs[split].ids)
    assert made.about["photos_known_by"] == ("fingerprints" if size == 32 else "ids")


def test_outputs_survive_being_written():
    outputs = make("one").outputs
    for of in outputs.values():
        again = Outputs.from_bytes(of.to_bytes())
        for field in dataclasses.fields(Outputs):
            np.testing.assert_array_equal(getattr(again, field.name), getattr(of, field.name))


def test_searched_weights_and_the_best_run():
    sure = changed(
        make("sure"),
        val=lambda o: dataclasses.replace(o, logits=o.logits + 3 * np.eye(3)[o.labels]),
    )
    made = gather([make("chance", seed=1), sure], search=True)
    weights = [run["weight"] for run in made.about["runs"]]
    assert weights[1] > 0.9 and sum(weights) == pytest.approx(1)
    expected = np.einsum("m,mec->ec", weights, [softmax(m.outputs["test"].logits, 1)
                         for m in (make("chance", seed=1), sure)])  # fmt: skip
    np.testing.assert_allclose(np.exp(made.outputs["test"].logits), expected, rtol=1e-5)
    gain = made.about
    assert gain["gain_low"] <= gain["gain_over_best"] <= gain["gain_high"]


def test_folds_score_each_photo_once_by_the_run_that_did_not_see_it():
    runs = [fold(0), fold(1), fold(2)]
    made = gather(runs, search=False)
    val = made.outputs["val"]
    assert sorted(val.ids) == [f"p{n:03d}" for n in range(90)] and "train" not in made.outputs
    for n, logits in zip(val.ids, val.logits, strict=True):
        own = runs[int(n[1:]) // 3 % 3].outputs["val"]
        np.testing.assert_allclose(np.exp(logits), softmax(own.logits[own.ids == n], 1)[0], 1e-5)
    expected = mean(*(run.outputs["test"].logits for run in runs))
    np.testing.assert_allclose(np.exp(made.outputs["test"].logits), expected, rtol=1e-6)


def test_two_runs_of_a_fold_are_averaged():
    again = changed(fold(1), **dict.fromkeys(SPLITS, shuffled))
    alone = gather([fold(0), fold(1), fold(2)], search=False).outputs["val"]
    both = gather([fold(0), fold(1), again, fold(2)], search=False).outputs["val"]
    np.testing.assert_array_equal(both.ids, alone.ids)
    np.testing.assert_allclose(both.logits, alone.logits, rtol=1e-6)


def test_train_is_scored_only_if_it_is_the_same():
    more = make("more", SPLITS | {"train": [*range(60), *range(100, 110)]})
    assert gather([make("one"), more], search=False).outputs.keys() == {"val", "test"}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": range(91, 101)}, "have different photos in test (10 and 10, 9 in common, by"),
        ({"val": range(61, 91)}, "in val (30 and 30, 29 in common, by their fingerprints), but"),
        ({"train": range(61)}, "two: 1 of its 30 validation photos are among its training photos"),
        ({"val": range(200, 230)}, "30 of the first are no photos of the second at all"),
    ],
)  # fmt: skip
def test_photos_that_do_not_fit(splits, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        gather([make("one"), make("two", SPLITS | splits)], search=False)


def test_classes_and_labels_that_do_not_fit():
    def other_class(outputs):
        return dataclasses.replace(outputs, class_names=("daisy", "rose", "lily"))

    def other_label(outputs):
        return dataclasses.replace(outputs, labels=np.roll(outputs.labels, 1))

    with pytest.raises(RequestError, match=r"two: has other classes .* lily, tulip"):
        two = changed(make("two"), **dict.fromkeys(SPLITS, other_class))
        gather([make("one"), two], search=False)
    with pytest.raises(RequestError, match=r"photo p.* of val is of the class '.*', in one of"):
        gather([make("one"), changed(make("two"), val=other_label)], search=False)


def test_equal_photos_count_as_often_as_they_are_there():
    twice = SPLITS | {"val": [*range(60, 90), 60]}
    one, two = make("one", twice), make("two", twice, seed=1)
    made = gather([one, changed(two, val=shuffled)], search=True)
    assert len(made.outputs["val"].ids) == 31


def test_folds_have_no_weights_to_search():
    with pytest.raises(RequestError, match="--weights=search: the runs are 3 folds"):
        gather([fold(0), fold(1), fold(2)], search=True)


def test_ids_that_are_not_unique_tell_no_photos_apart():
    def same_id(outputs):
        return dataclasses.replace(outputs, ids=np.full(len(outputs.ids), "x"))

    with pytest.raises(RequestError, match=r"two: the runs have photos of 2 sizes.*val has 30"):
        gather([make("one"), changed(make("two", size=64), val=same_id)], search=False)
