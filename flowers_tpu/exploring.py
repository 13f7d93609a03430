"""What `scripts/explore.py` calls: a data set, and a recipe's view of it, in pictures and tables.

As `experiment.py` it takes a Config apart and gets its parts from `parts.py`.
"""

import functools
import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from flowers_tpu import feed, files, parts, progress
from flowers_tpu.config import Config
from flowers_tpu.data import classes, records
from flowers_tpu.errors import RequestError
from flowers_tpu.reports import exploration, exploration_images, exploration_sheets, style
from flowers_tpu.run_directory import RunDirectory

# What may not be drawn the next time, and would then tell of another data set.
_PICTURES = ("labels", "sample_train", "sample_val", "sample_test", "augmentation", "learning_rate")
_PICTURES += ("jpeg_sizes", "duplicates")


class Output:
    """The folder of an exploration, and what was written to it."""

    def __init__(self, path: str):
        self.path = path
        self.written: list[str] = []
        self.pictures: dict[str, bytes] = {}

    def begin(self) -> None:
        """Makes the folder.

        Raises:
            RequestError: it is a file, a run's, or cannot be made.
        """
        if tf.io.gfile.exists(self.path) and not tf.io.gfile.isdir(self.path):
            raise RequestError(f"--output_dir={self.path}: is a file; choose a folder")
        if RunDirectory(self.path).is_run():
            raise RequestError(f"--output_dir={self.path}: holds a run; choose another folder")
        try:
            tf.io.gfile.makedirs(files.join(self.path, "plots"))
        except tf.errors.OpError as error:
            raise RequestError(
                f"--output_dir={self.path}: cannot be made ({error.message})"
            ) from error

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a file, whole or not at all."""
        files.write_atomically(files.join(self.path, name), content)
        self.written.append(name)

    def table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV."""
        self.write(f"{name}.csv", table.to_csv(index=False))

    def picture(self, name: str, drawn: style.Figure) -> None:
        """Writes a PNG."""
        self.pictures[name] = style.png(drawn)
        self.write(f"plots/{name}.png", self.pictures[name])

    def remove_old_pictures(self) -> None:
        """Removes what an earlier exploration drew and this one did not."""
        for name in (f"plots/{picture}.png" for picture in _PICTURES):
            path = files.join(self.path, name)
            if name not in self.written and tf.io.gfile.exists(path):
                tf.io.gfile.remove(path)


def explore(given: Config, *, output_dir: str, class_: str, show: bool) -> None:
    """Draws and measures a data set and how a run of this configuration would see it.

    Args:
        given: of a run; only what concerns data, augmentation and rates matters.
        output_dir: folder for pictures and tables; '': `runs/exploration-…`.
        class_: name or label of a class whose photos alone are wanted; '': the whole data set.
        show: also open the pictures in windows.

    Raises:
        RequestError: the folder, the class or the data set cannot be used.
    """
    output = Output(output_dir or _default_output_dir(given))
    output.begin()
    config = parts.resolve(given, parts.choose_devices(given))
    folder = parts.data_folder(config)
    names = parts.class_names(config, folder)
    label = classes.find_class(class_, names) if class_ else None
    there = [s for s in records.SPLITS if tf.io.gfile.isdir(files.join(folder, s))]
    wanted = there if label is None else [s for s in there if s in records.LABELED_SPLITS]
    # Without any, the usual error says what a data set is.
    data = parts.load_data(config, tuple(wanted or records.SPLITS))
    with parts.naming_bad_records(config, data):
        if label is None:
            _explore_all(config, data, output)
        else:
            _explore_class(config, data, label, output)
    progress.say(f"\nIn {output.path}: {', '.join(output.written)}")
    if show and not style.show(output.pictures):
        progress.say("--show: no display here; look at the files.")


def _explore_class(config: Config, data: parts.Data, label: int, output: Output) -> None:
    name = data.class_names[label]
    drawn = exploration_sheets.class_sheet(
        list(data.splits.values()), label, name, seed=config.seed
    )
    if not drawn:
        raise RequestError(f"--class={name}: there is no photo of it in {' or '.join(data.splits)}")
    slug = re.sub(r"\W+", "_", name).strip("_")
    output.picture(f"class_{label:03d}_{slug}", drawn)


def _explore_all(config: Config, data: parts.Data, output: Output) -> None:
    summary: dict[str, Any] = {
        "data_dir": config.data_dir,
        "image_size": config.image_size,
        "classes": len(data.class_names),
        "missing_splits": [split for split in records.SPLITS if split not in data.splits],
    }
    _say(
        "data",
        f"{data.folder}, {len(data.class_names)} classes, the model sees {config.image_size} px",
    )
    if missing := summary["missing_splits"]:
        _say("missing", f"{', '.join(missing)}: no such folder; explored is what is there")
    summary |= _explore_labels(config, data, output)
    summary |= _explore_photos(config, data, output)
    for number, split in enumerate(data.splits.values()):
        drawn = exploration_sheets.sample_sheet(split, data.class_names, seed=config.seed + number)
        output.picture(f"sample_{split.name}", drawn)
    if train := data.splits.get("train"):
        drawn = exploration_sheets.augmentation_sheet(
            train, data.class_names, _augment_photo(config, train.photo_size), seed=config.seed
        )
        output.picture("augmentation", drawn)
        summary |= _explore_rates(config, train, output)
    output.write("summary.json", json.dumps(summary, indent=2) + "\n")
    output.remove_old_pictures()


