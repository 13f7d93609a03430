import numpy as np
import pytest
import tensorflow as tf

from flowers_tpu.data import records
from flowers_tpu.data.shards import Shard, data_folder
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError

pytestmark = pytest.mark.core

SIZE = 16
CLASSES = 3
LABELS = [2, 0, 1, 1, 0, 2, 0]
IDS = [f"id{number}" for number in range(len(LABELS))]


def jpeg(height=SIZE, width=SIZE, channels=3):
    return tf.io.encode_jpeg(tf.zeros([height, width, channels], tf.uint8)).numpy()


def png():
    return tf.io.encode_png(tf.zeros([SIZE, SIZE, 3], tf.uint8)).numpy()


def bytes_feature(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(folder, split="train", labels=LABELS, num_shards=3, replaced=None):
    """Writes a split, one record replaced by other bytes where `replaced` says so."""
    serialized = [
        records.serialize_example(example_id, jpeg(), label)
        for example_id, label in zip(IDS, labels, strict=True)
    ]
    for number, content in (replaced or {}).items():
        serialized[number] = content
    return records.write_shards(str(folder / split), serialized, SIZE, num_shards)


def read(folder, split="train"):
    return read_split(str(folder), split, SIZE, CLASSES)


def error_of(folder, split="train"):
    with pytest.raises(RequestError) as caught:
        read(folder, split)
    return str(caught.value)


def file_names(folder):
    return sorted(path.name for path in folder.iterdir())


# What is written


def test_records_hold_the_features_of_the_competition():
    features = tf.train.Example.FromString(
        records.serialize_example("ab12", b"photo", 5)
    ).features.feature
    assert sorted(features) == ["class", "id", "image"]
    assert features["id"].bytes_list.value == [b"ab12"]
    assert features["image"].bytes_list.value == [b"photo"]
    assert features["class"].int64_list.value == [5]


def test_unlabeled_records_lack_the_class_and_parse_to_minus_one():
    serialized = records.serialize_example("ab12", b"photo", None)
    assert sorted(tf.train.Example.FromString(serialized).features.feature) == ["id", "image"]
    parsed = records.parse(tf.constant(serialized))
    assert parsed["label"].numpy() == -1
    assert parsed["label"].dtype == tf.int32
    assert parsed["id"].numpy() == b"ab12"
    assert parsed["image"].numpy() == b"photo"


@pytest.mark.parametrize(
    ("num_shards", "counts"), [(1, [7]), (2, [3, 4]), (3, [2, 2, 3]), (7, [1] * 7)]
)
def test_shards_are_nearly_equal_and_named_by_their_counts(tmp_path, num_shards, counts):
    paths = write(tmp_path, num_shards=num_shards)
    names = [f"{number:02d}-16x16-{count}.tfrec" for number, count in enumerate(counts)]
    assert paths == [str(tmp_path / "train" / name) for name in names]
    assert file_names(tmp_path / "train") == names


def test_a_write_that_fails_leaves_whole_shards_only(tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path, replaced={3: None})
    finished = [name for name in file_names(tmp_path / "train") if name.endswith(".tfrec")]
    assert finished == ["00-16x16-2.tfrec"]
    assert len(list(tf.data.TFRecordDataset(str(tmp_path / "train" / finished[0])))) == 2


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

SECOND = "01-16x16-2.tfrec"


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


def test_a_missing_split_is_refused(tmp_path):
    write(tmp_path)
    message = error_of(tmp_path, "val")
    assert f"{tmp_path / 'val'}: no such folder" in message
    assert "train, val and test" in message


def test_a_split_without_shards_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").touch()
    assert f"{tmp_path / 'train'}: holds no .tfrec file" in error_of(tmp_path)


def test_a_split_without_records_is_refused(tmp_path):
    records.write_shards(str(tmp_path / "train"), [], SIZE, 2)
    assert f"{tmp_path / 'train'}: its shards hold no records" in error_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["flowers.tfrec", "00-16x16.tfrec", "00-16x16-x.tfrec", "a-16x16-2.tfrec"]
)
def test_a_name_that_is_not_a_shards_is_refused(tmp_path, name):
    write(tmp_path)
    (tmp_path / "train" / SECOND).rename(tmp_path / "train" / name)
    message = error_of(tmp_path)
    assert f"{tmp_path / 'train' / name}: not a shard's name" in message
    assert "00-192x192-128.tfrec" in message


@pytest.mark.parametrize("size", ["15x15", "8x8", "16x32", "32x16"])
def test_photos_that_are_smaller_or_not_square_are_refused_by_name(tmp_path, size):
    write(tmp_path)
    (tmp_path / "train" / SECOND).rename(tmp_path / "train" / f"01-{size}-2.tfrec")
    message = error_of(tmp_path)
    assert f"01-{size}-2.tfrec: holds photos of {size} pixels by its name" in message
    assert "--image_size=16: photos must be square and not smaller" in message


def test_shards_of_a_split_must_have_photos_of_one_size(tmp_path):
    write(tmp_path)
    (tmp_path / "train" / SECOND).rename(tmp_path / "train" / "01-32x32-2.tfrec")
    message = error_of(tmp_path)
    assert "01-32x32-2.tfrec: holds photos of 32x32 pixels by its name" in message
    assert "00-16x16-2.tfrec of another size" in message


def test_larger_photos_than_the_model_sees_are_fine(tmp_path):
    write(tmp_path)
    split = read_split(str(tmp_path), "train", 9, CLASSES)
    assert split.ids.tolist() == IDS
    assert split.photo_size == 16
    assert [shard.image_size for shard in split.shards] == [16, 16, 16]
    with pytest.raises(RequestError, match=r"--image_size=17: .* not smaller"):
        read_split(str(tmp_path), "train", 17, CLASSES)


def test_photos_must_have_the_size_that_their_name_says_whatever_is_wanted(tmp_path):
    small = records.serialize_example("id3", jpeg(12, 12), 1)
    write(tmp_path, replaced={3: small})
    with pytest.raises(RequestError, match="id id3: a photo of 12x12 pixels, expected 16x16"):
        read_split(str(tmp_path), "train", 9, CLASSES)


# The folder


@pytest.mark.parametrize(
    ("image_size", "size"),
    [(331, 331), (192, 192), (512, 512), (193, 331), (224, 331), (332, 512), (100, 192)],
)
def test_the_folder_of_the_image_size_is_picked_or_of_the_next_larger_one(
    tmp_path, image_size, size
):
    for folder in (192, 331, 512):
        (tmp_path / f"tfrecords-jpeg-{folder}x{folder}").mkdir()
    folder = data_folder(str(tmp_path), image_size)
    assert folder == str(tmp_path / f"tfrecords-jpeg-{size}x{size}")


def test_photos_are_never_enlarged(tmp_path):
    for size in (192, 331, 512):
        (tmp_path / f"tfrecords-jpeg-{size}x{size}").mkdir()
    with pytest.raises(RequestError, match=r"--image_size=513: .* 192, 331 and 512 pixels"):
        data_folder(str(tmp_path), 513)


def test_a_folder_without_sizes_is_taken_as_it_is(tmp_path):
    (tmp_path / "train").mkdir()
    assert data_folder(str(tmp_path), 224) == str(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(RequestError, match=f"--data_dir={missing}: no such folder"):
        data_folder(str(missing), 224)
