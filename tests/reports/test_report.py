import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flowers_tpu.reports import report, style
from flowers_tpu.reports.report import Page, Picture, Section, Table


def draw():
    figure, axes = style.figure(2, 1)
    axes.imshow(np.linspace(0, 1, 12).reshape(3, 4))
    return figure


ROWS = pd.DataFrame({"class": ["a & b", "c"], "F1": [0.25, np.nan], "support": [3, 10]})
FOOTER = pd.DataFrame({"class": ["mean"], "F1": [0.125], "support": [13]})
PICTURE = Picture("curve", 'a "curve"', draw, dpi=100)
PAGE = Page(
    title="run <1>",
    summary="as it went",
    figures=(("loss", "0.5"),),
    sections=(
        Section("All classes", "Sorted.", (Table("Classes", ROWS, FOOTER),), (PICTURE,)),
        Section("Flags", tables=(Table("Flags", ROWS, folded=True),)),
    ),
)


def body_rows(html, part):
    (found, *_) = re.findall(rf"<{part}>(.*?)</{part}>", html, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(?:<button[^>]*>)?([^<]*)<", row) for row in rows]


def test_a_table_is_written_cell_by_cell():
    html = report.render(PAGE, report.embedded)
    assert body_rows(html, "thead") == [["class", "F1", "support"]]
    assert body_rows(html, "tbody") == [["a &amp; b", "0.2500", "3"], ["c", "–", "10"]]
    assert body_rows(html, "tfoot") == [["mean", "0.1250", "13"]]
    headers = re.findall(r"<th [^>]*>", html)
    assert ['class="number"' in header for header in headers] == [False, True, True] * 2
    assert html.count("<details>") == 1


def test_texts_are_escaped_and_sections_linked():
    html = report.render(PAGE, report.embedded)
    assert "<h1>run &lt;1&gt;</h1>" in html and "a &#34;curve&#34;" in html
    assert '<a href="#all-classes">All classes</a>' in html
    assert '<section id="all-classes">' in html


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.5, "0.5000"), (np.float64(12.34567), "12.3457"), (0.0, "0.0000"), (1e-5, "1.00e-05")),
        *((-1e-5, "-1.00e-05"), (float("nan"), "–"), (3, "3"), (np.int64(3), "3"), ("x", "x")),
    ],
)
def test_how_cells_read(value, text):
    assert report.text(value) == text


def test_an_embedded_picture_is_the_drawn_one():
    kind, _, content = report.embedded(PICTURE).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == style.png(draw(), 100)
    assert report.size(PICTURE) == (200, 100)
    html = report.render(PAGE, lambda picture: f"{picture.name}.png")
    assert '<img src="curve.png" width="200" height="100"' in html


def test_photos_are_embedded_as_jpeg():
    photos = Picture("photos", "", draw, dpi=100, is_photos=True)
    kind, _, content = report.embedded(photos).partition(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.format == "JPEG"
    expected = Image.open(io.BytesIO(photos.png)).convert("RGB")
    difference = np.abs(np.asarray(image, float) - np.asarray(expected, float))
    assert difference.mean() < 5