def _explore_labels(config: Config, data: parts.Data, output: Output) -> dict[str, Any]:
    splits = list(data.splits.values())
    summary: dict[str, Any] = {
        "splits": {
            split.name: {
                "photos": split.size,
                "photo_size": split.photo_size,
                "shards": len(split.shards),
                "left_out": split.left_out,
            }
            for split in splits
        }
    }
    for name, values in summary["splits"].items():
        left_out = f", {values['left_out']:,} bad left out" if values["left_out"] else ""
        _say(
            name,
            f"{values['photos']:,} photos of {values['photo_size']} px in {values['shards']} shards"
            f"{left_out}",
        )
    labels = {split.name: split.labels for split in splits if split.labels is not None}
    if not labels:
        return summary
    counts = exploration.class_counts(labels, data.class_names)
    output.table("class_counts", counts)
    output.picture("labels", exploration.plot_labels(counts))
    summary["imbalance"] = {}
    for name in labels:
        values = exploration.imbalance(counts[name].to_numpy())
        summary["imbalance"][name] = values
        largest = data.class_names[counts[name].idxmax()]
        absent = f", {values['absent']} without photos" if values["absent"] else ""
        _say(
            f"classes of {name}",
            f"{values['smallest']:,} photos at least, {values['largest']:,} at most ({largest}): "
            f"ratio {values['ratio']:.3g}; {values['effective_classes']:.1f} effective classes of "
            f"{len(counts)}{absent}",
        )
    if len(labels) == 2:
        comparison = exploration.compare(
            *(counts[name].to_numpy() for name in labels), seed=config.seed
        )
        summary["comparison"] = comparison._asdict()
        _say("train and val", str(comparison))
    return summary


def _explore_photos(config: Config, data: parts.Data, output: Output) -> dict[str, Any]:
    sizes = {name: split.jpeg_sizes for name, split in data.splits.items()}
    table = exploration_images.jpeg_sizes(sizes)
    output.table("jpeg_sizes", table)
    output.picture("jpeg_sizes", exploration_images.plot_jpeg_sizes(sizes))
    for row in table.itertuples():
        _say(
            f"JPEGs of {row.split}",
            f"{row.total / 1e6:,.1f} MB, {row.min / 1e3:.1f} to {row.max / 1e3:.1f} kB each, "
            f"median {row.median / 1e3:.1f} kB",
        )
    equal = exploration_images.duplicates(data.splits.values(), data.class_names)
    output.table("duplicates", equal)
    count = exploration_images.count_duplicates(equal)
    if count["groups"]:
        output.picture("duplicates", exploration_sheets.duplicate_sheet(equal, data.splits))
        _say(
            "duplicates",
            f"{count['photos']:,} photos in {count['groups']:,} groups of byte-identical ones; "
            f"{count['across_splits']:,} groups across splits, {count['contradicting_labels']:,} "
            "with contradicting labels",
        )
    else:
        _say("duplicates", "no two photos are byte for byte the same")
    summary: dict[str, Any] = {
        "jpeg_bytes": table.set_index("split").to_dict("index"),
        "duplicates": count,
    }
    if train := data.splits.get("train"):
        pixels = exploration_images.pixel_statistics(train)
        summary["pixels_of_train"] = {
            "mean": (pixels.mean / 255).tolist(),
            "std": (pixels.std / 255).tolist(),
            "mean_0_255": pixels.mean.tolist(),
            "std_0_255": pixels.std.tolist(),
        }
        for name, values in zip(("mean", "std"), pixels, strict=True):
            scaled = ", ".join(f"{value:.4f}" for value in values / 255)
            whole = ", ".join(f"{value:.2f}" for value in values)
            _say(f"{name} of train", f"red, green, blue {scaled} (of 0 to 255: {whole})")
    return summary


def _augment_photo(config: Config, photo_size: int) -> Callable[[bytes, int], np.ndarray]:
    """Returns what makes of a photo, and an example's number, what the model gets."""
    return functools.partial(
        exploration_sheets.augmented,
        seed=config.seed,
        decoder=feed.train_decoder(config, photo_size),
        image_size=config.image_size,
        augmentation=feed.augmentation(config),
    )


def _explore_rates(config: Config, train: records.Split, output: Output) -> dict[str, Any]:
    steps_per_epoch = train.size // config.global_batch_size
    if not steps_per_epoch:
        _say(
            "learning rate",
            f"not drawn: train has {train.size} photos, fewer than the global batch of "
            f"{config.global_batch_size}",
        )
        return {}
    epochs = {"warm-up": config.warmup_epochs, "fine-tuning": config.epochs}
    stages = {name: number for name, number in epochs.items() if number}
    rates = parts.learning_rates(config, steps_per_epoch)
    output.picture("learning_rate", exploration.plot_learning_rate(rates, stages))
    summary = {}
    for name, part in exploration.split_stages(rates, stages).items():
        summary[name] = {
            "epochs": stages[name],
            "steps": len(part),
            **{
                key: float(value)
                for key, value in zip(
                    ("start", "peak", "end"), (part[0], part.max(), part[-1]), strict=True
                )
            },
        }
        _say(
            "learning rate",
            f"schedule of {name}: {exploration.rate_range(part)} (start, peak, end); "
            f"{stages[name]} x {steps_per_epoch:,} steps",
        )
    return {"learning_rate": summary}


def _say(name: str, text: str) -> None:
    progress.say(f"{name:>16}  {text}")


def _default_output_dir(config: Config) -> str:
    name = os.path.basename(os.path.abspath(config.data_dir.rstrip("/"))) or "data"
    return os.path.join("runs", f"exploration-{name}-{config.image_size}px")
