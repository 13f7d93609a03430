from flowers_tpu.benchmarks import plot
from flowers_tpu.benchmarks.results import Row


def test_a_panel_for_every_group_of_speeds_and_times():
    rows = [
        Row("input", "decode", "images/s", (100.0, 200.0, 300.0)),
        Row("input", "host", "images/s", (50.0, 60.0, 70.0)),
        Row("input", "host / decode", "x", (0.5, 0.3, 0.23)),
        Row("loop", "alone", "images/s", (1.0,)),  # nothing beside it
        Row("start", "imports", "s", (3.0,)),
        Row("start", "building", "s", (2.0,)),
    ]
    drawn = plot.draw(rows, "commit abc, $TensorFlow$ 2.21")
    assert drawn.get_supxlabel() == r"commit abc, \$TensorFlow\$ 2.21"
    assert [axis.get_title(loc="left") for axis in drawn.axes] == ["input, images/s", "start, s"]
    first, second = drawn.axes
    assert [bar.get_width() for bar in first.patches] == [200.0, 60.0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["decode", "host"]
    assert [text.get_text() for text in first.texts] == ["200", "60.0"]
    (errors,) = first.collections
    assert [list(segment[:, 0]) for segment in errors.get_segments()] == [[150, 250], [55, 65]]
    assert first.get_xlim()[1] > 250 and second.get_xlim()[1] > 3


def test_nothing_to_compare_is_no_picture():
    assert plot.draw([Row("loop", "alone", "images/s", (1.0,))], "") is None
