"""What is in a shard's place, by its bytes: records, compressed records, or something else."""

import zlib

import tensorflow as tf

from flowers_tpu.system import files

# A TFRecord: its length and the length's checksum, its data, and the data's checksum; bytes.
LENGTH, HEADER, FOOTER = 8, 12, 4
_HEAD = 1 << 12  # bytes that are looked at

# What else people find in a shard's place, by what it begins with.
_STRANGERS = (
    (b"version https://git-lfs", "a Git LFS pointer: the file is not here; run git lfs pull"),
    (b"PK\3\4", "a zip archive; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a rar archive; unpack it"),
    (b"BZh", "compressed by bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it"),
    (b"\xff\xd8\xff", "a JPEG, no shard"),
    (b"\x89PNG", "a PNG, no shard"),
    (b"<?xml", "an XML file, such as a bucket answers with: fetch the shard again"),
    (b"<!doctype", "a web page: the download gave no file; fetch it again"),
    (b"<html", "a web page: the download gave no file; fetch it again"),
    (b"{", "a JSON file, such as a server answers with: fetch the shard again"),
)  # fmt: skip


def compression_of(head: bytes) -> str | None:
    """Returns how the records of a file are compressed, as TensorFlow calls it, or None.

    '' for not at all; None if these are no records at all, or damaged ones.

    Args:
        head: the first bytes of the file; it is empty if they are.
    """
    if not head or _is_header(head):
        return ""
    for name, unpacked in (("GZIP", _unpack(head, 31)), ("ZLIB", _unpack(head, 15))):
        if _is_header(unpacked):
            return name
    return None


def stranger(head: bytes) -> str:
    """Returns what a file is that is no shard that can be trained on, in words; '' if it is one.

    Damaged records are not told from whole ones here.
    """
    compression = compression_of(head)
    if compression:
        return (
            f"its records are compressed by {compression.lower()}, which no training reads; "
            "scripts/make_tfrecords.py --from_tfrecords=FOLDER makes a data set of such shards"
        )
    if compression is None:
        is_text = b"\0" not in head[:HEADER]  # which a length has, even a damaged one
        begins = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower() if is_text else b""
        for beginning, what in _STRANGERS:
            of_text = beginning.lower() if beginning[:1] in b"<{" else None
            if begins.startswith(of_text) if of_text else head.startswith(beginning):
                return f"is {what}"
        if head.startswith(b"\x1f\x8b"):
            return "is compressed by gzip, and holds no records; unpack it"
    return ""


def read_head(path: str) -> bytes:
    """Returns the first bytes of a file."""

    def work() -> bytes:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read(_HEAD)

    return files.patiently(work, path)


def features_of(serialized: bytes) -> str:
    """Returns the features that a record has, in words, such as `image` (bytes)."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's own kind, which differs between its versions
        return "none: it is no tf.train.Example"
    if not features:
        return "none"
    return ", ".join(f"`{name}` ({_kind(features[name])})" for name in sorted(features)[:20])


def _kind(feature: tf.train.Feature) -> str:
    for name, word in (("bytes_list", "bytes"), ("int64_list", "int"), ("float_list", "float")):
        if feature.HasField(name):
            count = len(getattr(feature, name).value)
            return word if count == 1 else f"{count} × {word}"
    return "empty"


def _is_header(head: bytes) -> bool:
    """Whether bytes begin with a length and its checksum."""
    return len(head) >= HEADER and _masked_crc(head[:LENGTH]) == head[LENGTH:HEADER]


def _masked_crc(data: bytes) -> bytes:
    """The checksum of a TFRecord: CRC-32C, turned by 15 bits and moved, as TensorFlow has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _unpack(head: bytes, bits: int) -> bytes:
    try:
        return zlib.decompressobj(bits).decompress(head, HEADER)
    except zlib.error:
        return b""
