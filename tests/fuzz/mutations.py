"""Damage: bytes and JSON values of real files, changed as accident and malice would."""

import copy
import json
from typing import Any

import numpy as np

NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"NaN", b"-Infinity", b"1e999", b"1" * 5000, b"-1", b"0", b"1000000000", b"1e400", b"null", b"true", b"{}", b"[]",
    b"[" * 5000, b'{"a":' * 3000, b"../../../etc/passwd", b"/dev/zero", b"\x00", b"\\u0000", b"\\ud800", b"\xff\xfe",
    b"\r\n", b",", b'"', b"{", b"}", b" ", b"9" * 25,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 7, 64, 10**4, 10**6, 10**9, 10**12, 2**62, 10**30, -(10**12), 0.5, -0.5, 1e-300,
    1e300, "", "64", "../../etc", "/dev/zero", "\x00", "\ud800", "x" * 10_000, [], {}, [[]], [1] * 1000, {"a": 1},
    ["a"], [None], [10**9, 10**9], {"_class_name": "os.system"}, "epsilon", "flow", "rope", "index", "vector",
]  # fmt: skip


def mutate_bytes(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One to six changes of a file; pieces may come from `other`."""
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 7))):
        damaged = bytearray(_one_change(damaged, other, random))
    return bytes(damaged)


def _one_change(data: bytearray, other: bytes, random: np.random.Generator) -> bytes:
    # Headers lie at the ends, and say more than what is between.
    size = len(data)
    span = min(size, 200) if random.random() < 0.4 else size
    at = int(random.integers(span + 1))
    at = size - at if random.random() < 0.3 else at
    length = int(random.integers(1, 64))
    match int(random.integers(9)):
        case 0:
            if size:
                data[at % size] ^= 1 << int(random.integers(8))
            return bytes(data)
        case 1:
            return bytes(data[:at]) + random.integers(0, 256, length, dtype=np.uint8).tobytes() + bytes(data[at:])
        case 2:
            return bytes(data[:at] + data[at + length :])
        case 3:
            return bytes(data[:at])
        case 4:
            width = int(random.choice([1, 2, 4, 8]))
            number = int(random.choice(np.array(NUMBERS, dtype=object))) % 256**width
            order = "little" if random.random() < 0.5 else "big"
            return bytes(data[:at]) + number.to_bytes(width, order) + bytes(data[at + width :])
        case 5:
            return bytes(data[:at] + data[at : at + length] * int(random.integers(2, 50)) + data[at:])
        case 6:
            start = int(random.integers(len(other) + 1))
            return bytes(data[:at]) + other[start : start + 16 * length] + bytes(data[at + 16 * length :])
        case 7:
            return bytes(data[:at]) + WORDS[int(random.integers(len(WORDS)))] + bytes(data[at:])
        case _:
            noise = random.integers(0, 256, length, dtype=np.uint8).tobytes()
            return bytes(data[:at]) + noise + bytes(data[at + length :])


def mutate_json(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Another value in some places of a JSON file; now and then a change of its bytes instead."""
    if random.random() < 0.2:
        return mutate_bytes(data, other, random)
    content = json.loads(data)
    for _ in range(int(random.integers(1, 4))):
        container, key = _pick_place(content, random)
        if container is None:
            break
        if random.random() < 0.1 and isinstance(container, dict):
            container.pop(key)
        elif random.random() < 0.05 and isinstance(container, dict):
            container[str(random.choice(["__class__", "quantization_config", "a.b", ""]))] = copy.deepcopy(
                container[key]
            )
        else:
            container[key] = copy.deepcopy(VALUES[int(random.integers(len(VALUES)))])
    return json.dumps(content).encode()


def _pick_place(content: Any, random: np.random.Generator) -> tuple[Any, Any]:
    places: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
        for key in keys:
            places.append((value, key))
            waiting.append(value[key])
    return places[int(random.integers(len(places)))] if places else (None, None)
