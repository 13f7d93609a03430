import types

import numpy as np
import psutil
import pytest
import tensorflow as tf

from flowers_tpu.data import records, source
from flowers_tpu.data.augment import draws
from flowers_tpu.data.shards import shard_reader
from flowers_tpu.data.splits import read_split
from flowers_tpu.runs import feed
from flowers_tpu.runs.feed import Feed
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system.devices import Devices
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.facts import Facts
from tests.photos import write_data_set

PHOTO_SIZE, IMAGE_SIZE = 64, 32
STEPS = 4 * 3  # 4 epochs of 24 photos in batches of 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of 64 pixels: 24 to train with, and 9."""
    return write_data_set(tmp_path_factory.mktemp("data"), size=PHOTO_SIZE)


def make_recipe(folder, strategy=None, facts=None, **flags):
    values = {"data_dir": str(folder), "image_size": IMAGE_SIZE, "batch_size_per_replica": 4}
    spec = Spec.of(**(values | {"augment_on": "host"} | flags))
    devices = Devices(strategy or tf.distribute.get_strategy(), facts or Facts("CPU", 2))
    return Recipe.on(devices, spec)


@pytest.fixture(scope="module")
def splits(folder):
    return {name: read_split(str(folder), name, 3) for name in records.LABELED_SPLITS}


def seen(fed, first_step=0):
    """What each step of training sees, and of the validation: all replicas together."""
    strategy = fed.recipe.strategy

    def joined(batch):
        local = {n: strategy.experimental_local_results(v) for n, v in batch.items()}
        return {name: np.concatenate(values) for name, values in local.items()}

    return [
        [joined(batch) for batch in batches]
        for batches in (fed.train_batches(first_step, STEPS), fed.eval_batches(fed.val_source))
    ]


def test_one_of_host_and_device_augments(folder, splits):
    on_host, on_device = (
        Feed(make_recipe(folder, augment_on=where), splits) for where in ("host", "device")
    )
    assert on_host.augment_on_device is None
    assert on_device.augment_on_host is None
    image = np.random.default_rng(0).integers(0, 256, (PHOTO_SIZE, PHOTO_SIZE, 3), dtype=np.uint8)
    drawn = draws.draw(0, 3)
    by_host = on_host.augment_on_host(image, drawn).numpy().astype(int)
    by_device = on_device.augment_on_device(image[np.newaxis], drawn[tf.newaxis])[0]
    assert by_host.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert np.abs(by_host - by_device).max() <= 1


def test_the_augmentation_is_that_of_the_flags(folder, splits):
    """Without crops and flips, and with a saturation of 0, what is seen are shades of grey."""
    flags = {"flip_left_right": False, "flip_up_down": False, "crop_min": 1.0}
    flags |= {"saturation_lower": 0.0, "saturation_upper": 0.0}
    for where in ("host", "device"):
        fed = Feed(make_recipe(folder, augment_on=where, **flags), splits)
        image = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        drawn = draws.draw(0, 3)
        if where == "host":
            augmented = fed.augment_on_host(image, drawn).numpy()
        else:
            augmented = fed.augment_on_device(image[np.newaxis], drawn[tf.newaxis])[0].numpy()
        brightest = np.repeat(image.max(axis=-1, keepdims=True), 3, axis=-1)
        assert np.abs(augmented.astype(int) - brightest).max() <= 1, where


