"""Damage of every kind: refused by name, or left out so that nothing else changes."""

import struct

import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import check, order, pipeline, records
from flowers_tpu.data.shards import shard_reader
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError
from tests.photos import augment_photo, source_of

pytestmark = pytest.mark.core

SIZE = 16
CLASSES = 5
COUNTS = (3, 5, 4)
BAD = 4  # in file order: record 1 of the second shard, 01-16x16-5.tfrec
SECOND = "01-16x16-5.tfrec"


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit (RFC 3720)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes, length: int | None = None) -> bytes:
    """One record of a TFRecord file, with right checksums; `length`: the one it claims."""
    header = struct.pack("<Q", len(data) if length is None else length)
    return header + masked_crc(header) + data + masked_crc(data)


def soft_photo(number: int) -> np.ndarray:
    coarse = np.random.default_rng(number).uniform(0, 255, (3, 3, 3))
    return tf.cast(tf.image.resize(coarse, [SIZE, SIZE]), tf.uint8).numpy()


def jpeg(number: int = 0, **options) -> bytes:
    return tf.io.encode_jpeg(soft_photo(number), **options).numpy()


def with_header_of(side: int) -> bytes:
    """A JPEG whose header promises a square photo of another size."""
    content = bytearray(jpeg())
    start_of_frame = content.index(b"\xff\xc0")
    content[start_of_frame + 5 : start_of_frame + 9] = struct.pack(">HH", side, side)
    return bytes(content)


def cut(content: bytes) -> bytes:
    """A JPEG with all of its headers and a part of its pixels."""
    return content[: content.index(b"\xff\xda") + 40]


def good(number: int) -> bytes:
    return records.serialize_example(f"id{number}", jpeg(number), number % CLASSES)


def with_photo(content: bytes) -> bytes:
    return records.serialize_example("bad", content, 1)


def with_label(label: int | None) -> bytes:
    return records.serialize_example("bad", jpeg(), label)


def without(feature: str) -> bytes:
    example = tf.train.Example.FromString(with_photo(jpeg()))
    del example.features.feature[feature]
    return example.SerializeToString()


def write(folder, split="train", replaced=None, left_out=()):
    """Writes a split; records may be replaced, or left out in the same shards."""
    replaced, names, begin = replaced or {}, [], 0
    (folder / split).mkdir(parents=True)
    for shard, count in enumerate(COUNTS):
        numbers = range(begin, begin + count)
        begin += count
        frames = [
            frame(replaced[number] if number in replaced else good(number))
            for number in numbers
            if number not in left_out
        ]
        names.append(f"{shard:02d}-16x16-{len(frames)}.tfrec")
        (folder / split / names[-1]).write_bytes(b"".join(frames))
    return names


def read(folder, bad_records="fail", split="train"):
    return read_split(str(folder), split, CLASSES, bad_records=bad_records)


def error_of(folder, **options):
    with pytest.raises(RequestError) as caught:
        read(folder, **options)
    return str(caught.value)


def png() -> bytes:
    return tf.io.encode_png(soft_photo(0)).numpy()


