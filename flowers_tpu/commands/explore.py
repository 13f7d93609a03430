"""Shows a data set, and what a recipe makes of it, in pictures and tables.

    python scripts/explore.py --data_dir=DATA --image_size=192 --output_dir=FOLDER
    python scripts/explore.py --flagfile=scripts/flagfiles/oxford102.flags --class="water lily"

Prints a summary and writes it as summary.json; beside it class_counts.csv, jpeg_sizes.csv and
duplicates.csv (photos that are byte for byte the same) and near_copies.csv (that show the same:
re-encoded, resized, mirrored, cropped), and in plots/: labels.png (photos per class),
sample_{train,val,test}.png, jpeg_sizes.png, duplicates.png, near_copies.png, and by the flags of a
run, such as a flagfile's, augmentation.png and learning_rate.png. With --class only photos of that
class are drawn. Of the flags of a run those for data, augmentation, batch and learning rate matter.

Rates follow from the global batch: --replicas=8 shows those of eight replicas. Where the data of a
recipe are not at hand, an empty --data_dir draws its rates alone, for as many training photos as
the competition has (12,753):

    python scripts/explore.py --flagfile=scripts/flagfiles/notebook_vgg16.flags --data_dir=
"""

import functools
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from flowers_tpu.data import classes, near_copies, records
from flowers_tpu.reports import style
from flowers_tpu.reports.exploration import images, labels, sheets
from flowers_tpu.reports.exploration.folder import ExplorationFolder
from flowers_tpu.reports.options import ExploreOptions
from flowers_tpu.runs.data import Data, class_names_of
from flowers_tpu.runs.feed import train_decoder
from flowers_tpu.runs.recipe import Recipe
from flowers_tpu.runs.spec import Spec
from flowers_tpu.system import files, terminal
from flowers_tpu.system.errors import RequestError

_ASSUMED_PHOTOS = 12_753  # the competition's training photos, for a recipe without its data


def explore(given: Spec, options: ExploreOptions) -> None:
    """Draws and measures a data set and how a run of this specification would see it.

    Args:
        given: of a run; only what concerns data, augmentation and rates matters. Without a
            `data_dir`, only rates are drawn, for as many training photos as the competition has.
        options: what to draw, and where to.

    Raises:
        RequestError: the folder, the class or the data set cannot be used.
    """
    data = given.data
    if options.class_ and not data.data_dir:
        raise RequestError(f"--class={options.class_}: needs the photos of a --data_dir")
    about = {"data_dir": data.data_dir.rstrip("/"), "image_size": data.image_size}
    output = ExplorationFolder(options.output_dir or _default_output_dir(given), about)
    output.check()
    recipe = Recipe.choose(given)
    if data.data_dir:
        _explore_data(recipe, options.class_, output)
    else:
        _explore_recipe(recipe, output)
    terminal.say(f"\nIn {output.path}: {', '.join(output.written)}")
    if options.show and not style.show(output.pictures):
        terminal.say("--show: no display here; look at the files.")


def _explore_recipe(recipe: Recipe, output: ExplorationFolder) -> None:
    output.begin(anew=True)
    _say("data", f"none; {_ASSUMED_PHOTOS:,} training photos are assumed, the competition's")
    output.summary(_explore_rates(recipe, _ASSUMED_PHOTOS, output, assumed=True))
    output.draw_pictures()


def _explore_data(recipe: Recipe, class_: str, output: ExplorationFolder) -> None:
    folder = _data_folder(recipe)
    names = class_names_of(recipe.spec.data, folder) or classes.FLOWERS
    label = classes.find_class(class_, names) if class_ else None
    there = [s for s in records.SPLITS if files.is_dir(files.join(folder, s))]
    wanted = there if label is None else [s for s in there if s in records.LABELED_SPLITS]
    # Without any, the usual error says what a data set is.
    data = recipe.load_data(tuple(wanted or records.SPLITS))
    with recipe.naming_bad_records(data):
        if label is None:
            _explore_all(recipe, data, output)
        else:
            _explore_class(recipe, data, label, output)
        output.draw_pictures()


def _explore_class(recipe: Recipe, data: Data, label: int, output: ExplorationFolder) -> None:
    name = data.class_names[label]
    drawn = sheets.class_sheet(
        list(data.splits.values()), label, name, seed=recipe.spec.training.seed
    )
    if not drawn:
        raise RequestError(f"--class={name}: there is no photo of it in {' or '.join(data.splits)}")
    output.begin(anew=False)
    slug = re.sub(r"\W+", "_", name).strip("_")
    output.picture(f"class_{label:03d}_{slug}", lambda: drawn)


def _explore_all(recipe: Recipe, data: Data, output: ExplorationFolder) -> None:
    output.begin(anew=True)
    missing = [split for split in records.SPLITS if split not in data.splits]
    summary: dict[str, Any] = {"classes": len(data.class_names), "missing_splits": missing}
    _say(
        "data",
        f"{data.folder}, {data.num_classes} classes, the model sees "
        f"{recipe.spec.data.image_size} px",
    )
    if missing:
        _say("missing", f"{', '.join(missing)}: no such folder; explored is what is there")
    summary |= _explore_labels(recipe, data, output)
    summary |= _explore_photos(recipe, data, output)
    for number, split in enumerate(data.splits.values()):
        draw = functools.partial(
            sheets.sample_sheet, split, data.class_names, seed=recipe.spec.training.seed + number
        )
        output.picture(f"sample_{split.name}", draw)
    if train := data.splits.get("train"):
        draw = functools.partial(
            sheets.augmentation_sheet,
            *(train, data.class_names, _augment_photo(recipe, train.photo_size)),
            seed=recipe.spec.training.seed,
        )
        output.picture("augmentation", draw)
        summary |= _explore_rates(recipe, train.size, output)
    output.summary(summary)