@pytest.mark.parametrize(
    ("flags", "factor"),
    [
        ({}, 1),  # crops of 70 % have 44.8 pixels: halved they would be enlarged
        ({"crop_min": 1.0}, 2),
        ({"image_size": 22}, 2),
        ({"image_size": 8, "crop_min": 1.0}, 8),
    ],
)
def test_photos_for_training_are_reduced_as_far_as_what_is_cut_out_allows(folder, flags, factor):
    decoder = feed.train_decoder(make_recipe(folder, **flags), PHOTO_SIZE)
    assert (decoder.factor, decoder.side) == (factor, PHOTO_SIZE // factor)


@pytest.mark.parametrize(
    ("flags", "side"),
    [
        ({"rotation": 10.0}, 46),  # 0.7 of it are the 32 px wanted
        ({"crop_min": 1.0, "zoom": 0.1}, 36),  # halved, what is left of it would be enlarged
    ],
)
def test_photos_that_are_warped_are_shrunk_before(folder, flags, side):
    decoder = feed.train_decoder(make_recipe(folder, **flags), PHOTO_SIZE)
    assert (decoder.factor, decoder.side) == (1, side)


# Larger photos than the model sees


@pytest.mark.parametrize(
    ("augment_on", "flags"),
    [
        ("host", {}),
        ("device", {"cache": "records"}),
        ("host", {"crop_min": 1.0, "cache": "pixels"}),
    ],
)
def test_a_run_on_larger_photos(folder, splits, make_strategy, augment_on, flags):
    fed = Feed(make_recipe(folder, make_strategy(2), augment_on=augment_on, **flags), splits)
    train, val = seen(fed)
    assert (len(train), len(val), fed.eval_steps(splits["val"])) == (STEPS, 2, 2)
    for batch in train:
        if fed.augment_on_device:
            batch["image"] = fed.augment_on_device(batch["image"], batch["draws"]).numpy()
        assert batch["image"].shape == (8, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert {batch["image"].shape for batch in val} == {(8, IMAGE_SIZE, IMAGE_SIZE, 3)}
    # Classes differ in brightness, which neither crops nor a smaller size change.
    brightness = np.concatenate([batch["image"].max(axis=-1).mean(axis=(1, 2)) for batch in train])
    labels = np.concatenate([batch["label"] for batch in train])
    assert brightness[labels == 2].mean() > brightness[labels == 0].mean() + 60
    weights = np.concatenate([batch["weight"] for batch in val])
    labels = np.concatenate([batch["label"] for batch in val])[weights == 1]
    assert labels.tolist() == splits["val"].labels.tolist()


def test_photos_of_an_evaluation_are_shrunk_whole(folder, splits, make_strategy):
    fed = Feed(make_recipe(folder, make_strategy(2)), splits)
    _, val = seen(fed)
    images = np.concatenate([batch["image"] for batch in val])[:9]
    for batches in (fed.eval_batches(splits["val"]), fed.eval_batches(fed.val_source)):
        first = next(iter(batches))["image"]
        local = fed.recipe.strategy.experimental_local_results(first)
        np.testing.assert_array_equal(np.concatenate(local), images[:8])
    reader = shard_reader(splits["val"].shards)
    serialized = [record for n in range(2) for record in reader(tf.constant(n, tf.int64))]
    for image, record in zip(images, serialized, strict=True):
        whole = tf.io.decode_jpeg(records.parse(record)["image"], channels=3)
        shrunk = tf.image.resize(whole, [IMAGE_SIZE] * 2, antialias=True)
        assert tf.image.psnr(tf.cast(image, tf.float32), shrunk, 255.0) > 35


def test_host_and_device_feed_a_model_the_same(folder, splits, make_strategy):
    """Step by step, whatever the route, the cache, and where a run is taken up."""
    strategy = make_strategy(2)
    on_host, _ = seen(Feed(make_recipe(folder, strategy), splits))
    device_feed = Feed(make_recipe(folder, strategy, augment_on="device", cache="pixels"), splits)
    on_device, _ = seen(device_feed, first_step=5)
    assert (len(on_host), len(on_device)) == (12, 7)
    for a, b in zip(on_host[5:], on_device, strict=True):
        np.testing.assert_array_equal(a["label"], b["label"])
        images = device_feed.augment_on_device(b["image"], b["draws"]).numpy().astype(int)
        assert np.abs(images - a["image"]).max() <= 1


def test_photos_are_mixed_alike_wherever_they_are_augmented(folder, splits, make_strategy):
    strategy, batches = make_strategy(2), {}
    for place in ("host", "device"):
        flags = {"augment_on": place, "mixup": 0.4, "cutmix": 1.0, "mix_probability": 0.8}
        fed = Feed(make_recipe(folder, strategy, **flags), splits)
        batches[place] = [fed.prepare(batch) for batch in seen(fed)[0][:4]]
    for a, b in zip(*batches.values(), strict=True):
        for name in ("label", "other", "share"):
            np.testing.assert_array_equal(a[name], b[name])
        assert np.abs(a["image"].numpy().astype(int) - b["image"].numpy()).max() <= 1
    assert 0 < np.mean([batch["share"] < 1 for batch in batches["host"]]) < 1


# Caches


@pytest.mark.parametrize("cache", ["none", "records", "pixels"])
def test_the_cache_that_is_asked_for_is_made(monkeypatch, folder, splits, cache):
    """Of training and validation, by the decoder of each, and only once."""
    made = []
    makers = {
        name: lambda split, decoder, name=name: made.append((name, split.name, decoder.side))
        for name in source.MAKERS
    }
    monkeypatch.setattr(source, "MAKERS", makers)
    fed = Feed(make_recipe(folder, cache=cache), splits)
    assert made == [], "nothing is read before it is asked for"
    assert [fed.train_source, fed.val_source, fed.train_source] == [None] * 3
    assert made == [(cache, "train", PHOTO_SIZE), (cache, "val", IMAGE_SIZE)]


def test_every_cache_has_its_maker():
    makers = (source.from_files, source.from_records, source.from_pixels)
    assert tuple(source.MAKERS.items()) == tuple(
        zip(("none", "records", "pixels"), makers, strict=True)
    )


@pytest.mark.parametrize("cache", ["records", "pixels"])
def test_both_splits_must_fit_into_memory(monkeypatch, folder, splits, cache):
    needed = {
        "records": sum(split.jpeg_sizes.sum() for split in splits.values()),
        "pixels": 24 * 64 * 64 * 3 + 9 * 32 * 32 * 3,
    }[cache]
    fed = Feed(make_recipe(folder, cache=cache), splits)
    memory = types.SimpleNamespace(available=int(needed / 0.9) + 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    fed.check_cache()
    memory.available = int(needed / 0.9) - 2
    for ask in (fed.check_cache, lambda: fed.train_source, lambda: fed.val_source):
        with pytest.raises(RequestError, match=f"--cache={cache} needs"):
            ask()


def test_a_cache_is_refused_if_several_hosts_read(folder, splits):
    pod = Facts("TPU", 8, hosts=4)
    Feed(make_recipe(folder, facts=pod), splits).check_cache()
    with pytest.raises(RequestError, match=r"--cache=records: .* 4 hosts read them"):
        Feed(make_recipe(folder, facts=pod, cache="records"), splits).check_cache()


# Which photos a step sees


def test_ids_of_a_step_are_those_it_sees(folder, splits, make_strategy):
    recipe = make_recipe(folder, make_strategy(2), augment_on="device", shuffle_buffer=7, seed=5)
    fed = Feed(recipe, splits)
    train, _ = seen(fed)
    label_of = dict(zip(splits["train"].ids, splits["train"].labels, strict=True))
    for step, batch in enumerate(train):
        ids = fed.ids_of_step(step)
        assert [label_of[example_id] for example_id in ids] == batch["label"].tolist()
