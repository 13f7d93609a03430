import io
import itertools
import os

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from flowers_tpu.errors import RunError
from flowers_tpu.reports import style


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def drawn_width(text: str, size: float) -> float:
    """The width of a text as matplotlib lays it out in a figure, inches."""
    figure, _ = style.figure(10, 2)
    artist = figure.text(0, 0.5, text, fontsize=size)
    figure.draw_without_rendering()
    return artist.get_window_extent().width / figure.dpi


def test_a_figure_needs_no_display_and_leaves_nothing_behind():
    before = dict(matplotlib.rcParams)
    figure, axes = style.figure(4, 3, ncols=2, squeeze=False)
    assert tuple(figure.get_size_inches()) == (4, 3)
    assert axes.shape == (1, 2)
    assert not axes[0, 0].spines["top"].get_visible()
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_a_png_has_its_size_and_is_always_the_same():
    def draw():
        figure, axes = style.figure(2, 1.5)
        axes.plot([1, 2, 3])
        return style.png(figure, dpi=100)

    assert pixels(draw()).shape == (150, 200, 3)
    assert draw() == draw()


def test_save(tmp_path):
    figure, _ = style.figure(2, 1)
    style.save(figure, str(tmp_path / "a.png"))
    assert os.listdir(tmp_path) == ["a.png"]
    assert pixels((tmp_path / "a.png").read_bytes()).shape == (style.DPI, 2 * style.DPI, 3)
    with pytest.raises(RunError, match=r"nowhere/a\.png"):
        style.save(figure, str(tmp_path / "nowhere" / "a.png"))


@pytest.mark.parametrize("text", ["iris", "WWWWWW", "hard-leaved pocket orchid → rose", "$x$ $"])
def test_text_width_is_that_of_the_drawn_text(text):
    assert style.text_width(text, 8) == pytest.approx(drawn_width(style.plain(text), 8), rel=0.06)


def test_dollars_are_no_formula():
    assert drawn_width(style.plain("$xxxx$"), 20) > drawn_width("$xxxx$", 20) * 1.2


def test_wrapped_lines_fit_and_keep_every_word():
    text = "prince of wales feathers → hard-leaved pocket orchid"
    lines = style.wrapped(text, 1.2, 8)
    assert len(lines) > 1
    assert " ".join(lines) == text
    assert all(style.text_width(line, 8) <= 1.2 for line in lines)
    # No line could take the first word of the next one too.
    for line, following in itertools.pairwise(lines):
        assert style.text_width(f"{line} {following.split()[0]}", 8) > 1.2


def test_a_word_that_is_too_long_is_broken():
    lines = style.wrapped("a " + "W" * 50, 1.0, 8)
    assert "".join(lines) == "a" + "W" * 50
    assert all(style.text_width(line, 8) <= 1.0 for line in lines)
    assert style.wrapped("WW", 0.01, 8) == ["W", "W"]  # never without an end


def test_line_breaks_are_kept():
    assert style.wrapped("train a\nrose", 5, 8) == ["train a", "rose"]
    assert style.wrapped("", 5, 8) == []


def test_nothing_is_shown_without_a_display():
    pyplot.switch_backend("agg")
    assert style.show({"a": b""}) is False
    assert pyplot.get_fignums() == []


def test_nothing_is_shown_where_the_backend_is_not_installed(monkeypatch):
    def fail(*args, **kwargs):
        raise ImportError("Cannot load backend 'TkAgg'")

    monkeypatch.setattr(pyplot, "figure", fail)
    assert style.show({"a": b""}) is False


def test_pictures_are_shown_in_windows(monkeypatch):
    pyplot.switch_backend("agg")
    canvas = type(pyplot.figure().canvas)
    pyplot.close("all")
    monkeypatch.setattr(canvas, "required_interactive_framework", "tk")
    shown = []

    def show(block):
        assert block
        for number in pyplot.get_fignums():
            window = pyplot.figure(number)
            shown.append((window.get_label(), window.axes[0].images[0].get_array()))

    monkeypatch.setattr(pyplot, "show", show)
    figure, axes = style.figure(1, 1)
    axes.set_facecolor(style.TRAIN)
    content = style.png(figure)
    assert style.show({"a": content, "b": content}) is True
    pyplot.close("all")
    assert [name for name, _ in shown] == ["a", "b"]
    for _, image in shown:
        np.testing.assert_allclose(image[..., :3] * 255, pixels(content), atol=0.51)
