import pytest
import tensorflow as tf

from flowers_tpu.data import records
from tests.data.small_split import file_names, write

pytestmark = pytest.mark.core


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
