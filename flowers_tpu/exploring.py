"""What `scripts/explore.py` calls: a data set, and a recipe's view of it, in pictures and tables.

As `experiment.py` it takes a Config apart and gets its parts from `parts.py`.
"""

import functools
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from flowers_tpu import feed, files, parts, progress
from flowers_tpu.config import Config
from flowers_tpu.data import classes, records
from flowers_tpu.errors import RequestError
from flowers_tpu.exploration_folder import ExplorationFolder
from flowers_tpu.reports import exploration, exploration_images, exploration_sheets, style

_ASSUMED_PHOTOS = 12_753  # the competition's training photos, for a recipe without its data


def explore(given: Config, *, output_dir: str, class_: str, show: bool) -> None:
    """Draws and measures a data set and how a run of this configuration would see it.

    Args:
        given: of a run; only what concerns data, augmentation and rates matters. Without a
            `data_dir`, only rates are drawn, for as many training photos as the competition has.
        output_dir: folder for pictures and tables; '': `runs/exploration-…`.
        class_: name or label of a class whose photos alone are wanted; '': the whole data set.
        show: also open the pictures in windows.

    Raises:
        RequestError: the folder, the class or the data set cannot be used.
    """
    if class_ and not given.data_dir:
        raise RequestError(f"--class={class_}: needs the photos of a --data_dir")
    about = {"data_dir": given.data_dir.rstrip("/"), "image_size": given.image_size}
    output = ExplorationFolder(output_dir or _default_output_dir(given), about)
    output.check()
    config = parts.resolve(given, parts.choose_devices(given))
    if config.data_dir:
        _explore_data(config, class_, output)
    else:
        _explore_recipe(config, output)
    progress.say(f"\nIn {output.path}: {', '.join(output.written)}")
    if show and not style.show(output.pictures):
        progress.say("--show: no display here; look at the files.")


def _explore_recipe(config: Config, output: ExplorationFolder) -> None:
    output.begin(anew=True)
    _say("data", f"none; {_ASSUMED_PHOTOS:,} training photos are assumed, the competition's")
    output.summary(_explore_rates(config, _ASSUMED_PHOTOS, output, assumed=True))
    output.draw_pictures()


def _explore_data(config: Config, class_: str, output: ExplorationFolder) -> None:
    folder = _data_folder(config)
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
        output.draw_pictures()


def _explore_class(config: Config, data: parts.Data, label: int, output: ExplorationFolder) -> None:
    name = data.class_names[label]
    drawn = exploration_sheets.class_sheet(
        list(data.splits.values()), label, name, seed=config.seed
    )
    if not drawn:
        raise RequestError(f"--class={name}: there is no photo of it in {' or '.join(data.splits)}")
    output.begin(anew=False)
    slug = re.sub(r"\W+", "_", name).strip("_")
    output.picture(f"class_{label:03d}_{slug}", lambda: drawn)


def _explore_all(config: Config, data: parts.Data, output: ExplorationFolder) -> None:
    output.begin(anew=True)
    missing = [split for split in records.SPLITS if split not in data.splits]
    summary: dict[str, Any] = {"classes": len(data.class_names), "missing_splits": missing}
    _say(
        "data",
        f"{data.folder}, {len(data.class_names)} classes, the model sees {config.image_size} px",
    )
    if missing:
        _say("missing", f"{', '.join(missing)}: no such folder; explored is what is there")
    summary |= _explore_labels(config, data, output)
    summary |= _explore_photos(config, data, output)
    for number, split in enumerate(data.splits.values()):
        draw = functools.partial(
            exploration_sheets.sample_sheet, split, data.class_names, seed=config.seed + number
        )
        output.picture(f"sample_{split.name}", draw)
    if train := data.splits.get("train"):
        draw = functools.partial(
            exploration_sheets.augmentation_sheet,
            *(train, data.class_names, _augment_photo(config, train.photo_size)),
            seed=config.seed,
        )
        output.picture("augmentation", draw)
        summary |= _explore_rates(config, train.size, output)
    output.summary(summary)


def _explore_labels(config: Config, data: parts.Data, output: ExplorationFolder) -> dict[str, Any]:
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
    output.picture("labels", functools.partial(exploration.plot_labels, counts))
    progress.say(f"\n{exploration.counts_text(counts)}\n")
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


def _explore_photos(config: Config, data: parts.Data, output: ExplorationFolder) -> dict[str, Any]:
    sizes = {name: split.jpeg_sizes for name, split in data.splits.items()}
    table = exploration_images.jpeg_sizes(sizes)
    output.table("jpeg_sizes", table)
    output.picture("jpeg_sizes", functools.partial(exploration_images.plot_jpeg_sizes, sizes))
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
        draw = functools.partial(exploration_sheets.duplicate_sheet, equal, data.splits)
        output.picture("duplicates", draw)
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


def _explore_rates(
    config: Config, num_photos: int, output: ExplorationFolder, *, assumed: bool = False
) -> dict[str, Any]:
    batch = config.global_batch_size
    steps_per_epoch = num_photos // batch
    if not steps_per_epoch:
        _say(
            "learning rate",
            f"not drawn: train has {num_photos} photos, fewer than the global batch of {batch}",
        )
        return {}
    photos = f"{num_photos:,} {'assumed ' if assumed else ''}training photos"
    replicas = batch // config.batch_size_per_replica
    _say(
        "learning rate",
        f"for {photos} and a global batch of {batch} ({replicas} x "
        f"{config.batch_size_per_replica}, replicas x photos)",
    )
    epochs = {"warm-up": config.warmup_epochs, "fine-tuning": config.epochs}
    stages = {name: number for name, number in epochs.items() if number}
    rates = parts.learning_rates(config, steps_per_epoch)
    title = f"Learning rate: {photos}, global batch {batch}"
    draw = functools.partial(exploration.plot_learning_rate, rates, stages, title)
    output.picture("learning_rate", draw)
    summary: dict[str, Any] = {}
    for name, part in exploration.split_stages(rates, stages).items():
        values = {"start": part[0], "peak": part.max(), "end": part[-1]}
        summary[name] = {
            "epochs": stages[name],
            "steps": len(part),
            **{key: float(value) for key, value in values.items()},
        }
        _say(
            "learning rate",
            f"schedule of {name}: {exploration.rate_range(part)} (start, peak, end); "
            f"{stages[name]} x {steps_per_epoch:,} steps",
        )
    batches = {"training_photos": num_photos, "global_batch_size": batch, "replicas": replicas}
    return {"learning_rate": summary, "learning_rate_for": batches | {"assumed": assumed}}


def _data_folder(config: Config) -> str:
    try:
        return parts.data_folder(config)
    except RequestError as error:
        raise RequestError(
            f"{error} (without data, --data_dir= draws the learning rates of a recipe alone)"
        ) from error


def _say(name: str, text: str) -> None:
    progress.say(f"{name:>16}  {text}")


def _default_output_dir(config: Config) -> str:
    name = "recipe"
    if config.data_dir:
        name = os.path.basename(os.path.abspath(config.data_dir.rstrip("/"))) or "data"
    return os.path.join("runs", f"exploration-{name}-{config.image_size}px")
