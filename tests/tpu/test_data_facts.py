import pytest
import tensorflow as tf

from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import one_cpu_replica
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from flowers_tpu.tpu import data_facts as lib
from flowers_tpu.tpu.data_facts import DataFacts, InputRate, data_facts, input_rate
from tests import photos

FACTS = DataFacts(3, photo_size=32, training_photos=24)


def recipe_of(**flags):
    spec = Spec.of(backbone="small_cnn", weights="none", run_dir="x", **flags)
    return Recipe.on(one_cpu_replica(Facts("TPU")), spec)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("absent", "--data_dir=absent: no such folder (a path from "),
        ("gs://no-such-bucket/data", "from here; --classes=FILE names their classes"),
        ("example", "the drawn photos of --data_dir=example are not looked at"),
    ],
)
def test_the_competitions_are_assumed(place, reason):
    facts = data_facts(recipe_of(data_dir=place, image_size=64))
    assert facts[:3] == (104, 64, 12_753)
    assert reason in facts.assumed


def test_the_classes_of_a_bucket_come_from_their_file(tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    recipe = recipe_of(data_dir="gs://x", classes=str(tmp_path / "names.txt"))
    facts = data_facts(recipe)
    assert facts.num_classes == 2
    assert facts.assumed == "the photos of --data_dir=gs://x are not looked at from here"
    with pytest.raises(RequestError, match="none"):
        data_facts(recipe.changed(classes=str(tmp_path / "none.txt")))


def test_data_that_are_there_are_looked_at(tmp_path):
    photos.write_data_set(tmp_path, train=24, size=48, num_classes=3)
    recipe = recipe_of(data_dir=str(tmp_path), image_size=32)
    assert data_facts(recipe) == DataFacts(3, photo_size=48, training_photos=24)
    # Photos that are enlarged are data too, and what is no shard is not.
    assert data_facts(recipe.changed(image_size=64)) == DataFacts(3, 48, 24)
    (tmp_path / "train" / "flowers.tfrec").write_bytes(b"")
    assert "flowers.tfrec: not a shard's name" in data_facts(recipe).assumed


def test_the_input_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(lib, "_SECONDS", 0.4)
    photos.write_data_set(tmp_path, train=24, size=32, num_classes=3)
    recipe = recipe_of(data_dir=str(tmp_path), image_size=32, batch_size_per_replica=4)
    assert 100 < lib.input_images_per_second(recipe) < 1e6
    with pytest.raises(RequestError, match="has 24 photos, fewer than the global batch of 25"):
        lib.input_images_per_second(recipe.changed(batch_size_per_replica=25))


def test_what_is_said_of_the_input_is_taken(monkeypatch):
    monkeypatch.setattr(lib, "input_images_per_second", None)  # it is not measured
    stated = InputRate(250.0, "as --host_images_per_second says")
    assert input_rate(recipe_of(), FACTS, 250.0) == stated
    assumed = input_rate(recipe_of(), FACTS._replace(assumed="no such folder"), 0.0)
    assert assumed == InputRate(None, "not measured: no data to measure it with")


@pytest.mark.parametrize(
    "error",
    [
        RequestError("--cache=pixels needs 10 GB"),
        tf.errors.DataLossError(None, None, "corrupted record at 12"),
        OSError("disk"),
        ValueError("anything else"),
    ],
)
def test_an_input_that_cannot_be_measured_is_no_error(monkeypatch, error):
    def fail(recipe):
        raise error

    monkeypatch.setattr(lib, "input_images_per_second", fail)
    rate = input_rate(recipe_of(), FACTS, 0.0)
    assert rate.images_per_second is None
    assert rate.origin.startswith("not measured: ")
    assert str(error).splitlines()[0] in rate.origin
