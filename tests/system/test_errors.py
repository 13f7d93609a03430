import pytest

from flowers_tpu.system.errors import first_line


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no such file", "no such file"),
        ("first\nsecond", "first"),
        ("", "ValueError"),
        (" \n", "ValueError"),
    ],
)
def test_the_gist_is_the_first_line(message, expected):
    assert first_line(ValueError(message)) == expected


def test_of_a_long_message_the_end_is_kept():
    """TensorFlow's begin with paths."""
    found = first_line(OSError("/data/" + "deep/" * 60 + "0.tfrec; No space left on device"))
    assert len(found) <= 200
    assert found.startswith("/data/deep/") and found.endswith("; No space left on device")
