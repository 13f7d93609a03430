"""What a record must be, and what is wrong with one that is not.

A shard is read once and told apart into the records that can be used and those that cannot. Nothing
here may end the process, whatever bytes a file holds.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from flowers_tpu.data import records, shard_bytes
from flowers_tpu.system import files
from flowers_tpu.system.errors import RequestError

# What TensorFlow raises at a record that is damaged, or is none of ours. Where its message quotes
# bytes that are no UTF-8, Python cannot make an exception of it and raises one of its own.
ERRORS = (tf.errors.InvalidArgumentError, tf.errors.DataLossError, UnicodeDecodeError)

UNLABELED = "no label"  # how the problem of a record without one begins
_DAMAGES = ("cut short", "damaged")  # how what is wrong with a record of ours begins
_BATCH = 256  # descriptions handed over at once
_DESCRIPTION = ("id", "label", "fingerprint", "jpeg_size", "shape")
_NOT_OURS = "not a tf.train.Example with the features `image` and `id` (bytes) and `class` (int)"
_ADVICE = (
    "; scripts/make_tfrecords.py --from_tfrecords=FOLDER makes a data set of records with others"
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a record cannot be used, or what is wrong with a shard as a whole.

    Attributes:
        path: of the shard.
        count: the records that the shard's name promises.
        record: its number in the shard, from 0; None for the shard as a whole.
        id: of the record; '' where it cannot be read.
        found: what is wrong, and what was expected.
    """

    path: str
    count: int
    record: int | None
    id: str
    found: str

    def __str__(self) -> str:
        if self.record is None:
            return f"{self.path}: {self.found}"
        return f"{self.path}: {self.place}{f', id {self.id}' if self.id else ''}: {self.found}"

    @property
    def place(self) -> str:
        """Where in the shard the record is, in words."""
        return f"record {self.record} of {self.count} (counted from 0)"


class Record(NamedTuple):
    """A record without its pixels."""

    number: int  # in its shard, from 0
    id: str
    label: int  # -1: none
    fingerprint: int  # of the JPEG's bytes, 63 bits
    jpeg_size: int  # bytes


class Contents(NamedTuple):
    """What a shard holds."""

    used: list[Record]
    left_out: tuple[int, ...]  # numbers of the records that cannot be used or are not there
    problems: list[Problem]


class _Finding(NamedTuple):
    """A record that could be read, and what is wrong with it ('' for nothing)."""

    id: str
    label: int
    fingerprint: int
    jpeg_size: int
    wrong: str


def examine(
    path: str, *, image_size: int, count: int, num_classes: int | None, decode: bool
) -> Contents:
    """Reads a shard and tells which of its records can be used.

    A shard is read up to the first record whose length or checksum is wrong. What its name promises
    beyond is left out, and so is what it holds beyond that.

    Args:
        path: of the shard.
        image_size: side of its photos, pixels.
        count: the records that its name promises.
        num_classes: labels are below it; None where there are none.
        decode: decode every photo, instead of reading the JPEG's header alone.

    Raises:
        RequestError: the file cannot be read, which says nothing of what it holds.
    """

    def read() -> tuple[list[_Finding], str]:
        if found := shard_bytes.stranger(shard_bytes.read_head(path)):
            return [], found
        whole, torn = count_whole(path)
        serialized = tf.data.TFRecordDataset(path, buffer_size=records.READ_BUFFER).take(whole)
        try:
            return _describe_all(serialized, image_size, num_classes, decode), torn
        except ERRORS:
            findings, damage = _describe_each(serialized, image_size, num_classes, decode)
            return findings, damage or torn

    try:
        findings, damage = files.patiently(read, path)
    except tf.errors.OpError as error:
        raise RequestError(f"{path}: cannot be read ({error.message})") from error

    problems = [
        Problem(path, count, number, finding.id, finding.wrong)
        for number, finding in enumerate(findings)
        if finding.wrong
    ]
    if common := _common_problem(path, findings):
        problems = [Problem(path, count, 0, findings[0].id, common)]
    if damage and not findings and not damage.startswith(_DAMAGES):
        problems.append(Problem(path, count, None, "", damage))
    elif damage:
        after = count - len(findings) - 1
        lost = f"; the {after} records after it cannot be reached" if after > 0 else ""
        problems.append(Problem(path, count, len(findings), "", damage + lost))
    elif len(findings) != count:
        found = (
            f"holds {len(findings)} records, but its name says {count}; rename it to the true "
            "count if nothing is missing, or copy it again"
        )
        problems.insert(0, Problem(path, count, None, "", found))
    used = [
        Record(number, *finding[:-1])
        for number, finding in enumerate(findings[:count])
        if not finding.wrong
    ]
    numbers = {record.number for record in used}
    left_out = (n for n in range(max(count, len(findings))) if n not in numbers)
    return Contents(used, tuple(left_out), problems)


