"""How every picture looks: colours, figures without a display, and PNG files."""

import contextlib
import functools
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib
from absl import logging
from matplotlib import font_manager, textpath
from matplotlib.figure import Figure
from matplotlib.text import Text

from flowers_tpu.system import files

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart
# (https://jfly.uni-koeln.de/color/).
TRAIN = "#0072B2"
VAL = "#E69F00"
TEST = "#CC79A7"
RIGHT = "#009E73"
WRONG = "#D55E00"
ACCENT = "#56B4E9"
GREY = "#6E6E6E"  # dark enough for text on white
SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}

DPI = 120
_MOST_PIXELS = 50e6  # well below what Pillow takes for an attack, and 200 MB while it is drawn
_LONGEST_SIDE = 65_000  # pixels; matplotlib draws fewer than 2^16
_PAD = 0.07  # inches around the axes and at the edges

# Where names have letters that matplotlib's own font lacks; each of these has all of Chinese,
# Japanese or Korean.
_MORE_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR"),
    *("Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Arial Unicode MS"),
)

# For other scripts; matplotlib's own has Latin, Greek, Cyrillic, Hebrew, Arabic, and more.
_MORE_SCRIPTS = tuple(
    f"Noto Sans {script}"
    for script in ("Devanagari", "Bengali", "Tamil", "Telugu", "Gujarati", "Thai", "Ethiopic",
                   "Khmer", "Sinhala", "Myanmar", "Malayalam", "Kannada")
)  # fmt: skip
_EMOJI, _LAST_RESORT = "Noto Emoji", "Unifont"  # the second has a little of everything
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")
_SAID: set[str] = set()  # the fonts that were named

_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "grid.color": "#DDDDDD",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """Returns a figure with its axes, of no window and no global state.

    Args:
        width: inches.
        height: inches.
        **subplots: of `Figure.subplots`: `nrows`, `ncols`, `squeeze`, `sharex`, `width_ratios`, …

    Returns:
        The figure, laid out so that labels do not overlap, and what `Figure.subplots` gives: an
        axes, or an array of them.
    """
    with matplotlib.rc_context(_RC):
        drawn = Figure(figsize=(width, height))
        drawn.set_layout_engine("constrained", w_pad=_PAD, h_pad=_PAD)
        return drawn, drawn.subplots(**subplots)


def png(drawn: Figure, dpi: float = DPI) -> bytes:
    """Returns a figure as a PNG; equal figures give equal bytes.

    Args:
        drawn: the figure; its texts get the fonts that are installed for other scripts.
        dpi: dots per inch of its size; see `fitting_dpi`.
    """
    for text in drawn.findobj(Text):
        text.set_fontfamily(font_families())
    buffer = io.BytesIO()
    width, height = drawn.get_size_inches()
    dpi = fitting_dpi(width, height, dpi)
    with _naming_missing_letters():
        drawn.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


@contextlib.contextmanager
def _naming_missing_letters() -> Iterator[None]:
    """Makes one line of what matplotlib warns of each letter that no font has."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    letters = []
    for warning in caught:
        if match := re.match(r"Glyph (\d+) ", str(warning.message)):
            letters.append(chr(int(match[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if letters:
        _warn_of_letters(letters[0])


def _warn_of_letters(letter: str) -> None:
    """Says once which font to install for letters of a kind."""
    name = unicodedata.name(letter, "unknown")
    font = f"Noto Sans {name.split()[0].title()}"
    if name.startswith(_CJK):
        font = "Noto Sans CJK (fonts-noto-cjk on Debian)"
    elif font not in _MORE_SCRIPTS:
        font = _EMOJI if unicodedata.category(letter) == "So" else _LAST_RESORT
    if font in _SAID:
        return
    _SAID.add(font)
    logging.warning(
        "Letters such as %r (%s) are in no font that is installed, and are drawn as boxes: install "
        "%s, then remove matplotlib's list of fonts in %s",
        *(letter, name, font, matplotlib.get_cachedir()),
    )


def fitting_dpi(width: float, height: float, dpi: float) -> float:
    """Returns `dpi`, or as much less as a picture of so many inches needs to be drawn and read."""
    return min(dpi, math.sqrt(_MOST_PIXELS / (width * height)), _LONGEST_SIDE / max(width, height))


@functools.cache
def font_families() -> list[str]:
    """Returns the plots' font and, for letters it lacks, fonts that are installed."""
    # Matplotlib warns of each font in such a list that is not there.
    installed = font_manager.fontManager.get_font_names()
    more = (*_MORE_FONTS, *_MORE_SCRIPTS, _EMOJI, _LAST_RESORT)
    return ["sans-serif", *(name for name in more if name in installed)]


def save(drawn: Figure, path: str) -> None:
    """Writes a figure to a PNG file, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    files.write_atomically(path, png(drawn))


def show(pictures: Mapping[str, bytes]) -> bool:
    """Opens PNGs in windows, and waits until all are closed; False where there is no display.

    Args:
        pictures: the files' contents, by the titles of the windows.
    """
    from matplotlib import pyplot  # only here: it chooses a backend, for the whole process

    try:
        windows = [pyplot.figure(title, layout="constrained") for title in pictures]
    except ImportError:  # a backend that the environment names, and that is not installed
        return False
    if any(window.canvas.required_interactive_framework is None for window in windows):
        pyplot.close("all")
        return False
    for window, content in zip(windows, pictures.values(), strict=True):
        axes = window.subplots()
        axes.imshow(pyplot.imread(io.BytesIO(content), format="png"))
        axes.set_axis_off()
    pyplot.show(block=True)
    return True


def plain(text: str) -> str:
    """Returns text in which dollar signs are no formula, for labels made of class names."""
    return text.replace("$", r"\$")


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Breaks text into lines that fit, at spaces where that is possible.

    Args:
        text: line breaks in it are kept.
        width: of a line, inches.
        size: of the font, points.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and text_width(f"{line} {word}", size) <= width:
                line = f"{line} {word}"
                continue
            if line:
                lines.append(line)
            while len(word) > 1 and text_width(word, size) > width:
                fits = max(
                    1, sum(text_width(word[: n + 1], size) <= width for n in range(len(word)))
                )
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines.append(line)
    return lines


def text_width(text: str, size: float) -> float:
    """Returns the width of a line of text in the plots' font, inches; `size` in points."""
    return _width_at_100_points(text) * size / 100


@functools.lru_cache(maxsize=1 << 14)
def _width_at_100_points(text: str) -> float:
    font = font_manager.FontProperties(family=font_families(), size=100)
    with _naming_missing_letters():
        extent = textpath.text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return extent[0] / 72
