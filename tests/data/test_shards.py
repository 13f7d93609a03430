import pytest

from flowers_tpu.data.shards import data_folder
from flowers_tpu.system.errors import RequestError
from tests.data.small_split import SECOND, error_of, write

pytestmark = pytest.mark.core


# The files of a split


def test_a_missing_split_is_refused(tmp_path):
    write(tmp_path)
    message = error_of(tmp_path, "val")
    assert f"{tmp_path / 'val'}: no such folder" in message
    assert "train, val and test" in message


def test_a_split_without_shards_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").touch()
    assert f"{tmp_path / 'train'}: holds no .tfrec file" in error_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["flowers.tfrec", "00-16x16.tfrec", "00-16x16-x.tfrec", "a-16x16-2.tfrec"]
)
def test_a_name_that_is_not_a_shards_is_refused(tmp_path, name):
    write(tmp_path)
    (tmp_path / "train" / SECOND).rename(tmp_path / "train" / name)
    message = error_of(tmp_path)
    assert f"{tmp_path / 'train' / name}: not a shard's name" in message
    assert "00-192x192-128.tfrec" in message


@pytest.mark.parametrize("size", ["16x32", "32x16"])
def test_photos_that_are_not_square_are_refused_by_name(tmp_path, size):
    write(tmp_path)
    (tmp_path / "train" / SECOND).rename(tmp_path / "train" / f"01-{size}-2.tfrec")
    message = error_of(tmp_path)
    assert f"01-{size}-2.tfrec: holds photos of {size} pixels by its name" in message
    assert "photos must be square" in message


def test_shards_of_a_split_must_have_photos_of_one_size(tmp_path):
    write(tmp_path)
    (tmp_path / "train" / SECOND).rename(tmp_path / "train" / "01-32x32-2.tfrec")
    message = error_of(tmp_path)
    assert "01-32x32-2.tfrec: holds photos of 32x32 pixels by its name" in message
    assert "00-16x16-2.tfrec of another size" in message


# The folder


@pytest.mark.parametrize(
    ("image_size", "size"),
    [
        *[(331, 331), (192, 192), (512, 512), (193, 331), (224, 331), (332, 512), (100, 192)],
        (513, 512),  # enlarged, as there are no larger ones
    ],
)
def test_the_folder_of_the_image_size_is_picked_or_of_the_next_larger_one(
    tmp_path, image_size, size
):
    for folder in (192, 331, 512):
        (tmp_path / f"tfrecords-jpeg-{folder}x{folder}").mkdir()
    folder = data_folder(str(tmp_path), image_size)
    assert folder == str(tmp_path / f"tfrecords-jpeg-{size}x{size}")


def test_a_folder_without_sizes_is_taken_as_it_is(tmp_path):
    (tmp_path / "train").mkdir()
    assert data_folder(str(tmp_path), 224) == str(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(RequestError, match=f"--data_dir={missing}: no such folder"):
        data_folder(str(missing), 224)
