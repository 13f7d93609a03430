"""Which photos there are by a CSV: their classes, splits and ids."""

import os
from collections.abc import Sequence

import pandas as pd
from absl import logging

from flowers_tpu.convert.photo_list import SPLIT_NAMES, Listing, Photo, with_ids
from flowers_tpu.system.errors import RequestError, first_line


def list_csv(path: str, folder: str) -> Listing:
    """Lists the photos of a CSV with the columns `path`, `label` and, if wanted, `split` and `id`.

    `label` is the name of a class; an empty one makes a test photo. An empty `split` is still to be
    chosen. An `id` is kept if no other row has it; else it is made of the path. Other columns do
    not matter.

    Args:
        path: of the CSV.
        folder: what its paths are relative to; '': the CSV's own folder.

    Raises:
        RequestError: it cannot be read, or a row says something else; the message names the row.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise RequestError(f"--csv={path}: cannot be read ({first_line(error)})") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise RequestError(
            f"--csv={path}: its rows have more fields than its header; name every column"
        )
    if missing := {"path", "label"} - set(table.columns):
        raise RequestError(
            f"--csv={path}: has no column {' and no column '.join(sorted(missing))}; expected "
            f"path,label or path,label,split, but its columns are {_shown(table.columns)}"
        )
    folder = folder or os.path.dirname(path)
    first: dict[str, int] = {}
    photos = []
    optional = (table[c] if c in table else [""] * len(table) for c in ("split", "id"))
    rows = zip(table["path"], table["label"], *optional, strict=True)
    for row, values in enumerate(rows, start=1):
        file, label, split, photo_id = (value.strip() for value in values)
        name = (
            file
            if "\0" in file
            else os.path.relpath(os.path.join(folder, file), folder or os.curdir)
        )
        wrong = ""
        if "\0" in file:
            wrong = f"its path holds a null byte: {file!r}; save the CSV as UTF-8"
        elif not file:
            wrong = "its path is empty"
        elif split and split.casefold() not in SPLIT_NAMES:
            wrong = f"split {split!r}, expected train, val, test or nothing"
        elif not label and SPLIT_NAMES.get(split.casefold()) in ("train", "val"):
            wrong = f"a photo for {split} without a label"
        elif name in first:
            wrong = f"{file} stands in row {first[name]} already"
        if wrong:
            raise RequestError(f"--csv={path}, row {row} below the header: {wrong}")
        first[name] = row
        split = SPLIT_NAMES.get(split.casefold()) or (None if label else "test")
        photos.append(Photo(os.path.join(folder, file), name, label or None, split, photo_id))
    listed = with_ids(photos)
    _warn_of_lost_ids(path, photos, listed)
    return Listing(listed, [], [])


def _shown(columns: Sequence[str]) -> str:
    names = [repr(str(name)) for name in columns]
    separated = "" if len(names) > 1 or "path" not in names[0] else " (commas separate columns)"
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") + separated


def _warn_of_lost_ids(path: str, given: Sequence[Photo], listed: Sequence[Photo]) -> None:
    ids = {photo.name: photo.id for photo in listed}
    if lost := [photo for photo in given if photo.id and photo.id != ids[photo.name]]:
        logging.warning(
            "--csv=%s: ids that stand in several rows, or are no text, are made of the paths: %d "
            "(such as %r)",
            *(path, len(lost), lost[0].id),
        )
