"""What devices send each other, read from a compiled program's text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "f16": 2,
    "bf16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
}

Shape = tuple[int, ...]

ARRAY = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
# `-done` only waits for what `-start` sent.
SENT = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
# A TPU sums and scatters in one go inside a computation of its own; its text still says all-reduce.
FUSED = re.compile(r"%?(all-reduce-scatter[\w.\-]*) \(.*\) -> (.*) \{")


@dataclass(frozen=True)
class Array:
    """An array's type and shape, as the program writes them."""

    dtype: str
    shape: Shape

    @property
    def bytes(self) -> int:
        """Its size without the padding that a device adds."""
        size = BYTES.get(self.dtype, 4)
        for length in self.shape:
            size *= length
        return size

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(length) for length in self.shape)}]"


@dataclass(frozen=True)
class Collective:
    """One exchange in the program's text (in a loop it happens once a round), and the arrays that come out of it."""

    kind: str
    arrays: tuple[Array, ...]


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays named in the text of a result type, a tuple or not."""
    return tuple(
        Array(dtype, tuple(int(length) for length in shape.split(",") if length))
        for dtype, shape in ARRAY.findall(text)
    )


def collectives(program: str) -> list[Collective]:
    """Every exchange of a compiled program, a fused sum-and-scatter counted as the reduce-scatter that it is."""
    found, fused = [], False
    for line in program.splitlines():
        if line.startswith("}"):
            fused = False
        elif match := FUSED.match(line):
            fused = True
            found.append(Collective("reduce-scatter", arrays_of(match[2])))
        elif not fused and (match := SENT.search(line)):
            arrays = arrays_of(match[1])
            if match[3]:  # `-start` gives what went in, what comes out, and counters
                real = [array for array in arrays if array.shape]
                arrays = tuple(real[len(real) // 2 :])
            found.append(Collective(match[2], arrays))
    return found


def whole(arrays: Iterable[Array], weights: dict[str, Shape], dtypes: tuple[str, ...], layers: bool) -> tuple[str, ...]:
    """Which of `weights`, shapes by path, are whole among the arrays, in any order of axes.

    With `layers` also those of which one layer is; under `layers` a path's first axis counts them.
    """
    seen = {plain(array.shape) for array in arrays if array.dtype in dtypes}
    return tuple(
        path
        for path, shape in weights.items()
        if plain(shape) in seen or (layers and "layers" in path and plain(shape[1:]) in seen)
    )


def plain(shape: Shape) -> Shape:
    """A shape without axes of length 1, in ascending order: compilers add, drop and turn axes freely."""
    return tuple(sorted(length for length in shape if length > 1))
