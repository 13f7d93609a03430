"""The report in a real browser, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

from flowers_tpu.runs import report
from tests import finished_runs
from tests.photos import write_data_set
from tests.stopping import StopAt

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--allow-file-access-from-files", "--enable-logging=stderr", "--hide-scrollbars"),
]
WIDTHS = (1280, 390)  # a desk's and a phone's; a frame can be narrower than a window
NUM_CLASSES = 41  # so many that the confusion matrix comes in parts

# Shows the report in a frame of each width, looks and clicks, and writes down what is seen.
HARNESS = """
<meta name="color-scheme" content="light dark">
<body><script>
const look = (frame) => {{
  const page = frame.contentDocument;
  const table = page.querySelector("#classes table");
  const column = (name) => {{
    const header = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === name);
    const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[header.cellIndex]);
    const sorted = () => {{
      header.firstChild.click();
      const aria = header.getAttribute("aria-sort");
      return {{ cells: cells().map((cell) => cell.textContent), aria }};
    }};
    return [sorted(), sorted()];
  }};
  for (const details of page.querySelectorAll("details")) details.open = true;
  const images = [...page.images];
  return {{
    width: page.documentElement.clientWidth,
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    broken: images.filter((image) => !image.complete || !image.naturalWidth).map((i) => i.alt),
    images: images.length,
    recall: column("recall"),
    class: column("class"),
    sorted: page.querySelectorAll("#classes table:first-of-type [aria-sort]").length,
    footer: [...table.tFoot.rows].map((row) => row.cells[0].textContent),
    focusable: page.querySelector("th button").tabIndex,
    page: getComputedStyle(page.body).backgroundColor,
    text: getComputedStyle(page.body).color,
  }};
}};
addEventListener("load", () => {{
  const seen = [...document.querySelectorAll("iframe")].map(look);
  document.body.textContent = JSON.stringify(seen);
}});
</script>{frames}</body>
"""


def open_in_browser(folder, profile, *flags):
    """Opens `report.html` at each width; returns what is seen there and the console's lines."""
    frames = "".join(
        f'<iframe src="report.html" style="width:{width}px;height:800px;border:0"></iframe>'
        for width in WIDTHS
    )
    (folder / "harness.html").write_text(HARNESS.format(frames=frames))
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "--dump-dom"]
    result = subprocess.run(
        [*command, f"file://{folder}/harness.html"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    body = re.search(r"<body>(.*)</body>", result.stdout, re.DOTALL).group(1)
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(body)), console


@pytest.fixture(scope="module", params=[("embedded", "light"), ("files", "dark")])
def opened(request, tmp_path_factory):
    """The run, what is seen of its report, the console, and whether dark is preferred."""
    if not CHROMIUM:
        pytest.skip(f"no Chromium is installed (looked for {', '.join(NAMES)})")
    folder = tmp_path_factory.mktemp("browser")
    counts = {"train": 60, "val": 60, "test": 4, "num_classes": NUM_CLASSES}
    data = write_data_set(folder / "data", **counts)
    images, colors = request.param
    run, recipe, splits = finished_runs.write_run(folder / "run", data, report_images=images)
    report.write_report(recipe, run, run, splits, StopAt())
    flags = ["--force-dark-mode"] if colors == "dark" else []
    return run, *open_in_browser(folder / "run", folder / "profile", *flags), colors


def test_no_console_message_and_no_broken_image(opened):
    _, seen, console, _ = opened
    assert console == []
    assert [page["width"] for page in seen] == list(WIDTHS)
    for page in seen:
        assert page["images"] == 22 and page["broken"] == []


def test_no_horizontal_overflow(opened):
    _, seen, *_ = opened
    assert [page["overflow"] for page in seen] == [0, 0]


def test_the_page_is_as_dark_as_is_preferred(opened):
    *_, seen, _, colors = opened
    page, text = {
        "light": ("rgb(255, 255, 255)", "rgb(27, 31, 36)"),
        "dark": ("rgb(20, 23, 27)", "rgb(230, 233, 237)"),
    }[colors]
    assert {(frame["page"], frame["text"]) for frame in seen} == {(page, text)}


def test_a_click_on_a_header_sorts(opened):
    run, seen, *_ = opened
    table = report._read_classes(run, "val")
    table = table[table["label"] != ""]
    known = table["recall"].dropna()
    recalls = ["–"] * (len(table) - len(known)) + [f"{value:.4f}" for value in sorted(known)]
    assert "–" in recalls, "there are classes that no photo is of or taken for"
    names = sorted(table["class"], key=lambda name: int(name.split()[1]))
    assert len(set(recalls)) > 1
    for page in seen:
        up, down = page["recall"]
        assert (up["cells"], up["aria"]) == (recalls, "ascending")
        assert (down["cells"], down["aria"]) == (recalls[::-1], "descending")
        up, down = page["class"]
        assert (up["cells"], down["cells"]) == (names, names[::-1])
        assert page["footer"] == ["accuracy", "macro avg", "weighted avg"]
        assert page["sorted"] == 1, "only the column that was sorted by last says so"
        assert page["focusable"] == 0
