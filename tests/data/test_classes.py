import pytest

from flowers_tpu.data.classes import FLOWERS, find_class, read_classes
from flowers_tpu.system.errors import RequestError


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


@pytest.mark.parametrize(
    ("wanted", "label"),
    [("water lily", 72), (" Water LILY ", 72), ("72", 72), ("0", 0), ("103", 103)],
)
def test_a_class_is_found_by_name_or_number(wanted, label):
    assert find_class(wanted, FLOWERS) == label


def test_a_name_goes_before_a_number_and_before_other_cases():
    assert find_class("0", ("1", "0")) == 1
    assert find_class("rose", ("Rose", "rose")) == 1


@pytest.mark.parametrize(
    ("wanted", "names", "message"),
    [
        ("watr lily", FLOWERS, r"--class=watr lily: .*'water lily'"),
        ("lily", FLOWERS, r"'tiger lily'.*'blackberry lily'"),
        ("104", FLOWERS, r"from 0 to 103$"),
        ("-1", FLOWERS, r"from 0 to 103$"),
        (" ", FLOWERS, r"--class= : no class of that name; expected"),
        ("ROSE", ("Rose", "rose"), r"may be 'Rose' \(0\), 'rose' \(1\); give the number"),
    ],
)
def test_a_class_that_is_not_found_is_told_with_what_is_close(wanted, names, message):
    with pytest.raises(RequestError, match=message):
        find_class(wanted, names)
