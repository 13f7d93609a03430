import io
import itertools
import os
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager, ft2font, pyplot
from PIL import Image

from flowers_tpu.reports import style
from flowers_tpu.system.errors import RunError


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


def test_large_pictures_have_fewer_dots_per_inch():
    assert style.fitting_dpi(17, 17, 110) == 110  # 3.5 million pixels: 104 classes
    assert style.fitting_dpi(120, 120, 110) == pytest.approx(50e6**0.5 / 120)  # 950 classes
    assert style.fitting_dpi(10, 800, 120) == pytest.approx(50e6**0.5 / 8000**0.5)
    assert style.fitting_dpi(1, 800, 120) == pytest.approx(65_000 / 800)
    assert Image.MAX_IMAGE_PIXELS > 50e6


def test_a_large_png_has_the_fewer_dots(monkeypatch):
    monkeypatch.setattr(style, "_MOST_PIXELS", 20_000)
    figure, _ = style.figure(4, 2)
    assert pixels(style.png(figure, dpi=120)).shape == (100, 200, 3)


def rare_letter() -> str:
    """A letter that the plots' font lacks and STIX, which comes with matplotlib, has."""
    usual, other = (
        ft2font.FT2Font(font_manager.findfont(name)) for name in ("DejaVu Sans", "STIXGeneral")
    )
    return chr(min(set(other.get_charmap()) - set(usual.get_charmap())))


def test_letters_the_font_lacks_are_of_another(monkeypatch, request, caplog):
    monkeypatch.setattr(style, "_SAID", set())
    request.addfinalizer(style.font_families.cache_clear)
    request.addfinalizer(style._width_at_100_points.cache_clear)

    def draw(fonts):
        monkeypatch.setattr(style, "_MORE_FONTS", fonts)
        style.font_families.cache_clear()
        style._width_at_100_points.cache_clear()
        figure, axes = style.figure(6, 4)
        axes.set_xticks([0.5], [rare_letter() * 3], fontsize=20)
        return style.png(figure), style.text_width(rare_letter(), 20)

    without, _ = draw(())
    assert "are in no font that is installed" in caplog.text
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn, width = draw(("STIXGeneral",))
    assert drawn != without and not caplog.messages
    font = font_manager.FontProperties(family="STIXGeneral", size=20)
    figure, _ = style.figure(4, 2)
    artist = figure.text(0, 0, rare_letter(), fontproperties=font)
    figure.draw_without_rendering()
    drawn_width = artist.get_window_extent().width / figure.dpi
    assert width == pytest.approx(drawn_width, rel=0.1)


def test_only_installed_fonts_are_asked_for(monkeypatch, request, caplog):
    request.addfinalizer(style.font_families.cache_clear)
    monkeypatch.setattr(style, "_MORE_FONTS", ("No Such Font", "STIXGeneral"))
    style.font_families.cache_clear()
    assert style.font_families() == ["sans-serif", "STIXGeneral"]
    figure, _ = style.figure(2, 1)
    style.png(figure)
    assert "findfont" not in caplog.text


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


@pytest.mark.parametrize(
    ("text", "font"),
    [
        ("\u30d0\u30e9", "Noto Sans CJK"),
        ("\u8594\u8587", "Noto Sans CJK"),
        ("\uc7a5\ubbf8", "Noto Sans CJK"),
        ("\u0917", "Noto Sans Devanagari"),
        ("\U0001f339", "Noto Emoji"),
        ("\u16a0", "Unifont"),
    ],
)
def test_letters_that_no_font_has_are_one_line(monkeypatch, caplog, recwarn, text, font):
    monkeypatch.setattr(style, "font_families", lambda: ["DejaVu Sans"])
    monkeypatch.setattr(style, "_SAID", set())
    style._width_at_100_points.cache_clear()
    drawn, axes = style.figure(2, 1)
    axes.set_title(text)
    style.text_width(text, 9)
    style.png(drawn)
    (line,) = caplog.messages
    assert f"install {font}" in line and repr(text[0]) in line
    assert not recwarn.list
    style._width_at_100_points.cache_clear()
