import numpy as np
import psutil
import pytest
import tensorflow as tf

from flowers_tpu.benchmarks import inputs, notebook, repeated
from flowers_tpu.data.shards import find_shards
from flowers_tpu.system.errors import RequestError
from tests.benchmarks.benchmarking import BATCH, SIZE, devices_of, make_recipe

PHOTOS = 20


@pytest.fixture(scope="module")
def data(folder):
    return make_recipe(folder).load_data(("train",))


def test_the_notebooks_batches(data):
    paths = [shard.path for shard in data.splits["train"].shards]
    dataset = notebook.dataset(paths, SIZE, BATCH, shuffle=16)
    images, labels = next(iter(dataset))
    assert images.shape == (BATCH, SIZE, SIZE, 3) and images.dtype == tf.float32
    assert 0 <= images.numpy().min() < images.numpy().max() <= 1
    assert labels.shape == (BATCH,) and labels.dtype == tf.int32
    seen = np.concatenate([labels for _, labels in dataset.take(50).as_numpy_iterator()])
    assert len(seen) == 50 * BATCH  # without an end
    # Each class as often as it is there.
    wanted = np.bincount(data.splits["train"].labels, minlength=3) / PHOTOS
    np.testing.assert_allclose(np.bincount(seen, minlength=3) / len(seen), wanted, atol=0.1)


def test_the_notebooks_augmentation(folder):
    """Red above, blue below; darker from left to right."""
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    image[: SIZE // 2, :, 0] = image[SIZE // 2 :, :, 2] = np.linspace(1, 0.5, SIZE)
    image += 0.25 * (1 - image.max(axis=2, keepdims=True))
    drawn = np.stack([notebook._augment(tf.constant(image)).numpy() for _ in range(64)])
    assert drawn.shape == (64, SIZE, SIZE, 3)
    red_above = drawn[:, 0, :, 0].mean(axis=1) > drawn[:, 0, :, 2].mean(axis=1)
    edges = drawn.max(axis=3)[:, :, [0, -1]].mean(axis=1)
    dark_right = edges[:, 0] > edges[:, 1]
    # Both flips, each of about half of the photos and apart from the other.
    for both in (red_above, dark_right, red_above == dark_right):
        assert 12 < both.sum() < 52
    # Cut out, the gradient is less steep: by at least 0.7.
    steepness = (
        np.abs(drawn.max(axis=3)[:, :, 0] - drawn.max(axis=3)[:, :, -1]).mean(axis=1) / 0.375
    )
    assert 0.65 < steepness.min() < 0.8 and 0.95 < steepness.max() <= 1.01
    # Grey at a saturation of 0, at 2 more than before.
    saturation = (1 - drawn.min(axis=3) / drawn.max(axis=3)).max(axis=(1, 2))
    assert saturation.min() < 0.3 and saturation.max() > 0.95


def test_the_notebooks_buffer_is_refused_if_it_does_not_fit(monkeypatch):
    assert notebook.shuffle_bytes(512) == 2048 * 512 * 512 * 3 * 4  # 6.4 GB
    memory = type("Memory", (), {"available": 7e9})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(RequestError, match=r"at 512 px needs 6\.4 GB, but 7\.0 GB"):
        notebook.check_memory(512)
    memory.available = 8e9
    notebook.check_memory(512)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("way", inputs.WAYS)
def test_a_reader_sees_all_photos_of_its_steps(folder, data, make_strategy, way, replicas):
    devices = devices_of(make_strategy(replicas)) if replicas > 1 else None
    recipe = make_recipe(
        folder, devices, batch_size_per_replica=BATCH // replicas, **inputs.WAYS[way]
    )
    batches = inputs.endless_batches(recipe, data)
    read = inputs._reader_function(recipe.strategy)
    # 20 photos make 2 steps an epoch: 7 steps reach into the fourth.
    assert read(iter(batches), tf.constant(7, tf.int64)).numpy() == 7 * BATCH


def test_more_photos_in_a_batch_than_there_are_is_refused(folder, data):
    recipe = make_recipe(folder, batch_size_per_replica=32)
    with pytest.raises(RequestError, match="has 20 photos, fewer than the global batch of 32"):
        inputs.endless_batches(recipe, data)


def test_decoding_alone_gives_the_photos_in_file_order(data):
    split = data.splits["train"]
    labels = [labels for _, labels in inputs.decoded(split, 10).take(3).as_numpy_iterator()]
    np.testing.assert_array_equal(np.concatenate(labels[:2]), split.labels)
    np.testing.assert_array_equal(labels[2], split.labels[:10])  # from the beginning again


def test_every_way_is_a_side_and_filling_a_cache_is_timed_apart(folder, data):
    sides, filling = inputs.sides(make_recipe(folder), data, with_notebook=True)
    assert [side.name for side in sides] == ["notebook", "decode", *inputs.WAYS]
    assert {side.photos_per_step for side in sides} == {BATCH}
    assert list(filling) == ["records", "pixels"]


def test_photos_are_repeated_under_new_ids(data):
    with repeated.repeated(data, 50) as place:
        larger = make_recipe(place).load_data(("train",))
        assert larger.class_names == data.class_names
        split, at_hand = larger.splits["train"], data.splits["train"]
        assert split.size == len(set(split.ids)) == 50
        assert len(split.shards) == 16
        np.testing.assert_array_equal(split.labels, np.resize(at_hand.labels, 50))
        np.testing.assert_array_equal(split.fingerprints, np.resize(at_hand.fingerprints, 50))
    assert not tf.io.gfile.exists(place)


def test_too_many_photos_are_refused_before_any_is_written(data):
    with (
        pytest.raises(RequestError, match=r"--many_photos=.* GB on disk"),
        repeated.repeated(data, 10**15),
    ):
        raise AssertionError


def test_the_repeated_data_set_is_one_of_the_layout(data):
    with repeated.repeated(data, 33) as place:
        counts = [shard.count for shard in find_shards(place, "train")]
    assert sum(counts) == 33 and max(counts) - min(counts) == 1
