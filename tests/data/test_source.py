import functools
import pathlib
import shutil
import types

import numpy as np
import psutil
import pytest
import tensorflow as tf

from flowers_tpu.data import decode, pipeline, records, source
from flowers_tpu.data.shards import find_shards, shard_reader
from flowers_tpu.data.splits import Split, read_split
from flowers_tpu.system.errors import RequestError
from tests import photos

pytestmark = pytest.mark.core

SIZE, IMAGE_SIZE = 24, 10
COUNTS = (4, 0, 6, 3)
BAD = (1, 7)  # in file order
DECODERS = {
    "whole": decode.for_training(SIZE, SIZE, 0.7),
    "reduced": decode.for_training(SIZE, IMAGE_SIZE, 1.0),
    "resized": decode.for_evaluation(SIZE, IMAGE_SIZE),
}


def write(folder, name="train", labeled=True):
    """Shards, one of them empty; labels are the places in file order, left out ones included."""
    generator, number = np.random.default_rng(0), 0
    for shard, count in enumerate(COUNTS):
        with records.shard_writer(str(folder / name), shard, SIZE) as write_record:
            for _ in range(count):
                jpeg = photos.jpeg(photos.photo(generator, SIZE))
                content = b"damaged" if number in BAD else jpeg
                write_record(
                    records.serialize_example(f"id{number}", content, number if labeled else None)
                )
                number += 1
    return read_split(str(folder), name, sum(COUNTS), bad_records="skip")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    split = write(tmp_path_factory.mktemp("data"))
    assert (split.size, split.left_out) == (11, 2)
    return split


@pytest.fixture(scope="module")
def sources(split):
    """By cache and decoder."""
    return {
        (cache, name): make(split, decoder)
        for cache, make in source.MAKERS.items()
        for name, decoder in DECODERS.items()
    }


@pytest.fixture(scope="module")
def read_each_time(sources):
    """What training and evaluation see without a cache."""

    @functools.cache
    def batches(kind, decoder, **options):
        return kind(sources["none", decoder], **options)

    return batches


def trained(source, *, on_device=False, first_step=0):
    dataset = pipeline.train_dataset(
        source,
        global_batch_size=4,
        local_batch_size=2,
        augment_photo=None if on_device else photos.augment_photo(IMAGE_SIZE),
        seed=4,
        shuffle_buffer=3,
        first_step=first_step,
        num_steps=5,  # two and a half epochs
    )
    return list(dataset.as_numpy_iterator())


def evaluated(source):
    dataset = pipeline.eval_dataset(source, global_batch_size=4, local_batch_size=2)
    return list(dataset.as_numpy_iterator())


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], strict=True)


# The same batches


@pytest.mark.parametrize("cache", ["records", "pixels"])
@pytest.mark.parametrize(
    ("decoder", "first_step", "on_device"),
    [("whole", 0, False), ("whole", 3, True), ("reduced", 3, False), ("reduced", 0, True)],
)
def test_training_sees_the_same_whatever_is_kept(
    sources, read_each_time, cache, decoder, first_step, on_device
):
    options = {"first_step": first_step, "on_device": on_device}
    kept = trained(sources[cache, decoder], **options)
    assert_same(kept, read_each_time(trained, decoder, **options))
    assert len(kept) == (5 - first_step) * 2
    side = DECODERS[decoder].side if on_device else IMAGE_SIZE
    assert kept[0]["image"].shape == (2, side, side, 3)
    assert len({batch["image"].tobytes() for batch in kept}) > 1


@pytest.mark.parametrize("cache", ["records", "pixels"])
@pytest.mark.parametrize("decoder", ["whole", "resized"])
def test_an_evaluation_sees_the_same_whatever_is_kept(sources, read_each_time, cache, decoder):
    kept = evaluated(sources[cache, decoder])
    assert_same(kept, read_each_time(evaluated, decoder))
    labels = np.concatenate([batch["label"] for batch in kept])[:11]
    assert labels.tolist() == [n for n in range(13) if n not in BAD]


def in_file_order(made):
    return tf.data.Dataset.range(len(made.split.shards)).flat_map(made.elements)


@pytest.mark.parametrize("cache", source.MAKERS)
def test_unlabeled_photos_have_no_label_in_any(tmp_path, cache):
    split = write(tmp_path, "test", labeled=False)
    unlabeled = source.MAKERS[cache](split, DECODERS["whole"])
    for element in in_file_order(unlabeled):
        example = unlabeled.example(element)
        assert (example["label"].dtype, example["label"].numpy()) == (tf.int32, -1)


