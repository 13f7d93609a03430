"""Photos of one colour, and data sets made of them."""

import pandas as pd
import tensorflow as tf
from PIL import Image

from flowers_tpu.convert import convert
from flowers_tpu.convert.options import ConvertOptions
from flowers_tpu.data import records
from flowers_tpu.data.shards import data_folder
from flowers_tpu.data.splits import read_split

FLAGS = {
    "sizes": "16,24",
    "quality": 90,
    "shards": 3,
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "threads": 2,
}
BRIGHTNESS = {"iris": 40, "rose": 120, "tulip": 200}


def draw(path, brightness, number=0, size=(40, 30)):
    """A photo of one colour; those of other numbers differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (brightness, 20 * number, 90)).save(path, quality=95)


def draw_all(folder, per_class=10):
    for label, brightness in BRIGHTNESS.items():
        for number in range(per_class):
            draw(folder / label / f"{number}.jpg", brightness, number)
    return folder


def make(output, **flags):
    convert.convert(ConvertOptions(**{**FLAGS, "output_dir": str(output), **flags}))
    return output


def read(output, split, size=16, num_classes=3):
    folder = data_folder(str(output), size)
    return read_split(folder, split, num_classes)


def photos_of(output, split, size=16):
    """Returns the pixels by id."""
    shards = sorted((output / f"tfrecords-jpeg-{size}x{size}" / split).iterdir())
    parsed = map(records.parse, tf.data.TFRecordDataset([str(shard) for shard in shards]))
    return {p["id"].numpy().decode(): tf.io.decode_jpeg(p["image"]).numpy() for p in parsed}


def table(output, name):
    return pd.read_csv(output / f"{name}.csv", keep_default_na=False)


def bytes_of(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
