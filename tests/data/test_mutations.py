"""Hundreds of random damages: each one is refused or counted, and nothing else is lost.

What must come out is told by a reader of the file format that is written here, and by the plain
protocol buffer, photo by photo.
"""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import check, pipeline, records, verify
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError
from tests.data.test_bad_records import frame, jpeg, masked_crc, png, with_header_of
from tests.photos import augment_photo, source_of

SIZE = 16
CLASSES = 5
PER_SHARD = 2
RECORD_MUTATIONS = 400
SHARD_MUTATIONS = 200
ONE_BY_ONE = 150  # of all of them

JPEGS = [jpeg(number) for number in range(8)]


# What is done to a record, whose checksums are right. Each function gets (bytes, generator).


def flip(content, rng, times=1):
    content = bytearray(content)
    for place in rng.integers(0, len(content), times):
        content[place] ^= rng.integers(1, 256)
    return bytes(content)


def flip_many(content, rng):
    return flip(content, rng, times=10)


def truncate(content, rng):
    return content[: rng.integers(0, len(content))]


def insert(content, rng):
    place = rng.integers(0, len(content))
    return content[:place] + rng.bytes(rng.integers(1, 20)) + content[place:]


def delete(content, rng):
    begin, end = sorted(rng.integers(0, len(content), 2))
    return content[:begin] + content[end + 1 :]


def zero(content, rng):
    begin, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:begin] + bytes(end - begin) + content[end:]


def garbage(content, rng):
    return rng.bytes(rng.integers(1, 300))


def in_features(change):
    def mutate(content, rng):
        example = tf.train.Example.FromString(content)
        change(example.features.feature, rng)
        return example.SerializeToString()

    mutate.__name__ = change.__name__
    return mutate


@in_features
def remove_feature(features, rng):
    del features[rng.choice(["image", "id", "class"])]


@in_features
def change_type(features, rng):
    name = rng.choice(["image", "id", "class"])
    features[name].Clear()
    features[name].float_list.value.append(1.5)


@in_features
def repeat_value(features, rng):
    features["image"].bytes_list.value.append(b"another")


@in_features
def change_label(features, rng):
    features["class"].int64_list.value[0] = int(rng.integers(-(2**63), 2**63 - 1))


def in_jpeg(change):
    @in_features
    def mutate(features, rng):
        photo = features["image"].bytes_list.value
        photo[0] = change(photo[0], rng)

    mutate.__name__ = f"{change.__name__}_jpeg"
    return mutate


def other_photo(content, rng):
    others = [JPEGS[rng.integers(8)], png(), b"", with_header_of(65_000), with_header_of(17)]
    return others[rng.integers(len(others))]


def flip_header(content, rng):
    return flip(content[:170], rng) + content[170:]


OF_RECORDS = [
    *(flip, flip_many, truncate, insert, delete, zero, garbage),
    *(remove_feature, change_type, repeat_value, change_label),
    *map(in_jpeg, (flip, flip_many, truncate, insert, delete, zero, other_photo, flip_header)),
]


# What is done to a whole shard: functions of (bytes, generator) again.


def any_length(content, rng):
    """A random length with its right checksum, in the first record."""
    header = (int.from_bytes(rng.bytes(8), "little") >> int(rng.integers(64))).to_bytes(8, "little")
    return header + masked_crc(header) + content[12:]


def any_length_bytes(content, rng):
    return rng.bytes(8) + content[8:]


def append(content, rng):
    return content + rng.bytes(rng.integers(1, 100))


def drop_first(content, rng):
    return content[16 + int.from_bytes(content[:8], "little") :]


OF_SHARDS = [
    *(flip, truncate, insert, delete, zero, append, garbage),
    *(any_length, any_length_bytes, drop_first),
]


# What must come out.


def frames(content):
    """The records of a TFRecord file up to the first that is damaged."""
    begin, found = 0, []
    while begin + 12 <= len(content):
        header = content[begin : begin + 8]
        end = begin + 12 + int.from_bytes(header, "little")
        data = content[begin + 12 : end]
        if content[begin + 8 : begin + 12] != masked_crc(header) or end + 4 > len(content):
            break
        if content[end : end + 4] != masked_crc(data):
            break
        found.append(data)
        begin = end + 4
    return found


def usable(content):
    """The id and label of a record that can be used, else None."""
    try:
        features = tf.train.Example.FromString(content).features.feature
        (example_id,) = features["id"].bytes_list.value
        (photo,) = features["image"].bytes_list.value
        (label,) = features["class"].int64_list.value
        example_id = example_id.decode()
    except Exception:  # protocol buffers differ in what they raise
        return None
    if not (0 <= label < CLASSES and example_id and example_id.isprintable()):
        return None
    try:
        if tf.io.extract_jpeg_shape(photo)[:2].numpy().tolist() != [SIZE, SIZE]:
            return None
        tf.io.decode_jpeg(photo, channels=3)
    except tf.errors.OpError:
        return None
    return example_id, label


