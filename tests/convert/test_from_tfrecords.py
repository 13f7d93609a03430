"""Data sets of TFRecords as others write them."""

import io

import pytest
import tensorflow as tf
from PIL import Image

from flowers_tpu.data import classes
from flowers_tpu.data.shards import data_folder
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError
from tests.convert.converting import make, photos_of, table
from tests.photos import write_data_set

NAMES = ("daisy", "rose", "tulip")
SIZE = 24


def picture(label, number, kind="JPEG", size=(40, 30)):
    """Its colour says its class."""
    buffer = io.BytesIO()
    colour = (60 * label + 40, 10 * number, 90)
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def feature(value):
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def write(path, records, compression=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            named = {name: feature(value) for name, value in record.items()}
            example = tf.train.Example(features=tf.train.Features(feature=named))
            writer.write(example.SerializeToString())


def convert(tmp_path, **flags):
    return make(
        tmp_path / "data", from_tfrecords=str(tmp_path / "records"), sizes=str(SIZE), **flags
    )


def seen(output, split, names=NAMES, **how):
    """The ids of a split with the names of their classes; their colours must agree."""
    folder = data_folder(str(output), SIZE)
    assert classes.read_classes(f"{folder}/classes.txt") == names
    found = read_split(folder, split, len(names), **how)
    pixels = photos_of(output, split, SIZE)
    if found.labels is None:
        return dict.fromkeys(found.ids.tolist())
    for example_id, label in zip(found.ids, found.labels, strict=True):
        red = pixels[example_id].mean((0, 1))[0]
        assert abs(red - (60 * NAMES.index(names[label]) + 40)) < 4
    return dict(zip(found.ids.tolist(), (names[label] for label in found.labels), strict=True))


def test_the_competitions_layout(tmp_path):
    write_data_set(tmp_path / "records" / "tfrecords-jpeg-32x32", size=32)
    write_data_set(tmp_path / "records" / "tfrecords-jpeg-24x24", size=24)
    output = make(tmp_path / "data", from_tfrecords=str(tmp_path / "records"), sizes="32,16")
    for split, count in (("train", 24), ("val", 9), ("test", 5)):
        made = read_split(data_folder(str(output), 32), split, 3)
        given = read_split(str(tmp_path / "records" / "tfrecords-jpeg-32x32"), split, 3)
        assert len(made.ids) == count
        numbers = dict(zip(given.ids, given.fingerprints, strict=True))
        assert dict(zip(made.ids, made.fingerprints, strict=True)) == numbers  # the very same bytes
        if split != "test":
            labels = dict(zip(given.ids, given.labels, strict=True))
            assert dict(zip(made.ids, made.labels, strict=True)) == labels
    names = (f"class {n}" for n in range(3))
    assert classes.read_classes(f"{data_folder(str(output), 32)}/classes.txt") == tuple(names)
    assert read_split(data_folder(str(output), 16), "train", 3).photo_size == 16


def test_the_codelabs_layout(tmp_path):
    """One folder without splits, no ids, names and one-hot beside the numbers."""
    for shard in range(2):
        write(
            tmp_path / "records" / f"flowers{shard:02d}-6.tfrec",
            [
                {
                    "image": picture(label, 6 * shard + n),
                    "class": label,
                    "label": NAMES[label].encode(),
                    "size": [40, 30],
                    "one_hot_class": [float(label == other) for other in range(3)],
                }
                for n, label in enumerate([0, 1, 2, 2, 1, 0])
            ],
        )
    output = convert(tmp_path, val_fraction=0.25, test_fraction=0.25)
    found = {split: seen(output, split) for split in ("train", "val", "test")}
    assert [len(ids) for ids in found.values()] == [6, 3, 3]
    assert sorted(found["train"].values()) == sorted(NAMES * 2)
    assert all("flowers0" in example_id for ids in found.values() for example_id in ids)


def test_the_layout_of_tensorflows_dataset_tools(tmp_path):
    """Labels from 1 with their names, PNG among JPEG, an id that is a file's name."""
    for split, count in (("train", 6), ("validation", 3)):
        records = [
            {
                "image/encoded": picture(n % 3, n, "PNG" if n % 2 else "JPEG"),
                "image/format": b"png" if n % 2 else b"jpeg",
                "image/class/label": n % 3 + 1,
                "image/class/text": NAMES[n % 3].encode(),
                "image/filename": f"photos/{split}_{n}.jpg".encode(),
                "image/height": 30,
            }
            for n in range(count)
        ]
        write(tmp_path / "records" / f"flowers_{split}-00000-of-00001", records)
    output = convert(tmp_path)
    assert seen(output, "train") == {f"train_{n}": NAMES[n % 3] for n in range(6)}
    assert seen(output, "val") == {f"validation_{n}": NAMES[n % 3] for n in range(3)}


def test_tensorflow_datasets(tmp_path):
    """Files beside the shards have the names."""
    for split, begin in (("train", 0), ("test", 6)):
        numbers = range(begin, begin + 6)
        records = [{"image": picture(n % 3, n, "PNG"), "label": n % 3} for n in numbers]
        write(tmp_path / "records" / f"flowers-{split}.tfrecord-00000-of-00001", records)
    (tmp_path / "records" / "label.labels.txt").write_text("\n".join(NAMES))
    (tmp_path / "records" / "dataset_info.json").write_text("{}")
    output = convert(tmp_path, val_fraction=0.5, test_labels=True)
    assert sorted(seen(output, "train").values()) == sorted(NAMES)
    assert sorted(seen(output, "val").values()) == sorted(NAMES)
    assert sorted(seen(output, "test", has_labels=True).values()) == sorted(NAMES * 2)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_shards_are_read(tmp_path, compression):
    records = [{"image": picture(n % 3, n), "class": n % 3, "id": b"a%d" % n} for n in range(6)]
    write(tmp_path / "records" / "a.tfrecord.gz", records, compression)
    output = convert(tmp_path, classes=names_file(tmp_path), val_fraction=0.0, test_fraction=0.0)
    assert seen(output, "train") == {f"a{n}": NAMES[n % 3] for n in range(6)}


def names_file(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return str(tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (lambda n: n, {}),
        (lambda n: n + 1, {}),
        (lambda n: [float(n == other) for other in range(3)], {}),
        (lambda n: [int(n == other) for other in range(3)], {}),
        (lambda n: NAMES[n].encode(), {}),
        (lambda n: b"%d" % n, {}),
        (lambda n: float(n), {}),
    ],
)
def test_every_way_to_write_a_class(tmp_path, value, flags):
    records = [{"a/photo": picture(n, n), "a/class": value(n), "key": 70 + n} for n in range(3)]
    write(tmp_path / "records" / "x", records)
    flags = {"image_feature": "a/photo", "label_feature": "a/class", "id_feature": "key"}
    fractions = {"val_fraction": 0.0, "test_fraction": 0.0}
    output = convert(tmp_path, classes=names_file(tmp_path), **flags, **fractions)
    assert seen(output, "train") == {"70": "daisy", "71": "rose", "72": "tulip"}


def test_names_with_numbers_before_them(tmp_path):
    records = [{"image": picture(n, n), "label": n} for n in range(3)]
    write(tmp_path / "records" / "a.tfrecords", records)
    (tmp_path / "records" / "labels.txt").write_text("2:tulip\n0:daisy\n1:rose\n")
    output = convert(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert sorted(seen(output, "train").values()) == sorted(NAMES)


def test_without_names_classes_are_called_by_their_numbers(tmp_path):
    records = [{"image": picture(n % 3, n), "label": 8 + n % 3} for n in range(6)]
    write(tmp_path / "records" / "a.tfrecords", records)
    output = convert(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert table(output, "class_counts")["class"].tolist() == [8, 9, 10]


def test_repeated_ids_are_made_of_the_shards(tmp_path):
    records = [{"image": picture(n, n), "label": n, "id": b"same"} for n in range(3)]
    write(tmp_path / "records" / "train" / "a.tfrec", records)
    output = convert(tmp_path, test_fraction=0.0, val_fraction=0.0)
    assert sorted(table(output, "photos")["id"]) == [f"train-a.tfrec-00000{n}" for n in range(3)]


def test_photos_that_cannot_be_read_are_named_by_shard_and_number(tmp_path):
    records = [{"image": picture(n % 2, n), "label": n % 2} for n in range(4)]
    records[2]["image"] = b"no picture"
    write(tmp_path / "records" / "a.tfrecord", records)
    output = convert(tmp_path, test_fraction=0.0, val_fraction=0.0)
    assert table(output, "unreadable").to_numpy().tolist() == [
        ["a.tfrecord/000002", "no picture that Pillow can read"]
    ]
    assert not list(output.glob("unpacked*"))
    with pytest.raises(RequestError, match=r"a.tfrecord/000002: no picture"):
        make(tmp_path / "b", from_tfrecords=str(tmp_path / "records"), sizes="16", strict=True)


def test_only_a_jpeg_of_just_the_size_is_kept_as_it_is(tmp_path):
    small, turned = picture(0, 0, size=(SIZE, SIZE)), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIZE, SIZE)).save(turned, "JPEG", exif=exif)
    photos = [small, turned.getvalue(), picture(1, 1, "PNG", (SIZE, SIZE)), picture(1, 2)]
    records = [{"image": p, "label": n % 2, "id": b"%d" % n} for n, p in enumerate(photos)]
    write(tmp_path / "records" / "a", records)
    output = convert(tmp_path, test_fraction=0.0, val_fraction=0.0)
    shards = [str(path) for path in (output / f"tfrecords-jpeg-{SIZE}x{SIZE}").glob("train/*")]
    kept = {}
    for record in tf.data.TFRecordDataset(shards):
        found = tf.train.Example.FromString(record.numpy()).features.feature
        kept[found["id"].bytes_list.value[0]] = found["image"].bytes_list.value[0]
    assert [kept[b"%d" % n] == photo for n, photo in enumerate(photos)] == [True, *[False] * 3]
    assert all(photo.startswith(b"\xff\xd8\xff") for photo in kept.values())


@pytest.mark.parametrize(
    ("record", "flags", "message"),
    [
        ({"pixels": b"x", "label": 0}, {}, r"a, record 0 .*`label` \(int\), `pixels` \(bytes\), "
         "none of which is known for a photo; give --image_feature"),
        ({"image": b"x", "kind": 1}, {}, "known for a class; give --label_feature"),
        ({"image": b"x", "label": 0}, {"image_feature": "img"}, "but no `img` .--image_feature"),
        ({"image": b"x", "label": 0}, {"label_feature": "c"}, "but no `c` .--label_feature"),
        ({"image": b"x", "label": 0}, {"id_feature": "c"}, "but no `c` .--id_feature"),
        ({"image": b"x", "label": [1, 1]}, {}, "`label` is 1, 1; expected one number, one name"),
        ({"image": b"x", "label": [0.5, 0.5]}, {}, "`label` is 0.5, 0.5"),
        ({"image": [b"x", b"y"], "label": 0}, {}, "`image` is no photo as bytes; .*2 × bytes"),
        ({"image": [0, 255], "label": 0}, {}, "none of which is known for a photo"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_records_is_named(tmp_path, record, flags, message):
    write(tmp_path / "records" / "a", [record])
    with pytest.raises(RequestError, match=message):
        convert(tmp_path, **flags)
    assert not (tmp_path / "data").exists() and not (tmp_path / "data.part").exists()


def test_a_label_beyond_the_names_is_named(tmp_path):
    write(tmp_path / "records" / "a", [{"image": picture(0, 0), "label": 3}])
    with pytest.raises(RequestError, match="label 3, but there are 3 names of classes"):
        convert(tmp_path, classes=names_file(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tfrec", b"version https://git-lfs.github.com/spec/v1\n", "a.tfrec: is a Git LFS"),
        ("train-00000-of-00001", b"<html>", "is a web page"),
        ("a.tfrecord", b"\1" * 50, "holds no TFRecords, or its first is damaged"),
        ("a.zip", b"PK\3\4", "no file in it holds TFRecords; photos go by --photos"),
    ],
)
def test_what_is_no_shard_is_named(tmp_path, name, content, message):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / name).write_bytes(content)
    with pytest.raises(RequestError, match=message):
        convert(tmp_path)


def test_a_damaged_shard_is_named(tmp_path):
    records = [{"image": picture(n, n), "label": n} for n in range(3)]
    write(tmp_path / "records" / "a.tfrec", records)
    content = bytearray((tmp_path / "records" / "a.tfrec").read_bytes())
    (tmp_path / "records" / "a.tfrec").write_bytes(content[:-9])
    with pytest.raises(RequestError, match=r"a.tfrec: cut short or damaged"):
        convert(tmp_path)
    content[100] ^= 1
    (tmp_path / "records" / "a.tfrec").write_bytes(content)
    with pytest.raises(RequestError, match=r"a.tfrec: damaged"):
        convert(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"photos": "p"}, "takes the place of --photos"),
        ({"csv": "p.csv"}, "takes the place of --photos"),
        ({"from_tfrecords": "gs://b"}, "--from_tfrecords=gs://b: must be local"),
        ({"from_tfrecords": "", "photos": "p", "id_feature": "id"}, "--id_feature: says what is"),
        ({"output_dir": "r/data"}, "lies within --from_tfrecords"),
        ({"from_tfrecords": "none"}, "--from_tfrecords=none: no such folder"),
    ],
)
def test_flags_that_contradict_each_other(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        make(**{"output": "data", "from_tfrecords": "r"} | flags if "output_dir" not in flags
             else {"output": flags["output_dir"], "from_tfrecords": "r"})  # fmt: skip
