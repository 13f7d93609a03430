"""A page of tables and pictures: one HTML file that needs no network."""

import base64
import dataclasses
import functools
import importlib.resources
import io
from collections.abc import Callable

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from flowers_tpu.reports import style

_PHOTO_QUALITY = 85  # of JPEG


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes:
        name: of its file, without ending.
        alt: what it shows, for who cannot see it.
        draw: gives the figure.
        dpi: dots per inch of its size.
        is_photos: made of photos; they take less room as JPEG.
        is_wide: shown as wide as it is, scrolling where that is wider than the page.
    """

    name: str
    alt: str
    draw: Callable[[], Figure]
    dpi: float = 160
    is_photos: bool = False
    is_wide: bool = False

    @functools.cached_property
    def png(self) -> bytes:
        """The drawn picture."""
        return style.png(self.draw(), self.dpi)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a report, sortable by a click on a column's header.

    Attributes:
        caption: above it.
        rows: its cells; the columns' names are the headers.
        footer: rows below, which are not sorted.
        folded: shown only when it is opened.
    """

    caption: str
    rows: pd.DataFrame
    footer: pd.DataFrame | None = None
    folded: bool = False

    def is_number(self, column: str) -> bool:
        """Whether a column holds numbers, which stand to the right and sort by their value."""
        return pd.api.types.is_numeric_dtype(self.rows[column])


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report with a heading.

    Attributes:
        title: the heading.
        text: below it.
        tables: in order.
        pictures: in order, after the tables.
    """

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def anchor(self) -> str:
        """What a link to the section ends with."""
        return self.title.lower().replace(" ", "-")


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: of the page.
        summary: a line below it.
        figures: the most important numbers: name and value.
        sections: in order.
    """

    title: str
    summary: str
    figures: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> list[Picture]:
        """The pictures of all sections."""
        return [picture for section in self.sections for picture in section.pictures]


def embedded(picture: Picture) -> str:
    """Returns the address of a picture that is part of the page itself."""
    if picture.is_photos:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture.png)).convert("RGB").save(
            buffer, "JPEG", quality=_PHOTO_QUALITY, optimize=True
        )
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def size(picture: Picture) -> tuple[int, int]:
    """Returns width and height of a picture, pixels."""
    return Image.open(io.BytesIO(picture.png)).size


def text(value: object) -> str:
    """Returns a cell's text: fractions with four decimals, small ones in scientific notation."""
    if isinstance(value, float):
        if pd.isna(value):
            return "–"
        return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
    return str(value)


def render(page: Page, address: Callable[[Picture], str]) -> str:
    """Returns a report as HTML.

    Args:
        page: what stands in it.
        address: of a picture, as seen from the page; see `embedded`.
    """
    source = importlib.resources.files("flowers_tpu.reports").joinpath("report.html.jinja")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(source.read_text("utf-8"))
    return template.render(page=page, address=address, size=size, text=text)