def _explore_labels(recipe: Recipe, data: Data, output: ExplorationFolder) -> dict[str, Any]:
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
    by_split = {split.name: split.labels for split in splits if split.labels is not None}
    if not by_split:
        return summary
    counts = labels.class_counts(by_split, data.class_names)
    output.table("class_counts", counts)
    output.picture("labels", functools.partial(labels.plot_labels, counts))
    terminal.say(f"\n{labels.counts_text(counts)}\n")
    summary["imbalance"] = {}
    for name in by_split:
        values = labels.imbalance(counts[name].to_numpy())
        summary["imbalance"][name] = values
        largest = data.class_names[counts[name].idxmax()]
        absent = f", {values['absent']} without photos" if values["absent"] else ""
        _say(
            f"classes of {name}",
            f"{values['smallest']:,} photos at least, {values['largest']:,} at most ({largest}): "
            f"ratio {values['ratio']:.3g}; {values['effective_classes']:.1f} effective classes of "
            f"{len(counts)}{absent}",
        )
    if len(by_split) == 2:
        comparison = labels.compare(
            *(counts[name].to_numpy() for name in by_split), seed=recipe.spec.training.seed
        )
        summary["comparison"] = comparison._asdict()
        _say("train and val", str(comparison))
    return summary


def _explore_photos(recipe: Recipe, data: Data, output: ExplorationFolder) -> dict[str, Any]:
    sizes = {name: split.jpeg_sizes for name, split in data.splits.items()}
    table = images.jpeg_sizes(sizes)
    output.table("jpeg_sizes", table)
    output.picture("jpeg_sizes", functools.partial(images.plot_jpeg_sizes, sizes))
    for row in table.itertuples():
        _say(
            f"JPEGs of {row.split}",
            f"{row.total / 1e6:,.1f} MB, {row.min / 1e3:.1f} to {row.max / 1e3:.1f} kB each, "
            f"median {row.median / 1e3:.1f} kB",
        )
    splits = list(data.splits.values())
    alike = {
        "duplicates": images.duplicates(splits, data.class_names),
        "near_copies": images.near_copies(splits, data.class_names, near_copies.of_splits(splits)),
    }
    summary: dict[str, Any] = {"jpeg_bytes": table.set_index("split").to_dict("index")}
    for name, groups in alike.items():
        output.table(name, groups)
        summary[name] = images.count_duplicates(groups)
        _say(name.replace("_", "-"), images.groups_text(summary[name], name))
        if len(groups):
            draw = functools.partial(sheets.duplicate_sheet, groups, data.splits, name)
            output.picture(name, draw)
    if train := data.splits.get("train"):
        pixels = images.pixel_statistics(train)
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


def _augment_photo(recipe: Recipe, photo_size: int) -> Callable[[bytes, int], np.ndarray]:
    """Returns what makes of a photo, and an example's number, what the model gets."""
    return functools.partial(
        sheets.augmented,
        seed=recipe.spec.training.seed,
        decoder=train_decoder(recipe, photo_size),
        image_size=recipe.spec.data.image_size,
        augmentation=recipe.spec.augmentation,
    )


def _explore_rates(
    recipe: Recipe, num_photos: int, output: ExplorationFolder, *, assumed: bool = False
) -> dict[str, Any]:
    batch = recipe.resolved.photos_per_step
    steps_per_epoch = num_photos // batch
    if not steps_per_epoch:
        _say(
            "learning rate",
            f"not drawn: train has {num_photos} photos, fewer than the global batch of {batch}",
        )
        return {}
    photos = f"{num_photos:,} {'assumed ' if assumed else ''}training photos"
    replicas, schedule = recipe.facts.replicas, recipe.spec.schedule
    _say(
        "learning rate",
        f"for {photos} and a global batch of {batch} ({replicas} x "
        f"{recipe.photos_per_replica}, replicas x photos)",
    )
    epochs = {"warm-up": schedule.warmup_epochs, "fine-tuning": schedule.epochs}
    stages = {name: number for name, number in epochs.items() if number}
    rates = recipe.learning_rates(steps_per_epoch)
    title = f"Learning rate: {photos}, global batch {batch}"
    draw = functools.partial(labels.plot_learning_rate, rates, stages, title)
    output.picture("learning_rate", draw)
    summary: dict[str, Any] = {}
    for name, part in labels.split_stages(rates, stages).items():
        values = {"start": part[0], "peak": part.max(), "end": part[-1]}
        summary[name] = {
            "epochs": stages[name],
            "steps": len(part),
            **{key: float(value) for key, value in values.items()},
        }
        _say(
            "learning rate",
            f"schedule of {name}: {labels.rate_range(part)} (start, peak, end); "
            f"{stages[name]} x {steps_per_epoch:,} steps",
        )
    batches = {"training_photos": num_photos, "global_batch_size": batch, "replicas": replicas}
    return {"learning_rate": summary, "learning_rate_for": batches | {"assumed": assumed}}


def _data_folder(recipe: Recipe) -> str:
    try:
        return recipe.data_folder()
    except RequestError as error:
        raise RequestError(
            f"{error} (without data, --data_dir= draws the learning rates of a recipe alone)"
        ) from error


def _say(name: str, text: str) -> None:
    terminal.say(f"{name:>16}  {text}")


def _default_output_dir(given: Spec) -> str:
    name, data_dir = "recipe", given.data.data_dir
    if data_dir:
        name = os.path.basename(os.path.abspath(data_dir.rstrip("/"))) or "data"
    return os.path.join("runs", f"exploration-{name}-{given.data.image_size}px")
