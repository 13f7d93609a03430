"""What a model gives for the photos of a split, kept to be combined without the model."""

import dataclasses
import io

import numpy as np

from flowers_tpu.data.splits import Split


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs for a split, and what its photos and classes are known by.

    Attributes:
        logits: `[examples, classes]` float, in file order; logarithms of probabilities are logits.
        ids: `[examples]` str.
        fingerprints: `[examples]` int64, of the bytes of the JPEGs.
        labels: `[examples]` int, or None where they are not known.
        class_names: by label.
        photo_size: side of the photos in the records, pixels.
        left_out: bad records that are no examples.
    """

    logits: np.ndarray
    ids: np.ndarray
    fingerprints: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    photo_size: int
    left_out: int = 0

    @property
    def known_labels(self) -> np.ndarray:
        """The labels; raises ValueError if they are not known."""
        if self.labels is None:
            raise ValueError("these photos have no labels")
        return self.labels

    @classmethod
    def of(cls, split: Split, logits: np.ndarray, class_names: tuple[str, ...]) -> "Outputs":
        """Puts the outputs for a split together with what is known of its photos."""
        return cls(
            logits=logits,
            ids=split.ids,
            fingerprints=split.fingerprints,
            labels=split.labels,
            class_names=class_names,
            photo_size=split.photo_size,
            left_out=split.left_out,
        )

    def taken(self, rows: np.ndarray) -> "Outputs":
        """Returns some of the examples, or all in another order.

        Args:
            rows: `[count]` int, their places.
        """
        return dataclasses.replace(
            self,
            logits=self.logits[rows],
            ids=self.ids[rows],
            fingerprints=self.fingerprints[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    def with_classes(self, class_names: tuple[str, ...]) -> "Outputs":
        """Returns the same with the classes in another order.

        Args:
            class_names: the same names.
        """
        places = [self.class_names.index(name) for name in class_names]
        new = np.argsort(places)
        return dataclasses.replace(
            self,
            logits=self.logits[:, places],
            labels=None if self.labels is None else new[self.labels],
            class_names=class_names,
        )

    def to_bytes(self) -> bytes:
        """Returns an `.npz` file; an array per attribute, none for labels that are not known."""
        arrays = dataclasses.asdict(self)
        arrays |= {name: np.asarray(arrays[name], str) for name in ("ids", "class_names")}
        file = io.BytesIO()
        np.savez_compressed(file, **{n: value for n, value in arrays.items() if value is not None})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Outputs":
        """Reads what `to_bytes` returned."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        return cls(
            **{name: arrays[name] for name in ("logits", "ids", "fingerprints")},
            labels=arrays.get("labels"),
            class_names=tuple(arrays["class_names"].tolist()),
            photo_size=int(arrays["photo_size"]),
            left_out=int(arrays["left_out"]),
        )