@pytest.mark.parametrize("cache", source.MAKERS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_examples_are_decoded_photos_with_their_labels(sources, split, cache, decoder):
    made = sources[cache, decoder]
    reader = shard_reader(split.shards)
    serialized = [record for n in range(len(COUNTS)) for record in reader(tf.constant(n, tf.int64))]
    assert len(serialized) == 11
    elements = list(in_file_order(made))
    for number, (element, record) in enumerate(zip(elements, serialized, strict=True)):
        example = made.example(element)
        expected = DECODERS[decoder](records.parse(record)["image"])
        np.testing.assert_array_equal(example["image"], expected)
        assert example["label"].dtype == tf.int32
        assert example["label"].numpy() == split.labels[number]
    assert made.side == DECODERS[decoder].side


def test_batches_are_gathered_at_once_from_pixels_alone(sources):
    made = sources["pixels", "whole"]
    numbers = tf.constant([10, 3, 3, 0], tf.int64)
    batch = made.examples(numbers)
    for place, number in enumerate(numbers):
        for name, value in made.example(number).items():
            np.testing.assert_array_equal(batch[name][place], value)
    assert sources["none", "whole"].examples is sources["records", "whole"].examples is None


# Memory


@pytest.mark.parametrize("cache", ["records", "pixels"])
def test_what_is_kept_is_not_read_again(tmp_path, read_each_time, cache):
    made = source.MAKERS[cache](write(tmp_path), DECODERS["whole"])
    shutil.rmtree(tmp_path / "train")
    assert_same(
        trained(made, on_device=True, first_step=3),
        read_each_time(trained, "whole", first_step=3, on_device=True),
    )
    assert_same(evaluated(made), read_each_time(evaluated, "whole"))


@pytest.mark.parametrize(
    ("cache", "decodes"), [("none", True), ("records", True), ("pixels", False)]
)
def test_pixels_are_not_decoded_again(sources, cache, decodes):
    made = sources[cache, "whole"]
    element = next(iter(in_file_order(made)))
    graph = tf.function(made.example).get_concrete_function(element).graph
    assert ("DecodeJpeg" in {operation.type for operation in graph.get_operations()}) == decodes


def test_the_memory_of_the_competitions_photos():
    split = Split(
        "train", (), np.arange(12_753).astype(str), None, jpeg_sizes=np.full(12_753, 83_000)
    )
    assert source.bytes_of("pixels", split, decode.for_evaluation(512, 512)) == 10_029_367_296
    assert source.bytes_of("pixels", split, decode.for_evaluation(512, 192)) == 1_410_379_776
    # Photos for training are kept as the decoder reduces them: here to 256 pixels.
    assert source.bytes_of("pixels", split, decode.for_training(512, 170, 0.7)) == 2_507_341_824
    assert source.bytes_of("records", split, decode.for_evaluation(512, 512)) == 1_058_499_000


def test_the_sizes_of_the_records_are_those_of_their_jpegs(split):
    reader = shard_reader(split.shards)
    sizes = [
        len(records.parse(record)["image"].numpy())
        for n in range(len(COUNTS))
        for record in reader(tf.constant(n, tf.int64))
    ]
    assert split.jpeg_sizes.tolist() == sizes
    assert source.bytes_of("records", split, DECODERS["whole"]) == sum(sizes)


def test_the_memory_of_pixels_is_what_is_kept(sources, split):
    made = sources["pixels", "reduced"]
    kept = made.examples(tf.range(split.size, dtype=tf.int64))["image"]
    assert kept.numpy().nbytes == source.bytes_of("pixels", split, DECODERS["reduced"])


def memory(key: str) -> int:
    """Of this process, bytes: VmRSS now, VmHWM at most since it was reset."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


@pytest.mark.parametrize("cache", ["records", "pixels"])
def test_nothing_is_in_memory_twice_while_it_is_read(tmp_path, cache):
    reset = pathlib.Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("needs Linux, which tells the most memory a process has had")
    size, count = 192, 1000
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    serialized = records.serialize_example("id", photos.jpeg(noise), 0)  # 70 kB
    records.write_shards(str(tmp_path / "train"), [serialized] * count, size, 4)
    shards = find_shards(str(tmp_path), "train")
    split = Split(
        "train", shards, np.full(count, "id"), np.zeros(count, np.int32),
        jpeg_sizes=np.full(count, len(serialized)),
    )  # fmt: skip
    decoder = decode.for_evaluation(size, size)
    needed = source.bytes_of(cache, split, decoder)
    before = memory("VmRSS")
    reset.write_text("5")
    made = source.MAKERS[cache](split, decoder)
    taken = memory("VmHWM") - before
    assert made.split.size == count
    assert taken < 1.5 * needed, (taken, needed)


@pytest.mark.parametrize("cache", ["records", "pixels"])
def test_too_little_memory_is_refused_with_both_numbers(monkeypatch, cache):
    available = types.SimpleNamespace(available=10_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    source.check_memory(cache, 9_000_000_000)
    with pytest.raises(RequestError) as caught:
        source.check_memory(cache, 9_100_000_000)
    message = str(caught.value)
    assert f"--cache={cache} needs 9.1 GB, but 10.0 GB of memory are available" in message
    assert "--cache=none" in message and "--image_size" in message
    assert ("--cache=records or" in message) == (cache == "pixels")


def test_without_a_cache_any_memory_will_do(monkeypatch, split):
    nothing = types.SimpleNamespace(available=0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: nothing)
    needed = source.bytes_of("none", split, DECODERS["whole"])
    assert needed == 0
    source.check_memory("none", needed)
