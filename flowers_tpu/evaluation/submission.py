"""The file that the competition takes: `id,label`, a row for each test photo."""

import io

import numpy as np
import pandas as pd
import tensorflow as tf

from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError


def check_ids(path: str, ids: np.ndarray) -> None:
    """Compares the test photos' ids with those of a sample submission.

    Args:
        path: of the sample, a CSV with a column `id`.
        ids: of the test photos.

    Raises:
        RequestError: the sample lists other ids, or the same ones another number of times.
    """
    try:
        text = io.StringIO(files.read_text(path))
        sample = pd.read_csv(text, dtype={"id": str}, keep_default_na=False)
    except (ValueError, tf.errors.OpError) as error:  # pandas' parser errors are ValueErrors
        raise RequestError(f"{path}: cannot be read as a CSV file ({error})") from error
    if "id" not in sample:
        raise RequestError(f"{path}: has no column `id`; its columns are {list(sample.columns)}")
    expected = sample["id"].to_numpy()
    missing, surplus = np.setdiff1d(expected, ids), np.setdiff1d(ids, expected)
    if len(missing) or len(surplus) or len(expected) != len(ids):
        examples = ", ".join([*missing[:2], *surplus[:2]])
        raise RequestError(
            f"{path}: lists {len(expected)} ids, but the test split has {len(ids)}: "
            f"{len(missing)} of the list are not in the split and {len(surplus)} of the split are "
            f"not in the list{f' (such as {examples})' if examples else ''}"
        )


def submission(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns `id` and `label` from a table of predictions."""
    return predictions[["id", "predicted_label"]].rename(columns={"predicted_label": "label"})
