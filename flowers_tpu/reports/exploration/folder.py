"""The folder of an exploration: which one may be used, and what goes into it."""

import json
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from flowers_tpu.reports import style
from flowers_tpu.system import files, folders, terminal
from flowers_tpu.system.errors import RequestError

_SUMMARY, _PLOTS = folders.EXPLORATION.marker, "plots"
_TABLES = ("class_counts.csv", "jpeg_sizes.csv", "duplicates.csv", "near_copies.csv")
_PICTURES = re.compile(
    r"(labels|sample_(train|val|test)|augmentation|learning_rate|jpeg_sizes|duplicates|near_copies"
    r"|class_\d{3,}_\w*)\.png"
)


class ExplorationFolder:
    """Writes an exploration; what it writes replaces, or joins, an earlier one of the same data.

    Args:
        path: of the folder.
        about: what tells the data set from others; its summary begins with it.

    Attributes:
        written: names of the files written.
        pictures: contents of the PNGs written, by name.
    """

    def __init__(self, path: str, about: dict[str, Any]):
        self.path = path
        self.about = about
        self.written: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self._drawings: dict[str, Callable[[], style.Figure]] = {}

    def check(self) -> None:
        """Raises RequestError where the folder holds anything but an exploration of this data."""
        folders.check_usable(self.path, "output_dir", folders.EXPLORATION)
        if not files.is_dir(self.path) or not files.list_dir(self.path):
            return
        earlier = self._earlier()
        if earlier is None:
            raise RequestError(
                f"--output_dir={self.path}: holds files but no exploration; choose another folder"
            )
        if earlier != self.about:
            flags = " ".join(f"--{name}={value}" for name, value in earlier.items())
            raise RequestError(
                f"--output_dir={self.path}: holds an exploration of other data ({flags}); choose "
                "another folder"
            )

    def begin(self, *, anew: bool) -> None:
        """Makes the folder where there is none.

        Args:
            anew: what an earlier exploration wrote is removed; else it stays.

        Raises:
            RequestError: it cannot be made.
        """
        folders.make(self.path, "output_dir")
        if anew or self._earlier() is None:
            # So the folder is known as an exploration's even if this one is killed.
            self._write_summary(self.about)
        files.make_dirs(files.join(self.path, _PLOTS))
        if anew:
            self._remove_earlier()

    def summary(self, values: dict[str, Any]) -> None:
        """Writes what was found, in numbers."""
        self._write_summary(self.about | values)
        self.written.append(_SUMMARY)

    def table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV."""
        self._write(f"{name}.csv", table.to_csv(index=False))

    def picture(self, name: str, draw: Callable[[], style.Figure]) -> None:
        """Adds a picture to those that `draw_pictures` draws and writes."""
        self._drawings[name] = draw

    def draw_pictures(self) -> None:
        """Draws the pictures added, and writes them as PNGs."""
        with terminal.bar(len(self._drawings), "drawing", "pictures") as bar:
            for name, draw in self._drawings.items():
                self.pictures[name] = style.png(draw())
                self._write(f"{_PLOTS}/{name}.png", self.pictures[name])
                bar.update()

    def _earlier(self) -> dict[str, Any] | None:
        """What an earlier exploration says its data are; None where there is none."""
        path = files.join(self.path, _SUMMARY)
        if not files.exists(path):
            return None
        try:
            said = json.loads(files.read_text(path))
        except ValueError:
            return None
        if not isinstance(said, dict) or not self.about.keys() <= said.keys():
            return None
        return {name: said[name] for name in self.about}

    def _remove_earlier(self) -> None:
        """Removes all that explorations write but the summary; files of others stay."""
        plots = files.list_dir(files.join(self.path, _PLOTS))
        names = [*_TABLES, *(f"{_PLOTS}/{name}" for name in plots if _PICTURES.fullmatch(name))]
        for path in (files.join(self.path, name) for name in names):
            if files.exists(path):
                files.remove(path)

    def _write_summary(self, values: dict[str, Any]) -> None:
        text = json.dumps(values, indent=2) + "\n"
        files.write_atomically(files.join(self.path, _SUMMARY), text)

    def _write(self, name: str, content: str | bytes) -> None:
        files.write_atomically(files.join(self.path, name), content)
        self.written.append(name)
