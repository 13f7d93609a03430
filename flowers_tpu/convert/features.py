"""The features of other people's records: which is the photo, which its class, which its id."""

import os
from typing import NamedTuple

import tensorflow as tf

from flowers_tpu.convert.options import ConvertOptions
from flowers_tpu.data import shard_bytes
from flowers_tpu.system.errors import RequestError

# The usual names, the first that is there and fits is taken.
_IMAGES = ("image", "image/encoded", "image_raw", "image/raw", "image_bytes", "encoded", "jpeg",
           "img", "image/data", "photo")  # fmt: skip
_LABELS = ("class", "image/class/label", "label", "class_id", "class_label", "image/label",
           "one_hot_class", "labels", "target", "category", "y")  # fmt: skip
_TEXTS = ("image/class/text", "class", "label", "class_name", "label_name", "class_text",
          "label_text", "image/class/synset", "species")  # fmt: skip
_IDS = ("id", "image/id", "image_id", "image_name", "image/filename", "file_name", "filename",
        "image/source_id", "image/key/sha256", "key")  # fmt: skip


class Names(NamedTuple):
    """The names of the features that are read; '' for one that is not there."""

    image: str
    label: str  # a number, one of several numbers that is not 0, or text
    text: str  # the name of the class, beside a label that is a number
    id: str

    @classmethod
    def choose(
        cls, example: tf.train.Example, options: ConvertOptions, where: str, *, needs_label: bool
    ) -> "Names":
        """Chooses among the features of a record.

        Args:
            example: the record.
            options: with the names that are asked for; '' for the usual ones.
            where: the record, for messages.
            needs_label: whether it must have one.

        Raises:
            RequestError: a feature is not there; the message says which are.
        """
        has = f"{where}: has the features {shard_bytes.features_of(example.SerializeToString())}"
        for flag, name in (
            ("image_feature", options.image_feature),
            ("id_feature", options.id_feature),
            ("label_feature", options.label_feature if needs_label else ""),
        ):
            if name and not _kind(example, name):
                raise RequestError(f"{has}, but no `{name}` (--{flag})")
        image = options.image_feature or _first(example, _IMAGES, ("bytes_list",))
        if not image:
            raise RequestError(f"{has}, none of which is known for a photo; give --image_feature")
        label, text = options.label_feature, ""
        if not label:
            label = _first(example, _LABELS, ("int64_list", "float_list"))
            text = _first(example, _TEXTS, ("bytes_list",))
            label, text = (label, text) if label else (text, "")
        if not label and needs_label:
            raise RequestError(f"{has}, none of which is known for a class; give --label_feature")
        given = options.id_feature or _first(example, _IDS, ("bytes_list", "int64_list"))
        return cls(image, label, text, given)

    def fit(self, example: tf.train.Example) -> bool:
        """Whether a record has all these features, and so no others have to be looked for."""
        return all(_kind(example, name) for name in self if name) and bool(self.label)


def bytes_of(example: tf.train.Example, name: str, where: str) -> bytes:
    """Returns a photo as it is encoded.

    Raises:
        RequestError: the feature is none of bytes.
    """
    values = example.features.feature[name].bytes_list.value
    if len(values) != 1:
        kind = shard_bytes.features_of(example.SerializeToString())
        raise RequestError(f"{where}: `{name}` is no photo as bytes; it has {kind}")
    return values[0]


def label_of(example: tf.train.Example, name: str, where: str) -> int | str | None:
    """Returns the class of a photo: a number, or its name; None if it has none.

    Raises:
        RequestError: it has several.
    """
    kind = _kind(example, name)
    if not kind:
        return None
    values = list(getattr(example.features.feature[name], kind).value)
    if kind == "bytes_list":
        if len(values) == 1:
            text = values[0].decode(errors="replace").strip()
            return int(text) if text.lstrip("-").isdecimal() else text or None
    elif len(values) == 1:
        if values[0] == int(values[0]):
            return None if values[0] < 0 else int(values[0])
    elif sorted(values)[-1] == 1 and not any(sorted(values)[:-1]):  # one hot
        return values.index(1)
    shown = ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
    raise RequestError(
        f"{where}: its label `{name}` is {shown}; expected one number, one name, or a single 1 "
        "among zeros. --label_feature takes another"
    )


def text_of(example: tf.train.Example, name: str) -> str:
    """Returns the name of a class; '' if the feature is not there."""
    if _kind(example, name) != "bytes_list":
        return ""
    return example.features.feature[name].bytes_list.value[0].decode(errors="replace").strip()


def id_of(example: tf.train.Example, name: str) -> str:
    """Returns an id, of a file's name without folders and ending; '' if there is none."""
    kind = _kind(example, name)
    if kind not in ("bytes_list", "int64_list"):
        return ""
    value = getattr(example.features.feature[name], kind).value[0]
    if isinstance(value, int):
        return str(value)
    text = value.decode(errors="replace").strip()
    stem, ending = os.path.splitext(os.path.basename(text))
    return stem if 1 < len(ending) <= 5 else os.path.basename(text)


def _first(example: tf.train.Example, names: tuple[str, ...], kinds: tuple[str, ...]) -> str:
    return next((name for name in names if _kind(example, name) in kinds), "")


def _kind(example: tf.train.Example, name: str) -> str:
    """`bytes_list`, `int64_list` or `float_list`; '' if the feature is not there, or empty."""
    if name not in example.features.feature:
        return ""
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind") or ""
    return kind if kind and getattr(feature, kind).value else ""