RECORDS = {
    "garbage": (b"\xff" * 30, "", "not a tf.train.Example with the features"),
    "empty": (b"", "", "not a tf.train.Example with the features"),
    "no image": (without("image"), "", "not a tf.train.Example with the features `image`"),
    "no id": (without("id"), "", "not a tf.train.Example with the features `image` and `id`"),
    "no label": (without("class"), "bad", "no label, expected 0 to 4"),
    "text": (with_photo(b"a photo"), "bad", "no JPEG, or a damaged header: begins with b'a photo'"),
    "png": (with_photo(png()), "bad", r"begins with b'\x89PNG"),
    "start only": (with_photo(b"\xff\xd8\xff\xd9"), "bad", "no JPEG, or a damaged header"),
    "65,000 px": (
        with_photo(with_header_of(65_000)),
        "bad",
        "a photo of 65000x65000 pixels, expected 16x16",
    ),
    "other size": (with_photo(with_header_of(24)), "bad", "a photo of 24x24 pixels"),
    "label too large": (with_label(CLASSES), "bad", "label 5, expected 0 to 4; check --classes"),
    "negative label": (with_label(-7), "bad", "label -7, expected 0 to 4"),
    "label of 33 bits": (with_label(2**32), "bad", "expected 0 to 4"),
    "id of bytes": (
        good(0).replace(b"id0", b"\xff\xfe\x00"),
        "",
        r"its id is no text: b'\xff\xfe\x00'",
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_bad_record_is_refused_or_left_out(tmp_path, kind):
    content, example_id, found = RECORDS[kind]
    write(tmp_path, replaced={BAD: content})
    message = error_of(tmp_path)
    assert f"{tmp_path / 'train' / SECOND}: record 1 of 5 (counted from 0)" in message
    assert found in message
    assert not example_id or f"id {example_id}: " in message
    assert "--bad_records=skip" in message

    split = read(tmp_path, "skip")
    assert split.ids.tolist() == [f"id{n}" for n in range(12) if n != BAD]
    assert split.labels.tolist() == [n % CLASSES for n in range(12) if n != BAD]
    assert split.left_out == 1
    assert [shard.left_out for shard in split.shards] == [(), (1,), ()]
    assert [shard.count for shard in split.shards] == [3, 4, 4]
    (problem,) = split.problems
    assert problem.path.endswith(SECOND)
    assert problem.record == 1 and found in problem.found
    assert not example_id or problem.id == example_id


def test_damaged_pixels_pass_the_start_and_not_a_full_check(tmp_path):
    write(tmp_path, replaced={BAD: with_photo(cut(jpeg()))})
    known = read(tmp_path)
    assert known.size == 12
    (problem,) = check.new_problems(known, CLASSES)
    assert str(problem) == (
        f"{tmp_path / 'train' / SECOND}: record 1 of 5 (counted from 0), id bad: "
        "a JPEG whose pixels cannot be decoded: damaged or cut short"
    )
    split = read(tmp_path, "skip")
    assert (split.size, split.left_out, split.problems) == (11, 1, (problem,))
    assert not check.new_problems(split, CLASSES)


@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_greyscale_and_cmyk_photos_are_converted(tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    replaced, colours = {}, {1: ("L", 90), BAD: ("CMYK", (0, 255, 255, 0))}
    for number, (kind, colour) in colours.items():
        image.new(kind, (SIZE, SIZE), colour).save(tmp_path / "photo.jpg")
        content = (tmp_path / "photo.jpg").read_bytes()
        replaced[number] = records.serialize_example(f"id{number}", content, 1)
    write(tmp_path, replaced=replaced)
    split = read(tmp_path, mode)
    assert (split.size, split.left_out) == (12, 0)
    images = np.concatenate([batch["image"] for batch in evaluated(split)])
    np.testing.assert_allclose(images[1].mean((0, 1)), [90, 90, 90], atol=2)
    np.testing.assert_allclose(images[BAD].mean((0, 1)), [255, 0, 0], atol=3)
    assert len(trained(split)) == 6


def flip(offset):
    def damage(content):
        content[offset] ^= 1

    return damage


def keep(size):
    def damage(content):
        del content[size:]

    return damage


BEGIN = len(frame(good(3)))  # of record 1 in the second shard
CUT = "cut short or damaged: it says "
WRONG_CRC = "damaged: its checksum does not match"
HUGE = [2**40, 2**50, 2**62, 2**63 + 5, 2**64 - 1]


@pytest.mark.parametrize(
    ("damage", "record", "found"),
    [
        (flip(BEGIN), 1, WRONG_CRC),  # the length
        (flip(BEGIN + 7), 1, CUT),  # its highest byte
        (flip(BEGIN + 9), 1, WRONG_CRC),  # the length's checksum
        (flip(BEGIN + 99), 1, WRONG_CRC),  # the data
        (flip(2 * BEGIN - 2), 1, WRONG_CRC),  # the data's checksum
        (keep(BEGIN + 12), 1, CUT),
        (keep(BEGIN + 200), 1, CUT),
        (keep(BEGIN), None, "holds 1 records, but its name says 5"),
        (keep(BEGIN + 11), None, "holds 1 records, but its name says 5"),
        (keep(0), None, "holds 0 records, but its name says 5"),
    ],
)
def test_a_damaged_shard_is_refused_or_read_up_to_the_damage(tmp_path, damage, record, found):
    path = tmp_path / "train" / SECOND
    write(tmp_path)
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    readable = int(len(content) >= BEGIN)
    message = error_of(tmp_path)
    assert f"{path}: " in message and found in message
    if record is not None:
        assert "record 1 of 5 (counted from 0): " in message
        assert "the 3 records after it cannot be reached" in message
    split = read(tmp_path, "skip")
    assert split.ids.tolist() == [f"id{n}" for n in range(12) if not 3 + readable <= n < 8]
    assert split.left_out == 5 - readable
    (problem,) = split.problems
    assert problem.record == record


@pytest.mark.parametrize("length", HUGE)
def test_a_length_that_no_memory_holds(tmp_path, length):
    """With a right checksum, it ends the process of who asks TensorFlow's reader for it."""
    write(tmp_path)
    path = tmp_path / "train" / SECOND
    path.write_bytes(frame(good(3)) + frame(good(4), length) + frame(good(5)))
    assert f"record 1 of 5 (counted from 0): {CUT}{length} bytes" in error_of(tmp_path)
    split = read(tmp_path, "skip")
    assert split.left_out == 4
    assert len(evaluated(split)) == 2 and len(trained(split)) == 6


def test_records_that_a_name_does_not_promise(tmp_path):
    write(tmp_path)
    path = tmp_path / "train" / SECOND
    path.rename(path.with_name("01-16x16-3.tfrec"))
    assert "holds 5 records, but its name says 3; rename it" in error_of(tmp_path)
    split = read(tmp_path, "skip")
    assert split.ids.tolist() == [f"id{n}" for n in range(12) if n not in (6, 7)]
    assert split.left_out == 2 and split.shards[1].left_out == (3, 4)


@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_what_skipping_does_not_forgive(tmp_path, mode):
    write(tmp_path / "repeated", replaced={BAD: good(0)})
    message = error_of(tmp_path / "repeated", bad_records=mode)
    assert "id id0 stands in more than one record" in message
    write(tmp_path / "all", replaced=dict.fromkeys(range(12), b"bad"))
    message = error_of(tmp_path / "all", bad_records=mode)
    assert "record 0 of 3" in message
    write(tmp_path / "folder")
    (tmp_path / "folder" / "train" / "03-16x16-1.tfrec").mkdir()
    message = error_of(tmp_path / "folder", bad_records=mode)
    assert "03-16x16-1.tfrec: cannot be read" in message


def trained(split, **options):
    options = {"shuffle_buffer": 3, "first_step": 0, "num_steps": 6} | options
    dataset = pipeline.train_dataset(
        source_of(split),
        global_batch_size=2,
        local_batch_size=2,
        augment_photo=augment_photo(SIZE),
        seed=5,
        **options,
    )
    return list(dataset.as_numpy_iterator())[: options["num_steps"] - options["first_step"]]


def evaluated(split):
    dataset = pipeline.eval_dataset(source_of(split), global_batch_size=6, local_batch_size=6)
    return list(dataset.as_numpy_iterator())


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        for name in ("image", "label", "weight"):
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize("options", [{}, {"shuffle_buffer": 1}, {"first_step": 2, "num_steps": 13}])
def test_skipping_equals_a_data_set_without_the_bad_records(tmp_path, options):
    bad = [b"garbage", with_photo(png()), with_photo(cut(jpeg())), with_label(CLASSES)]
    numbers = (0, 4, 5, 7)
    names = write(tmp_path / "bad", replaced=dict(zip(numbers, bad, strict=True)))
    last = tmp_path / "bad" / "train" / names[-1]
    last.write_bytes(last.read_bytes()[:-1])  # damages record 11
    write(tmp_path / "without", left_out=(*numbers, 11))
    skipping, without_them = read(tmp_path / "bad", "skip"), read(tmp_path / "without")
    assert skipping.ids.tolist() == without_them.ids.tolist()
    assert skipping.labels.tolist() == without_them.labels.tolist()
    assert (skipping.size, skipping.left_out) == (7, 5)
    assert_same(evaluated(skipping), evaluated(without_them))
    assert_same(trained(skipping, **options), trained(without_them, **options))
    epochs = [
        order.epoch_indices(
            [shard.count for shard in split.shards], seed=5, epoch=1, shuffle_buffer=3
        ).tolist()
        for split in (skipping, without_them)
    ]
    assert epochs[0] == epochs[1]


def test_with_nothing_bad_the_way_of_a_photo_is_as_short_as_ever(tmp_path):
    write(tmp_path)
    failing, skipping = read(tmp_path), read(tmp_path, "skip")
    assert failing.shards == skipping.shards
    assert (skipping.left_out, skipping.problems) == (0, ())
    dataset = shard_reader(skipping.shards)(tf.constant(0, tf.int64))
    assert isinstance(dataset, tf.data.TFRecordDataset)


def test_the_list_of_bad_records(tmp_path):
    write(tmp_path, "train", replaced={BAD: with_photo(png()), 0: b"garbage"})
    write(tmp_path, "val", replaced={8: with_label(9)})
    train, val = (read(tmp_path, "skip", split) for split in ("train", "val"))
    lines = check.bad_records([train, val]).splitlines()
    assert lines[0] == "split,file,record,id,problem"
    assert lines[1].startswith("train,00-16x16-3.tfrec,0,,not a tf.train.Example")
    assert lines[2].startswith('train,01-16x16-5.tfrec,1,bad,"no JPEG')
    assert lines[3] == 'val,02-16x16-4.tfrec,0,bad,"label 9, expected 0 to 4; check --classes"'
    assert len(lines) == 4
    whole = check.bad_records([train, val])
    assert check.bad_records([val], known=whole) == whole
    assert check.bad_records([train], known=whole) == whole
    assert check.bad_records([train]).splitlines() == lines[:3]
