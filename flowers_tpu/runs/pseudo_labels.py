"""Test photos with the labels that a run gives them, as a data set to train with."""

import os

import numpy as np

from flowers_tpu.data import fingerprints, records
from flowers_tpu.evaluation import predictions
from flowers_tpu.reports import photos
from flowers_tpu.runs import calibrating
from flowers_tpu.runs.options import PredictOptions
from flowers_tpu.runs.results import Trained
from flowers_tpu.system import files, folders, publish, terminal
from flowers_tpu.system.errors import RequestError
from flowers_tpu.system.signals import Signals

TABLE = "pseudo_labels.csv"
_PHOTOS_PER_SHARD = 1000


def write(trained: Trained, options: PredictOptions, signals: Signals) -> None:
    """Writes the test photos of which a run is sure, and where their labels come from.

    The folder has `train/`, `classes.txt`, `pseudo_labels.csv` (id, class, confidence) and
    `pseudo_labels.json` (run, weights, views, temperature, threshold, and a fingerprint of the
    photos that were predicted). A training with it is told by that file that a model gave the
    labels.

    Args:
        trained: with the test split.
        options: with the threshold, and the folder to make.
        signals: looked at between batches.

    Raises:
        RequestError: the folder holds something else, or no photo is predicted that surely.
        StoppedError: a signal came.
    """
    split, names = trained.data.splits["test"], trained.data.class_names
    size = trained.feed.recipe.spec.data.evaluation_size
    made = calibrating.made_by(options.checkpoint, size, trained.views)
    temperature = calibrating.read((trained.folder,), made)
    logits = trained.logits(split, signals) / (temperature or 1.0)
    table = predictions.table(split.ids, logits, None, names)
    sure = np.flatnonzero(table["confidence"] >= options.pseudo_labels)
    if not len(sure):
        raise RequestError(
            f"--pseudo_labels={options.pseudo_labels}: the run is not that sure of any of "
            f"{split.size:,} photos; the surest has {table['confidence'].max():.4f}"
        )
    labels = table["predicted_label"].to_numpy()[sure]
    with publish.published(options.output_dir, "output_dir", folders.PSEUDO_LABELED) as part:
        rows = [
            records.serialize_example(str(split.ids[number]), jpeg, int(label))
            for number, jpeg, label in zip(
                sure, photos.read_jpegs(split, sure), labels, strict=True
            )
        ]
        records.write_shards(
            *(files.join(part, "train"), rows, split.photo_size),
            num_shards=-(-len(rows) // _PHOTOS_PER_SHARD),
        )
        files.write_atomically(
            files.join(part, "classes.txt"), "".join(f"{name}\n" for name in names)
        )
        columns = ["id", "predicted_name", "confidence"]
        files.write_atomically(
            files.join(part, TABLE), table.loc[sure, columns].to_csv(index=False)
        )
        about = {"run": trained.folder.path, **made, "temperature": temperature}
        about |= {"threshold": options.pseudo_labels, "photos": len(sure), "of": split.size}
        about |= {"predicted": fingerprints.content(split, names)}
        publish.mark(part, folders.PSEUDO_LABELED, about)
    terminal.say(
        f"{options.output_dir}: {len(sure):,} of {split.size:,} test photos, of "
        f"{len(set(labels.tolist()))} of {len(names)} classes, with the labels that "
        f"{os.path.basename(trained.folder.path)} gives them; --extra_data_dirs takes them"
    )
