"""TensorBoard's event files, written without its package, which needs 15 others.

A file is a list of records: length (8 bytes), its checksum, an Event (protocol buffers), its
checksum. The fields used here: Event.wall_time 1, step 2, file_version 3, summary 5; Summary's
value 1; Value.tag 1, simple_value 2, tensor 8, metadata 9; its plugin_data 1, plugin_name 1; of a
tensor dtype 1, tensor_shape 2 (dim 2, size 1), string_val 8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from moaa.errors import StoreError
from moaa.store import Store
from moaa.trackers.entry import TrackerEntry

_DT_STRING: Final = 7


def write(entry: TrackerEntry, store: Store) -> None:
    """Write the entry's event file; `tensorboard --logdir` reads the folder above it."""
    store.put(_address(entry, store), event_file(entry))


def remove_others(entry: TrackerEntry, store: Store) -> None:
    """Delete the stage's other event files, if possible: this entry's file is complete. Those of
    attempts that were stopped would show their steps a second time."""
    with suppress(StoreError):
        found = (uri for uri, _ in store.list(f"{_folder(entry, store)}/"))
        store.delete(*(uri for uri in found if uri != _address(entry, store)))


def _address(entry: TrackerEntry, store: Store) -> str:
    return f"{_folder(entry, store)}/events.out.tfevents.{int(entry.made_s)}.moaa"


def _folder(entry: TrackerEntry, store: Store) -> str:
    return f"{store.root}/tensorboard/{entry.run_id}/{entry.stage}"


def event_file(entry: TrackerEntry) -> bytes:
    """Return the bytes of an event file with all scalars and tags."""
    when = _double(1, entry.made_s)
    events = [when + _text(3, "brain.Event:2")]
    for name, step, value in entry.scalars:
        summary = _bytes(1, _text(1, name) + _float(2, value))
        events.append(when + _number(2, step) + _bytes(5, summary))
    lineage = "\n".join(f"- {name}: {value}" for name, value in entry.tags.items())
    text = _bytes(9, _bytes(1, _text(1, "text"))) + _bytes(8, _strings(lineage))
    events.append(when + _bytes(5, _bytes(1, _text(1, f"{entry.stage}/lineage") + text)))
    return b"".join(_records(events))


def _strings(*texts: str) -> bytes:
    """Return a tensor of strings."""
    shape = _bytes(2, _number(1, len(texts)))
    return _number(1, _DT_STRING) + _bytes(2, shape) + b"".join(_text(8, each) for each in texts)


def _records(events: Iterable[bytes]) -> Iterable[bytes]:
    for event in events:
        length = struct.pack("<Q", len(event))
        yield length + _checksum(length) + event + _checksum(event)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _key(field, 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _crc_table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_CRC32C = _crc_table()


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C of TensorFlow's records."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
