import pytest

from flowers_tpu.data.classes import FLOWERS, read_classes
from flowers_tpu.errors import RequestError


def test_flowers_are_the_competitions_in_its_order():
    assert len(FLOWERS) == len(set(FLOWERS)) == 104
    # The competition's notebooks list ten a line; these begin the lines.
    assert FLOWERS[::10] == (
        *("pink primrose", "snapdragon", "fire lily", "carnation", "barberton daisy", "petunia"),
        *("cautleya spicata", "gazania", "frangipani", "hippeastrum", "trumpet creeper"),
    )
    assert FLOWERS[67] == "iris"
    assert FLOWERS[103] == "wild rose"
    assert all(name == name.strip() for name in FLOWERS)


def test_reads_one_name_a_line(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("pink primrose\r\n colt's foot \nRänunkel\n\n", encoding="utf-8")
    assert read_classes(str(path)) == ("pink primrose", "colt's foot", "Ränunkel")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"rose\n\niris\n", "line 2: is empty"),
        (b"rose\niris\nlotus\niris \n", "line 4: 'iris' is already on line 2"),
        (b"rose\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_refuses_a_wrong_file_by_path_and_line(tmp_path, content, message):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(RequestError) as error:
        read_classes(str(path))
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(RequestError, match=r"missing\.txt: class names cannot be read"):
        read_classes(str(tmp_path / "missing.txt"))
