"""What the photos of a data set are like: their pixels, their sizes, and which are there twice."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from matplotlib.figure import Figure

from flowers_tpu.data import near_copies as grouping
from flowers_tpu.data import records
from flowers_tpu.data.near_copies import Pair
from flowers_tpu.data.splits import Split
from flowers_tpu.reports import photos, style
from flowers_tpu.system import terminal

_QUANTILES = {"min": 0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1}
_MOST_BARS = 30

_WORDS = {
    "duplicates": ("of byte-identical ones", "are byte for byte the same"),
    "near_copies": ("that show the same", "show the same"),
}


class PixelStatistics(NamedTuple):
    """Of all pixels of a split, by channel (red, green, blue), on the scale of 0 to 255.

    Attributes:
        mean: `[3]` float64.
        std: standard deviation, `[3]` float64.
    """

    mean: np.ndarray
    std: np.ndarray


def pixel_statistics(split: Split) -> PixelStatistics:
    """Decodes every photo of a split once; holds one at a time per reader.

    Sums are of whole numbers in float64, so exact, in whatever order they are made.
    """

    def sums(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        jpeg = records.parse(serialized)["image"]
        pixels = tf.reshape(tf.io.decode_jpeg(jpeg, channels=3), [-1, 3])
        pixels = tf.cast(pixels, tf.float64)
        return tf.shape(pixels)[0], tf.reduce_sum(pixels, 0), tf.reduce_sum(pixels**2, 0)

    dataset = photos.serialized(split.shards, in_order=False).map(
        sums, num_parallel_calls=tf.data.AUTOTUNE
    )
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    with terminal.bar(split.size, f"measuring {split.name}") as bar:
        for pixels, photo_total, photo_squares in dataset.as_numpy_iterator():
            count, total, squares = (
                count + int(pixels),
                total + photo_total,
                squares + photo_squares,
            )
            bar.update()
    mean = total / count
    return PixelStatistics(mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))


def jpeg_sizes(sizes: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Returns a row per split: `split`, `photos`, `total`, `mean` and quantiles, in bytes.

    Args:
        sizes: of the JPEG files by the split's name, `[examples]` int each, bytes.
    """
    rows = [
        {
            "split": split,
            "photos": len(values),
            "total": int(values.sum()),
            "mean": values.mean(),
            **{name: np.quantile(values, share) for name, share in _QUANTILES.items()},
        }
        for split, values in sizes.items()
    ]
    return pd.DataFrame(rows)


def plot_jpeg_sizes(sizes: Mapping[str, np.ndarray]) -> Figure:
    """Plots how large the JPEG files of the splits are, each as shares of its photos.

    Args:
        sizes: as of `jpeg_sizes`.
    """
    drawn, axes = style.figure(8, 4.5)
    kilobytes = {split: values / 1000 for split, values in sizes.items()}
    everything = np.concatenate(list(kilobytes.values()))
    edges = np.histogram_bin_edges(everything, bins=min(_MOST_BARS, int(len(everything) ** 0.5)))
    for split, values in kilobytes.items():
        share = np.histogram(values, edges)[0] / len(values) * 100
        median = np.median(values)
        axes.stairs(
            share, edges, color=style.SPLITS[split], lw=2,
            label=f"{split}: {len(values):,}, median {median:.1f} kB",
        )  # fmt: skip
        axes.axvline(median, color=style.SPLITS[split], lw=1, ls="--")
    axes.set_title("JPEG sizes (dashed: medians)")
    axes.set_xlabel(f"size of a photo's JPEG (kB of 1,000 bytes; bars of {np.ptp(edges[:2]):.2g})")
    axes.set_ylabel("photos of the split (%)")
    axes.set_ylim(bottom=0)
    axes.grid(True)
    drawn.legend(frameon=False, loc="outside lower center", ncols=len(sizes))
    return drawn


def duplicates(splits: Iterable[Split], class_names: Sequence[str]) -> pd.DataFrame:
    """Returns the photos that are there more than once, byte for byte, within and across splits.

    A row per photo: `group` (from 1; equal photos have the same), `split`, `index` (in file order),
    `id`, `label` (-1 where there is none), `class` ('' likewise).
    """
    splits = list(splits)
    return _grouped(splits, class_names, np.concatenate([split.fingerprints for split in splits]))


def near_copies(
    splits: Sequence[Split], class_names: Sequence[str], pairs: Sequence[Pair]
) -> pd.DataFrame:
    """Returns the photos that show what another one shows, as `duplicates` does.

    Two more columns: `correlation`, the highest with another photo of the group, and `mirrored`,
    whether it is the mirror image of that one.

    Args:
        splits: in the order in which `pairs` number their photos.
        class_names: by label.
        pairs: see `data.near_copies`.
    """
    best: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.correlation):
        best |= dict.fromkeys(pair[:2], pair)
    count = sum(split.size for split in splits)
    groups = grouping.groups(count, [pair[:2] for pair in pairs])
    table = _grouped(splits, class_names, groups)
    begins = np.cumsum([0, *(split.size for split in splits)])
    begin = dict(zip((split.name for split in splits), begins, strict=False))
    found = [best[begin[row.split] + row.index] for row in table.itertuples(index=False)]
    table["correlation"] = [pair.correlation for pair in found]
    table["mirrored"] = [pair.mirrored for pair in found]
    return table


def _grouped(splits: Sequence[Split], class_names: Sequence[str], key: np.ndarray) -> pd.DataFrame:
    """A row for each photo whose key another one has too."""
    tables = [
        pd.DataFrame(
            {
                "split": split.name,
                "index": np.arange(split.size),
                "id": split.ids,
                "label": -1 if split.labels is None else split.labels,
            }
        )
        for split in splits
    ]
    table = pd.concat(tables, ignore_index=True).assign(key=key)
    table = table[table.duplicated("key", keep=False)]
    group = table.groupby("key", sort=False).ngroup() + 1
    table.insert(0, "group", group)
    table["class"] = [class_names[label] if label >= 0 else "" for label in table["label"]]
    return table.drop(columns="key").sort_values("group", kind="stable", ignore_index=True)


def count_duplicates(table: pd.DataFrame) -> dict[str, int]:
    """Returns the numbers of `groups`, of `photos` in them, of groups `across_splits`, and more.

    Groups with `contradicting_labels` have photos of different classes.

    Args:
        table: of `duplicates`.
    """
    labeled = table[table["label"] >= 0]
    return {
        "groups": int(table["group"].nunique()),
        "photos": len(table),
        "across_splits": int((table.groupby("group")["split"].nunique() > 1).sum()),
        "contradicting_labels": int((labeled.groupby("group")["label"].nunique() > 1).sum()),
    }


def groups_text(count: Mapping[str, int], kind: str) -> str:
    """Returns the numbers of `count_duplicates` in words; `kind`: `duplicates` or `near_copies`."""
    of_groups, none = _WORDS[kind]
    if not count["groups"]:
        return f"no two photos {none}"
    return (
        f"{count['photos']:,} photos in {count['groups']:,} groups {of_groups}; "
        f"{count['across_splits']:,} groups across splits, {count['contradicting_labels']:,} with "
        "contradicting labels"
    )
