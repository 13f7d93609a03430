"""What a conversion tells: the text files of the data set, and the tables a person reads."""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from absl import logging

from flowers_tpu.convert import photo_files
from flowers_tpu.convert.photo_list import Listing, Photo
from flowers_tpu.convert.photo_pixels import Style, is_enlarged
from flowers_tpu.data.records import SPLITS
from flowers_tpu.system import terminal

_MOST_CLASSES_SHOWN = 40
_UNLABELED = "(no class known)"


class Converted(NamedTuple):
    """A photo that is in the data set."""

    photo: Photo  # with its split
    width: int  # before, upright, pixels
    height: int


@dataclasses.dataclass
class Summary:
    """A conversion, in tables.

    Attributes:
        style: of the photos.
        class_names: by label.
        converted: the photos, by name.
        unreadable: names of the others, and why.
        same_as: the first of those that are byte for byte equal, by the names of the others.
        listing: what else was found where the photos are.
    """

    style: Style
    class_names: Sequence[str]
    converted: Sequence[Converted]
    unreadable: Sequence[tuple[str, str]]
    same_as: Mapping[str, str]
    listing: Listing

    def __post_init__(self) -> None:
        self.photos = pd.DataFrame(
            [
                (p.name, p.label or "", p.split, p.id, width, height, self.same_as.get(p.name, ""))
                for p, width, height in self.converted
            ],
            columns=["path", "label", "split", "id", "width", "height", "same_as"],
        )
        self.class_counts = self._count_classes()
        self.sizes = pd.DataFrame()  # known once the shards are written

    def write(self, folder: str) -> None:
        """Writes `classes.txt`, `sample_submission.csv` and the tables beside the shards."""
        self.sizes = self._measure(folder)
        test_ids = self.photos["id"][self.photos["split"] == "test"]
        for size in self.style.sizes:
            of_size = os.path.dirname(split_folder(folder, size, "train"))
            os.makedirs(of_size, exist_ok=True)
            with open(os.path.join(of_size, "classes.txt"), "w", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in self.class_names)
            if len(test_ids):
                sample = pd.DataFrame({"id": test_ids, "label": 0})
                _write_csv(sample, os.path.join(of_size, "sample_submission.csv"))
        others = [*self.unreadable, *self.listing.ignored]
        unreadable = pd.DataFrame(others, columns=["path", "problem"])
        for name, table in (
            ("photos", self.photos),
            ("class_counts", self.class_counts),
            ("summary", self.sizes),
            ("unreadable", unreadable),
        ):
            _write_csv(table, os.path.join(folder, f"{name}.csv"))

    def show(self, output_dir: str) -> None:
        """Prints the tables, then warns of what is not as it should be."""
        counts = self.class_counts.drop(columns="label")
        shown = counts
        if len(counts) > _MOST_CLASSES_SHOWN:
            shown = counts.sort_values("train", kind="stable")[:_MOST_CLASSES_SHOWN]
        terminal.say(shown.to_string(index=False))
        if len(shown) < len(counts):
            terminal.say(f"and {len(counts) - len(shown)} classes with more training photos")
        terminal.say()
        terminal.say(self.sizes.to_string(index=False))
        folders = ", ".join(f"tfrecords-jpeg-{size}x{size}/" for size in self.style.sizes)
        terminal.say(
            f"\nIn {output_dir}: {folders}, photos.csv, class_counts.csv, summary.csv, "
            "unreadable.csv"
        )
        for warning in self.warnings():
            logging.warning("%s", warning)

    def warnings(self) -> list[str]:
        """Returns what a person should know before training on the data set."""
        found = []
        if self.unreadable:
            name, problem = self.unreadable[0]
            found.append(
                f"{len(self.unreadable)} of {len(self.unreadable) + len(self.converted)} photos "
                f"cannot be read and are left out: unreadable.csv lists them (such as {name}: "
                f"{problem})"
            )
        found += self._warnings_of_others()
        if lost := self._lost_classes():
            found.append(
                f"NO PHOTO of {len(lost)} classes can be read, so no model can learn them: "
                f"{_few(lost)}"
            )
        if empty := self.listing.empty:
            found.append(f"folders without photos, which are no classes: {_few(empty)}")
        found += self._warnings_of_copies()
        lacking = [
            name
            for name, train in zip(self.class_names, self.class_counts["train"], strict=False)
            if not train
        ]
        if lacking:
            found.append(f"without training photos: {_few(lacking)}")
        for split in SPLITS:
            if not (self.photos["split"] == split).any():
                found.append(f"no photos for {split}/, and scripts/train.py needs some")
        return found

    def _lost_classes(self) -> list[str]:
        """Returns the classes of which there are photos, but none that can be read, and why."""
        unreadable = dict(self.unreadable)
        problems = {
            p.label: unreadable[p.name] for p in self.listing.photos if p.name in unreadable
        }
        kept = {photo.label for photo, _, _ in self.converted}
        return [f"{n} ({problems[n]})" for n in self.class_names if n in problems.keys() - kept]

    def _warnings_of_others(self) -> list[str]:
        """Returns what there is to say of files that are no photos."""
        by_reason = collections.defaultdict(list)
        for name, reason in self.listing.ignored:
            by_reason[reason].append(name)
        found = []
        if others := by_reason.pop(photo_files.NO_PHOTO, []):
            counts = collections.Counter(os.path.splitext(name)[1].lower() for name in others)
            endings = ", ".join(f"{counts[ending]} {ending}" for ending in sorted(counts))
            found.append(f"files that are no photos by their names' endings: {endings}")
        for reason, names in sorted(by_reason.items()):
            found.append(f"files left out, each {reason}: {len(names)} (such as {names[0]})")
        return found

    def _warnings_of_copies(self) -> list[str]:
        """Returns what there is to say of photos that are byte for byte the same."""
        first = self.photos.set_index("path").reindex(self.photos["same_as"])
        copies = self.photos.assign(
            first_label=first["label"].to_numpy(), first_split=first["split"].to_numpy()
        )[first["label"].notna().to_numpy()]
        if copies.empty:
            return []
        found = [
            f"photos that are byte for byte another's copy: {len(copies)} (same_as in photos.csv)"
        ]
        labeled = copies[(copies["label"] != "") & (copies["first_label"] != "")]
        if differing := int((labeled["label"] != labeled["first_label"]).sum()):
            found.append(f"of these copies {differing} are in another class than the first")
        if apart := int((copies["split"] != copies["first_split"]).sum()):
            found.append(
                f"of these copies {apart} were put in another split than the first, so scores "
                "will be too good"
            )
        return found

    def _count_classes(self) -> pd.DataFrame:
        """Returns a row per class, in the order of labels, and one for photos of no known class."""
        counts = pd.crosstab(self.photos["label"], self.photos["split"])
        names = [*self.class_names, *([""] if (self.photos["label"] == "").any() else [])]
        counts = counts.reindex(index=names, columns=list(SPLITS), fill_value=0)
        labels = [str(n) if name else "" for n, name in enumerate(names)]
        shown = [name or _UNLABELED for name in names]
        return pd.DataFrame(
            {"label": labels, "class": shown, **{s: counts[s].to_numpy() for s in SPLITS}}
        )

    def _measure(self, folder: str) -> pd.DataFrame:
        """Returns a row per size and split."""
        rows = []
        for size in self.style.sizes:
            for split in SPLITS:
                photos = [c for c in self.converted if c.photo.split == split]
                directory = split_folder(folder, size, split)
                shards = list(os.scandir(directory)) if photos else []
                megabytes = round(sum(shard.stat().st_size for shard in shards) / 1e6, 2)
                enlarged = sum(
                    is_enlarged(c.width, c.height, size, self.style.crop) for c in photos
                )
                rows.append((size, split, len(photos), len(shards), megabytes, enlarged))
        return pd.DataFrame(
            rows, columns=["size", "split", "photos", "shards", "megabytes", "enlarged"]
        )


def split_folder(folder: str, size: int, split: str) -> str:
    """Returns where the shards of a split are."""
    return os.path.join(folder, f"tfrecords-jpeg-{size}x{size}", split)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _write_csv(table: pd.DataFrame, path: str) -> None:
    # Names of files need not be text; what of them is not is written as \\udcXX.
    table.to_csv(path, index=False, errors="backslashreplace", lineterminator="\n")
