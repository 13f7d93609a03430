"""The Oxford 102 flowers, as they are published, become a data set with the official split."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from flowers_tpu.convert import oxford102
from flowers_tpu.data.splits import read_split
from flowers_tpu.system.errors import RequestError
from tests.calling import call

LABELS = [1, 1, 2, 2, 51, 51, 102, 102]
SPLITS = {"trnid": [1, 3, 5, 7], "valid": [2, 4], "tstid": [6, 8]}


@pytest.fixture
def published(tmp_path):
    """The three parts, with eight photos of four classes."""
    folder = tmp_path / "published"
    (folder / "jpg").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(1, 9):
        pixels = generator.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "jpg" / f"image_{number:05}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([LABELS], np.uint8)})
    savemat(folder / "setid.mat", {n: np.array([v], np.uint16) for n, v in SPLITS.items()})
    return folder


def test_photos_go_where_the_files_say(published, tmp_path, capsys):
    out = tmp_path / "data"
    assert call("make_tfrecords", f"--oxford102={published}", f"--output_dir={out}",
                "--sizes=32") == 0, capsys.readouterr().err  # fmt: skip
    folder = str(out / "tfrecords-jpeg-32x32")
    names = (out / "tfrecords-jpeg-32x32" / "classes.txt").read_text().splitlines()
    assert names == oxford102.NAMES and len(set(names)) == 102
    assert (names[0], names[50], names[101]) == ("pink primrose", "petunia", "blackberry lily")
    for name, split in (("train", "trnid"), ("val", "valid")):
        found = read_split(folder, name, 102)
        labels = dict(zip(found.ids, found.labels, strict=True))
        assert labels == {f"image_{n:05}": LABELS[n - 1] - 1 for n in SPLITS[split]}
    test = read_split(folder, "test", 102)
    assert sorted(test.ids) == ["image_00006", "image_00008"] and test.labels is None


def test_what_is_missing_is_said_with_the_command_that_gets_it(published):
    (published / "setid.mat").rename(published / "other.mat")
    with pytest.raises(RequestError, match=r"has no setid.mat; get it by: curl -o .*/setid.mat"):
        oxford102.list_photos(str(published))
    (published / "setid.mat").write_text("no MATLAB file")
    with pytest.raises(RequestError, match=r"setid.mat cannot be read .*get it again by: curl"):
        oxford102.list_photos(str(published))
    (published / "jpg").rename(published / "else")
    with pytest.raises(RequestError, match=r"has no jpg/.* curl -o .*102flowers.tgz && tar -xzf"):
        oxford102.list_photos(str(published))
    (published / "102flowers.tgz").touch()
    with pytest.raises(RequestError, match="get them by: tar -xzf"):
        oxford102.list_photos(str(published))


def test_files_that_do_not_belong_together_are_refused(published):
    savemat(published / "setid.mat", {n: np.array([[9]]) for n in SPLITS})
    with pytest.raises(RequestError, match=r"names photo 9, but .* for 8 photos"):
        oxford102.list_photos(str(published))