def _common_problem(path: str, findings: Sequence[_Finding]) -> str:
    """What is wrong with all records of a shard in the same way, said once; '' for nothing.

    Records with other features are not damaged one by one.
    """
    wrong = {finding.wrong for finding in findings}
    if len(findings) < 2 or len(wrong) != 1:
        return ""
    (common,) = wrong
    if common.startswith(UNLABELED):
        dataset = tf.data.TFRecordDataset(path, buffer_size=records.READ_BUFFER)
        common += f"; it has {shard_bytes.features_of(next(iter(dataset)).numpy())}"
    elif not common.startswith(_NOT_OURS):
        return ""
    return f"{common}; so it is with all {len(findings)} records{_ADVICE}"


def count_whole(path: str) -> tuple[int, str]:
    """Returns the number of records before the first that is longer than its file, and its damage.

    TensorFlow's reader asks for a record's memory before it reads it, and a length of terabytes
    (with a right checksum) ends the process. So lengths are looked at first.
    """
    size = files.size(path)
    whole, begin = 0, 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while begin + shard_bytes.HEADER <= size:
            file.seek(begin)
            length = int.from_bytes(file.read(shard_bytes.LENGTH), "little")
            begin += shard_bytes.HEADER + length + shard_bytes.FOOTER
            if begin > size:
                torn = f"cut short or damaged: it says {length} bytes, which the file does not have"
                return whole, torn
            whole += 1
    return whole, ""


def _describe_all(
    serialized: tf.data.Dataset, image_size: int, num_classes: int | None, decode: bool
) -> list[_Finding]:
    """Describes the records of a shard in which each can be parsed and has a JPEG."""
    dataset = serialized.map(
        lambda record: _describe(record, image_size, decode),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).batch(_BATCH)
    return [
        _judge(*row, image_size=image_size, num_classes=num_classes)
        for batch in dataset.as_numpy_iterator()
        for row in zip(*(batch[name] for name in _DESCRIPTION), strict=True)
    ]


def _describe_each(
    serialized: tf.data.Dataset, image_size: int, num_classes: int | None, decode: bool
) -> tuple[list[_Finding], str]:
    """Describes records one by one, up to a damaged one; returns its damage too, '' for none."""
    findings = []
    try:
        for record in serialized:
            try:
                row = _describe(record, image_size, decode)
            except ERRORS:
                findings.append(_explain(record))
            else:
                values = (row[name].numpy() for name in _DESCRIPTION)
                findings.append(_judge(*values, image_size=image_size, num_classes=num_classes))
    except tf.errors.DataLossError:
        return findings, "damaged: its checksum does not match"
    return findings, ""


def _describe(serialized: tf.Tensor, image_size: int, decode: bool) -> dict[str, tf.Tensor]:
    """Everything of a record but its pixels."""
    example = records.parse(serialized)
    image = example["image"]
    shape = tf.io.extract_jpeg_shape(image)
    pixels = tf.constant(0)
    if decode:
        # What promises another size is refused as it is; decoded, it may be gigabytes.
        pixels = tf.cond(
            tf.reduce_all(shape[:2] == image_size),
            lambda: tf.size(tf.io.decode_jpeg(image, channels=3)),
            lambda: 0,
        )
    return {
        "id": example["id"],
        "label": example["label"],
        "shape": shape,
        "fingerprint": tf.strings.to_hash_bucket_fast(image, 2**63 - 1),
        "jpeg_size": tf.strings.length(image),
        "pixels": pixels,  # or the decoding would be optimized away
    }


def _judge(
    raw_id: bytes, label: int, fingerprint: int, jpeg_size: int, shape: Sequence[int],
    image_size: int, num_classes: int | None,
) -> _Finding:  # fmt: skip
    """Judges a record that could be parsed and whose photo is a JPEG."""
    example_id = raw_id.decode(errors="replace")
    height, width = (int(side) for side in shape[:2])
    wrong = ""
    if not example_id.isprintable() or not example_id or "\ufffd" in example_id:
        wrong = f"its id is no text: {raw_id[:40]}"
    elif num_classes is not None and not 0 <= label < num_classes:
        found = UNLABELED if label == records.NO_LABEL else f"label {label}"
        wrong = f"{found}, expected 0 to {num_classes - 1}; check --classes"
    elif (height, width) != (image_size, image_size):
        wrong = f"a photo of {height}x{width} pixels, expected {image_size}x{image_size}"
    return _Finding(example_id, int(label), int(fingerprint), int(jpeg_size), wrong)


def _explain(serialized: tf.Tensor) -> _Finding:
    """Tells why a record cannot be described."""
    try:
        example = records.parse(serialized)
    except ERRORS:
        found = shard_bytes.features_of(serialized.numpy())
        return _Finding("", records.NO_LABEL, 0, 0, f"{_NOT_OURS}; it has {found}")
    example_id = example["id"].numpy().decode(errors="replace")
    try:
        tf.io.extract_jpeg_shape(example["image"])
        wrong = "a JPEG whose pixels cannot be decoded: damaged or cut short"
    except ERRORS:
        wrong = f"no JPEG, or a damaged header: begins with {example['image'].numpy()[:8]}"
    return _Finding(example_id, records.NO_LABEL, 0, 0, wrong)
