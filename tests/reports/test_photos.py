import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from flowers_tpu.data import records
from flowers_tpu.data.splits import read_split
from flowers_tpu.reports import style
from flowers_tpu.reports.photos import read_jpegs, read_photos, serialized, sheet
from tests.photos import jpeg

COUNT, SIZE, STEP = 23, 8, 10


def grey(number: int) -> np.ndarray:
    """A photo that shows its number by its brightness."""
    return np.full((SIZE, SIZE, 3), number * STEP, np.uint8)


def numbers(photos) -> list[int]:
    return [round(float(photo.mean()) / STEP) for photo in photos]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    serialized = [records.serialize_example(f"id-{n}", jpeg(grey(n)), n % 3) for n in range(COUNT)]
    records.write_shards(str(folder / "train"), serialized, SIZE, 4)
    return folder


def read(folder, **options):
    return read_split(str(folder), "train", 3, **options)


@pytest.mark.parametrize("indices", [[0], [22, 0, 7, 7, 11], list(range(COUNT)), [21, 22], []])
def test_photos_come_in_the_order_asked(folder, indices):
    photos = read_photos(read(folder), indices)
    assert numbers(photos) == indices
    assert all(photo.shape == (SIZE, SIZE, 3) and photo.dtype == np.uint8 for photo in photos)


def test_jpegs_are_those_of_the_file(folder):
    assert read_jpegs(read(folder), np.array([5, 2])) == [jpeg(grey(5)), jpeg(grey(2))]


@pytest.mark.parametrize("indices", [[-1], [COUNT], [0, COUNT + 3]])
def test_numbers_out_of_range(folder, indices):
    with pytest.raises(IndexError, match=f"of {COUNT}"):
        read_photos(read(folder), indices)


def test_records_left_out_are_not_counted(folder, tmp_path):
    shutil.copytree(folder / "train", tmp_path / "train")
    bad = (0, 3, 8, 22)
    serialized = [
        records.serialize_example(f"id-{n}", b"no jpeg" if n in bad else jpeg(grey(n)), n % 3)
        for n in range(COUNT)
    ]
    records.write_shards(str(tmp_path / "train"), serialized, SIZE, 4)
    split = read(tmp_path, bad_records="skip")
    assert split.left_out == len(bad)
    good = [n for n in range(COUNT) if n not in bad]
    indices = [18, 0, 2, 7, 2]
    assert numbers(read_photos(split, indices)) == [good[index] for index in indices]
    assert [split.ids[index] for index in indices] == [f"id-{good[index]}" for index in indices]


def test_only_the_shards_needed_are_read(folder):
    split = read(folder)
    begins = [0, *itertools.accumulate(shard.count for shard in split.shards)]
    shards = tuple(
        shard if number == 2 else dataclasses.replace(shard, path="/nowhere.tfrec")
        for number, shard in enumerate(split.shards)
    )
    split = dataclasses.replace(split, shards=shards)
    wanted = [begins[2] + 1, begins[2]]
    assert numbers(read_photos(split, wanted)) == wanted


def test_all_records_come_in_file_order_or_any(folder):
    shards = read(folder).shards
    in_order, as_they_come = (
        [records.parse(r)["id"].numpy().decode() for r in serialized(shards, in_order=in_order)]
        for in_order in (True, False)
    )
    assert in_order == [f"id-{n}" for n in range(COUNT)]
    assert sorted(as_they_come) == sorted(in_order)


def boxes(figure, artists):
    """In pixels, from the lower left corner: left, bottom, right, top."""
    figure.draw_without_rendering()
    return [artist.get_window_extent().extents.round(6) for artist in artists]


def overlap(one, other) -> bool:
    return (
        min(one[2], other[2]) - max(one[0], other[0]) > 0
        and min(one[3], other[3]) - max(one[1], other[1]) > 0
    )


def test_a_sheet_shows_photos_row_by_row():
    cells = [grey(n) for n in range(5)]
    figure = sheet(cells, list("abcde"), columns=3, colors=[style.WRONG, *["black"] * 4])
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes] == [
        0, STEP, 2 * STEP, 3 * STEP, 4 * STEP,
    ]  # fmt: skip
    places = boxes(figure, figure.axes)
    assert places[0][3] == places[1][3] == places[2][3] > places[3][3] == places[4][3]
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[3][0] == places[0][0]
    texts = {text.get_text(): text for text in figure.texts if text.get_text()}
    assert sorted(texts) == list("abcde")
    assert texts["a"].get_color() == style.WRONG
    assert texts["b"].get_color() == "black"
    for name, place in zip("abcde", places, strict=True):  # each title above its photo
        (box,) = boxes(figure, [texts[name]])
        assert (box[0] + box[2]) / 2 == pytest.approx((place[0] + place[2]) / 2, abs=2)
        assert place[3] < box[1] < place[3] + 15


def test_nothing_overlaps_and_nothing_is_clipped():
    long = "hard-leaved pocket orchid → prince of wales feathers, and much more than that"
    titles = [long, "rose", "W" * 60, "", "iris\n$x$", long]
    figure = sheet(
        [grey(1)] * 6, titles, columns=4, title=f"{long}. {long}", row_titles=[long, "row"]
    )
    texts = [text for text in figure.texts if text.get_text()]
    assert len(texts) == 5 + 1 + 2
    everything = boxes(figure, [*texts, *figure.axes])
    width, height = figure.get_size_inches() * figure.dpi
    for one, other in itertools.combinations(everything, 2):
        assert not overlap(one, other)
    for left, bottom, right, top in everything:
        assert left >= 0 and bottom >= 0 and right <= width and top <= height
    style.png(figure)  # dollars are no formula


def test_without_titles_rows_are_closer():
    with_titles = sheet([grey(1)] * 4, ["a"] * 4, columns=2)
    without = sheet([grey(1)] * 4, None, columns=2)
    assert without.get_figheight() < with_titles.get_figheight()
    assert not [text for text in without.texts if text.get_text()]


def test_none_leaves_its_place_empty():
    figure = sheet([grey(1), None, grey(2), grey(3)], None, columns=2)
    left, below, right = boxes(figure, figure.axes)
    assert left[0] == below[0] < right[0]


def test_a_sheet_is_no_wider_than_its_photos():
    one, two = (sheet([grey(1)] * n, None, columns=5).get_figwidth() for n in (1, 2))
    assert one < two < sheet([grey(1)] * 7, None, columns=5).get_figwidth()
