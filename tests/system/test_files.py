import pytest
import tensorflow as tf

from flowers_tpu.system import files
from flowers_tpu.system.errors import RunError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.json"


@pytest.mark.parametrize("content", ["", "ein Gänseblümchen\n", b"\x00\xff\r\n"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_file_is_written_whole(path, content, exists):
    if exists:
        path.write_text("something longer than what comes now")
    files.write_atomically(str(path), content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_until_the_new_one_is_complete(path, monkeypatch):
    path.write_text("old")
    rename = tf.io.gfile.rename

    def looking_rename(source, target, overwrite):
        with open(source) as new:
            assert new.read() == "new"
        assert path.read_text() == "old"
        rename(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "rename", looking_rename)
    files.write_atomically(str(path), "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "No space left on device"), RunError),
        (OSError("No space left on device"), RunError),
        (KeyboardInterrupt("No space left on device"), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("stage", ["write", "rename"])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, exists, error, raised, stage):
    def fail(*args, **kwargs):
        raise error

    def write_half(file, content):
        write(file, content[: len(content) // 2])
        fail()

    if exists:
        path.write_text("old")
    write = tf.io.gfile.GFile.write
    if stage == "write":
        monkeypatch.setattr(tf.io.gfile.GFile, "write", write_half)
    else:
        monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(raised, match="No space left on device") as caught:
        files.write_atomically(str(path), "new content")
    assert raised is not RunError or str(path) in str(caught.value)
    assert [(p, p.read_text()) for p in path.parent.iterdir()] == [(path, "old")] * exists


def test_read_text(path):
    path.write_text("Gänse\nblümchen\n", encoding="utf-8")
    assert files.read_text(str(path)) == "Gänse\nblümchen\n"


def test_join():
    assert files.join("gs://bucket/data", "train", "x.tfrec") == "gs://bucket/data/train/x.tfrec"
