import numpy as np
import pandas as pd
import pytest

from flowers_tpu.reports import confusion, style

NAMES = ["rose", "iris", "lily", "lotus"]
MATRIX = pd.DataFrame(
    [[6, 2, 0, 2], [1, 3, 0, 0], [0, 0, 0, 0], [5, 0, 0, 5]], index=NAMES, columns=NAMES
)


def random_matrix(num_classes):
    generator = np.random.default_rng(num_classes)
    counts = generator.poisson(0.15, (num_classes, num_classes)) + 8 * np.eye(
        num_classes, dtype=int
    )
    names = [f"class {number}" for number in range(num_classes)]
    return pd.DataFrame(counts, index=names, columns=names)


def test_shares_by_hand():
    nan = float("nan")
    expected = [[0.6, 0.2, 0, 0.2], [0.25, 0.75, 0, 0], [nan] * 4, [0.5, 0, 0, 0.5]]
    np.testing.assert_array_equal(confusion.shares(MATRIX), expected)


@pytest.mark.parametrize(
    ("num_classes", "sizes"),
    [(3, []), (40, []), (41, [20, 21]), (102, [34] * 3), (104, [34, 35, 35]), (106, [26, 27] * 2)],
)
def test_parts_cover_all_rows_once(num_classes, sizes):
    parts = confusion.parts(num_classes)
    assert [part.stop - part.start for part in parts] == sizes
    rows = [row for part in parts for row in range(num_classes)[part]]
    assert rows == (list(range(num_classes)) if sizes else [])


def test_a_part_by_hand():
    part = confusion.part(MATRIX, slice(0, 2))
    assert list(part.index) == ["rose", "iris"]
    # Nobody takes them for a lily.
    assert list(part.columns) == ["rose", "iris", "lotus", "(all others)"]
    np.testing.assert_allclose(part, [[0.6, 0.2, 0.2, 0], [0.25, 0.75, 0, 0]])


@pytest.mark.parametrize("number", range(3))
def test_a_part_keeps_every_photo(number):
    """Each row sums to 1, and each column is that of the class it is named after."""
    matrix = random_matrix(104)
    rows = confusion.parts(104)[number]
    part = confusion.part(matrix, rows)
    np.testing.assert_allclose(part.sum(axis=1), 1)
    shares = matrix.div(matrix.sum(axis=1), axis=0).iloc[rows]
    named = part.columns[:-1]
    pd.testing.assert_frame_equal(part[named], shares[named])
    own = len(range(104)[rows])
    others = part[named[own:]].sum()
    assert len(others) == 8 and (others > 0).all() and others.is_monotonic_decreasing
    left_out = shares.drop(columns=named).sum()
    assert left_out.max() <= others.min() and left_out.sum() > 0


def test_the_heatmap_shows_the_shares():
    shares = confusion.shares(MATRIX)
    figure = confusion.heatmap(shares, "Confusion")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), shares)
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    written = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert written == {
        **{(0, 0): "60", (0, 1): "20", (0, 3): "20"},
        **{(1, 0): "25", (1, 1): "75"},
        **{(3, 0): "50", (3, 3): "50"},
    }


def test_dollars_in_a_title_are_no_formula():
    title = r"Confusion: $\nosuch to lily$"
    figure = confusion.heatmap(confusion.shares(MATRIX), title)
    figure.draw_without_rendering()  # an unknown symbol would be an error
    width = figure.axes[0].title.get_window_extent().width / figure.dpi
    assert width == pytest.approx(style.text_width(title, 12), rel=0.06)


@pytest.mark.parametrize("num_classes", [2, 30, 104])
def test_no_label_is_clipped(num_classes):
    matrix = random_matrix(num_classes)
    matrix.index = matrix.columns = [f"long-leaved {name} of $ales" for name in matrix.index]
    # Rows with short names whose columns of other classes have long ones leave the most to clip.
    short = matrix.rename(lambda name: name[-12:], axis=0).iloc[:34]
    rows = (confusion.parts(num_classes) or [slice(None)])[0]
    for part in (confusion.part(matrix, rows), confusion.shares(matrix), confusion.shares(short)):
        figure = confusion.heatmap(part, f"Confusion, validation, {num_classes} classes")
        figure.draw_without_rendering()
        texts = [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
        axes, bar = figure.axes
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, bar.yaxis.label]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0, text.get_text()
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text.get_text()
        heights = [text.get_window_extent().height for text in figure.axes[0].get_yticklabels()]
        places = [text.get_window_extent().y0 for text in figure.axes[0].get_yticklabels()]
        assert max(heights) <= -np.diff(places).max(), "labels run into one another"


def test_most_confused_by_hand():
    pairs = confusion.most_confused(MATRIX)
    assert list(pairs.itertuples(index=False, name=None)) == [
        ("lotus", "rose", 5, 0.5),
        ("rose", "iris", 2, 0.2),
        ("rose", "lotus", 2, 0.2),
        ("iris", "rose", 1, 0.25),
    ]
    assert len(confusion.most_confused(MATRIX, count=2)) == 2


def test_nothing_confused():
    matrix = pd.DataFrame(np.diag([3, 0, 2]), index=NAMES[:3], columns=NAMES[:3])
    assert confusion.most_confused(matrix).empty


def test_example_photos():
    table = pd.DataFrame(
        {
            "name": ["rose", "rose", "iris", "rose", "rose"],
            "predicted_name": ["rose", "iris", "rose", "iris", "iris"],
            "confidence": [0.9, 0.3, 0.8, 0.7, 0.5],
            "loss": [0.5, 2.0, float("nan"), 0.2, 1.0],
        },
        index=[3, 4, 5, 7, 9],
    )
    assert confusion.confused_photos(table, "rose", "iris", 2) == [7, 9]
    assert confusion.confused_photos(table, "iris", "lily", 2) == []
    assert confusion.typical(table) == {"rose": 7}  # no loss of an iris is known
