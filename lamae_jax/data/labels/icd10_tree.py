"""Chapter IX of ICD-10-CM above its codes: blocks and the chapter itself, and what codes are called.

Blocks as the ICD-10-CM tabular list has them (National Center for Health Statistics, public domain); descriptions in
icd10_chapter_ix.csv, in words of our own.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

CHAPTER = "IX"
BLOCKS = (
    ("I00", "I02"),
    ("I05", "I09"),
    ("I10", "I1A"),
    ("I20", "I25"),
    ("I26", "I28"),
    ("I30", "I5A"),
    ("I60", "I69"),
    ("I70", "I79"),
    ("I80", "I89"),
    ("I95", "I99"),
)
TREE = (CHAPTER, *(f"{first}-{last}" for first, last in BLOCKS))
DESCRIPTIONS = Path(__file__).with_name("icd10_chapter_ix.csv")


def above(category: str) -> tuple[str, ...]:
    """The block and the chapter of a category: I48 -> I30-I5A, IX. A category that doesn't exist (I5Z) may be in no block."""
    if not category.startswith("I"):
        return ()
    # As texts, digits come before letters: I19 < I1A < I20.
    blocks = [f"{first}-{last}" for first, last in BLOCKS if first <= category <= last]
    return (*blocks, CHAPTER)


def place_of(name: str) -> int:
    """Where a label stands: 0 for the chapter, then the blocks in their order, all codes after them."""
    return TREE.index(name) if name in TREE else len(TREE)


def nested(name: str) -> tuple[str, bool]:
    """What sorts labels as the tree has them: IX, I30-I5A, I30, I48, I489, I60-I69."""
    return ("" if name == CHAPTER else name.partition("-")[0], name not in TREE)


def level_of(name: str) -> str:
    """The hierarchy level of a label: chapter, block, or how many characters its code has."""
    if name in TREE:
        return "chapter" if name == CHAPTER else "block"
    return str(len(name))


def description_of(name: str) -> str:
    """What a label means.

    A code that the list lacks gets the words of its nearest ancestor and that ancestor's code in brackets, as in `Heart failure
    [of I50]`; where there is none either (other chapters), nothing.
    """
    words = _descriptions()
    if name in words:
        return words[name]
    for length in range(len(name) - 1, 2, -1):
        if name[:length] in words:
            return f"{words[name[:length]]} [of {name[:length]}]"
    return ""


@cache
def _descriptions() -> dict[str, str]:
    with open(DESCRIPTIONS, newline="", encoding="utf-8") as file:
        return {row["code"]: row["description"] for row in csv.DictReader(file)}
