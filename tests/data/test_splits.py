import numpy as np
import pytest

from flowers_tpu.data import records
from flowers_tpu.data.shards import Shard
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError
from tests.data.small_split import (
    CLASSES,
    IDS,
    LABELS,
    SECOND,
    SIZE,
    bytes_feature,
    error_of,
    example,
    jpeg,
    png,
    read,
    write,
)

pytestmark = pytest.mark.core


# What is read


def test_a_labeled_split_comes_back_in_file_order(tmp_path):
    paths = write(tmp_path)
    split = read(tmp_path)
    assert split.name == "train"
    assert split.size == 7
    assert split.shards == tuple(
        Shard(path, SIZE, count) for path, count in zip(paths, [2, 2, 3], strict=True)
    )
    assert split.ids.tolist() == IDS
    assert split.labels.tolist() == LABELS
    assert split.labels.dtype == np.int32


@pytest.mark.parametrize("labels", [[None] * 7, [9] * 7])
def test_the_test_split_has_no_labels_whatever_it_holds(tmp_path, labels):
    write(tmp_path, "test", labels)
    split = read(tmp_path, "test")
    assert split.labels is None
    assert split.ids.tolist() == IDS


def test_an_empty_shard_among_others_is_fine(tmp_path):
    write(tmp_path)
    records.write_shards(str(tmp_path / "empty"), [], SIZE, 1)
    (tmp_path / "empty" / "00-16x16-0.tfrec").rename(tmp_path / "train" / "99-16x16-0.tfrec")
    assert read(tmp_path).ids.tolist() == IDS


def test_files_that_are_no_shards_are_passed_over(tmp_path):
    write(tmp_path)
    (tmp_path / "train" / "00-16x16-2.tfrec.part").write_bytes(b"half")
    assert read(tmp_path).size == 7


def test_greyscale_photos_are_fine(tmp_path):
    write(tmp_path, replaced={3: records.serialize_example("grey", jpeg(channels=1), 1)})
    assert read(tmp_path).ids[3] == "grey"


def test_cmyk_photos_are_fine(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "photo.jpg"
    image.new("CMYK", (SIZE, SIZE)).save(path)
    write(tmp_path, replaced={3: records.serialize_example("cmyk", path.read_bytes(), 1)})
    assert read(tmp_path).ids[3] == "cmyk"


# What is refused. Record 1 of the second shard of 00-…-2, 01-…-2, 02-…-3 is record 3 of all.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"garbage", ["not a tf.train.Example", "`image`", "`id`"]),
        (example(id=bytes_feature(b"id3")), ["not a tf.train.Example", "`image`", "`id`"]),
        (example(image=bytes_feature(jpeg())), ["not a tf.train.Example", "`image`", "`id`"]),
        (
            example(
                image=bytes_feature(jpeg()),
                id=bytes_feature(b"id3"),
                **{"class": bytes_feature(b"1")},
            ),
            ["not a tf.train.Example", "`class` (int)"],
        ),
        (records.serialize_example("id3", png(), 1), ["id id3", "no JPEG", r"b'\x89PNG"]),
        (records.serialize_example("id3", b"", 1), ["id id3", "no JPEG", "b''"]),
        (records.serialize_example("id3", jpeg(), 3), ["id id3", "label 3, expected 0 to 2"]),
        (records.serialize_example("id3", jpeg(), -2), ["id id3", "label -2, expected 0 to 2"]),
        (records.serialize_example("id3", jpeg(), 2**32), ["id id3", "expected 0 to 2"]),
        (records.serialize_example("id3", jpeg(), None), ["id id3", "no label, expected 0 to 2"]),
        (
            records.serialize_example("id3", jpeg(24, 24), 1),
            ["id id3", "24x24 pixels, expected 16x16"],
        ),
        (
            records.serialize_example("id3", jpeg(16, 24), 1),
            ["id id3", "16x24 pixels, expected 16x16"],
        ),
    ],
    ids=[
        *("garbage", "no image", "no id", "class of bytes", "png", "no bytes"),
        *("label too large", "label negative", "label beyond int32", "no label"),
        *("other size", "not square"),
    ],
)
def test_a_wrong_record_is_named_with_what_is_wrong(tmp_path, content, expected):
    write(tmp_path, replaced={3: content})
    message = error_of(tmp_path)
    assert str(tmp_path / "train" / SECOND) in message
    assert "record 1 " in message
    for part in expected:
        assert part in message


# A record is its length (8 bytes), the length's checksum (4), its data and their checksum (4).
@pytest.mark.parametrize("offset", [0, 7, 11, 12, -5, -1])
def test_a_flipped_byte_is_found(tmp_path, offset):
    write(tmp_path)
    path = tmp_path / "train" / SECOND
    content = bytearray(path.read_bytes())
    record_bytes = len(content) // 2
    content[record_bytes + offset if offset >= 0 else offset] ^= 1
    path.write_bytes(content)
    message = error_of(tmp_path)
    assert str(path) in message
    assert "record 1 of 2 " in message
    assert "damaged" in message


@pytest.mark.parametrize("missing", [1, 4, 100])
def test_a_record_cut_short_is_found(tmp_path, missing):
    write(tmp_path)
    path = tmp_path / "train" / SECOND
    path.write_bytes(path.read_bytes()[:-missing])
    message = error_of(tmp_path)
    assert str(path) in message
    assert "record 1 of 2 " in message
    assert "cut short" in message


# A rest shorter than a length and its checksum is taken for the end of the file.
@pytest.mark.parametrize(("kept", "rest"), [(0, 0), (1, 0), (1, 11)])
def test_a_file_with_fewer_records_than_its_name_says_is_refused(tmp_path, kept, rest):
    write(tmp_path)
    path = tmp_path / "train" / SECOND
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 * kept + rest])
    assert f"{path}: holds {kept} records, but its name says 2" in error_of(tmp_path)


def test_a_file_with_more_records_than_its_name_says_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "train" / SECOND
    path.rename(path.with_name("01-16x16-1.tfrec"))
    assert "01-16x16-1.tfrec: holds 2 records, but its name says 1" in error_of(tmp_path)


@pytest.mark.parametrize(("number", "first_shard"), [(4, "02-16x16-3.tfrec"), (0, "00-16x16-2")])
def test_ids_must_be_distinct_within_and_between_shards(tmp_path, number, first_shard):
    repeated = records.serialize_example(f"id{number}", jpeg(), 1)
    write(tmp_path, "test", [None] * 7, replaced={6: repeated})
    message = error_of(tmp_path, "test")
    assert f"id id{number} stands in more than one record" in message
    assert f"{first_shard}" in message.partition(" and ")[0]
    assert "02-16x16-3.tfrec" in message.partition(" and ")[2]


def test_a_split_without_records_is_refused(tmp_path):
    records.write_shards(str(tmp_path / "train"), [], SIZE, 2)
    assert f"{tmp_path / 'train'}: its shards hold no records" in error_of(tmp_path)


def test_photos_must_have_the_size_that_their_name_says_whatever_is_wanted(tmp_path):
    small = records.serialize_example("id3", jpeg(12, 12), 1)
    write(tmp_path, replaced={3: small})
    with pytest.raises(RequestError, match="id id3: a photo of 12x12 pixels, expected 16x16"):
        read_split(str(tmp_path), "train", CLASSES)