def fresh_records():
    """Yields as many sound records as are asked for, no two the same."""
    for number in range(10_000):
        example_id = np.random.default_rng([1, number]).bytes(6).hex()
        yield records.serialize_example(example_id, JPEGS[number % 8], number % CLASSES)


@pytest.fixture(scope="module")
def shards():
    """Pairs of what was done to a shard and its content: first those of a damaged record each."""
    rng, fresh = np.random.default_rng(20), fresh_records()
    found = []
    for mutation in itertools.islice(itertools.cycle(OF_RECORDS), RECORD_MUTATIONS):
        contents = [mutation(next(fresh), rng), next(fresh)]
        found.append((f"record: {mutation.__name__}", b"".join(map(frame, contents))))
    for mutation in itertools.islice(itertools.cycle(OF_SHARDS), SHARD_MUTATIONS):
        whole = b"".join(frame(next(fresh)) for _ in range(PER_SHARD))
        found.append((f"shard: {mutation.__name__}", mutation(whole, rng)))
    return found


def write(folder, contents):
    (folder / "train").mkdir(parents=True)
    for number, content in enumerate(contents):
        (folder / "train" / f"{number:03d}-16x16-{PER_SHARD}.tfrec").write_bytes(content)


def read(folder, bad_records):
    return read_split(str(folder), "train", CLASSES, bad_records=bad_records)


def evaluate(split):
    """The labels of all that an evaluation sees."""
    dataset = pipeline.eval_dataset(source_of(split), global_batch_size=32, local_batch_size=32)
    batches = list(dataset.as_numpy_iterator())
    labels, weights = (np.concatenate([b[name] for b in batches]) for name in ("label", "weight"))
    return labels[weights == 1]


def train_one_epoch(split):
    steps = split.size // 16
    dataset = pipeline.train_dataset(
        source_of(split),
        global_batch_size=16,
        local_batch_size=16,
        augment_photo=augment_photo(SIZE),
        seed=0,
        shuffle_buffer=100,
        num_steps=steps,
    )
    return sum(len(batch["label"]) for batch in dataset.take(steps).as_numpy_iterator())


def test_mutations_are_left_out_and_counted(tmp_path, shards):
    assert RECORD_MUTATIONS + SHARD_MUTATIONS >= 500
    write(tmp_path, [content for _, content in shards])
    split = read(tmp_path, "skip")
    expected, outcomes = [], collections.Counter()
    for shard, (name, content) in zip(split.shards, shards, strict=True):
        found = frames(content)
        good = [usable(data) for data in found[:PER_SHARD]]
        kept = [number for number, outcome in enumerate(good) if outcome]
        expected += [outcome for outcome in good if outcome]
        total = max(PER_SHARD, len(found))
        assert shard.count == len(kept), (name, shard)
        assert shard.left_out == tuple(n for n in range(total) if n not in kept), (name, shard)
        outcomes[name.split(":")[0], "left out" if shard.left_out else "harmless"] += 1
    assert list(zip(split.ids, split.labels, strict=True)) == expected
    assert split.size + split.left_out == sum(max(PER_SHARD, len(frames(c))) for _, c in shards)
    np.testing.assert_array_equal(evaluate(split), split.labels)
    assert train_one_epoch(split) == split.size // 16 * 16
    assert min(outcomes.values()) > 0 and len(outcomes) == 4, outcomes


def test_mutations_one_by_one_are_refused_or_harmless_or_named_later(tmp_path, shards):
    outcomes = collections.Counter()
    for number in range(0, len(shards), -(-len(shards) // ONE_BY_ONE)):
        name, content = shards[number]
        folder = tmp_path / str(number)
        write(folder, [content])
        found = frames(content)
        good = [usable(data) for data in found]
        all_well = len(found) == PER_SHARD and all(good)
        try:
            split = read(folder, "fail")
        except RequestError as error:
            assert not all_well, name
            assert f"000-16x16-{PER_SHARD}.tfrec: " in str(error), name
            outcomes["refused"] += 1
            continue
        assert split.size == PER_SHARD, name
        try:
            labels = evaluate(split)
        except verify.ERRORS:
            problems = check.new_problems(split, CLASSES)
            assert [p.record for p in problems] == [n for n, g in enumerate(good) if not g], name
            outcomes["named later"] += 1
        else:
            assert all_well, name
            assert labels.tolist() == [label for _, label in good], name
            outcomes["harmless"] += 1
    assert min(outcomes[name] for name in ("refused", "named later", "harmless")) > 0
