"""ICD-10 labels, step by step: every golden value here was worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from lamae_jax.data.labels import icd10
from lamae_jax.data.labels.icd10 import Icd10Rules, check_published, choose_labels, codes_of, repaired, shortened
from lamae_jax.data.labels.icd10_tree import BLOCKS, TREE, _descriptions, above, description_of, level_of
from lamae_jax.errors import UserError

# Every row of the paper's tables.
PAPER = [
    "IX", "I05-I09", "I07", "I071", "I078", "I08", "I080", "I081", "I083", "I10-I1A", "I11", "I13", "I130", "I132",
    "I20-I25", "I20", "I200", "I209", "I21", "I210", "I211", "I213", "I214", "I26-I28", "I30-I5A", "I35", "I350",
    "I359", "I42", "I420", "I428", "I429", "I44", "I440", "I441", "I442", "I447", "I45", "I46", "I47", "I48", "I480",
    "I481", "I482", "I50", "I60-I69", "I70-I79", "I80-I89", "I95-I99",
]  # fmt: skip


def chosen(rows: list[list[str]], label_set: str = "chapter_ix", train: list[bool] | None = None, **rules: object):
    """The labels of rows of codes, as {name: which rows have it}, in their order."""
    written = tuple(dict.fromkeys(code for row in rows for code in row))
    cells = np.array([[code in row for code in written] for row in rows], np.int32).reshape(len(rows), len(written))
    in_train = np.array(train if train is not None else [True] * len(rows))
    labels = choose_labels(written, csr_array(cells), in_train, label_set, Icd10Rules(**({"min_count": 1} | rules)))
    members = labels.members.toarray()
    return {name: np.flatnonzero(members[:, c]).tolist() for c, name in enumerate(labels.names)}


@pytest.mark.parametrize(
    ("written", "code", "done"),
    [
        ("I4891", "I4891", ()),
        ("I48.91", "I4891", ("dots",)),
        ("i4891", "I4891", ("lower_case",)),
        (" I10 ", "I10", ("blanks",)),
        ("\ti48.91\n", "I4891", ("blanks", "lower_case", "dots")),
        ("4280", "4280", ()),
        ("ı10", "ı10", ()),  # Turkish dotless i, whose capital is I: no code, and none is made of it
        ("", "", ()),
    ],
)
def test_blanks_case_and_dots_are_repaired_and_said(written: str, code: str, done: tuple[str, ...]) -> None:
    assert repaired(written) == (code, done)


@pytest.mark.parametrize(
    ("code", "digits", "short"),
    [
        ("W19XXXA", 5, "W19"),  # W19XX, then W19: the other order would end at W19XX
        ("T460X5A", 5, "T460"),
        ("I824Y9", 5, "I824Y"),
        ("I69351", 5, "I6935"),
        ("I69351", 7, "I69351"),
        ("W19XXXA", 7, "W19XXXA"),
        ("I4891", 4, "I489"),
        ("I10", 5, "I10"),
    ],
)
def test_codes_are_cut_and_only_then_lose_their_fillers(code: str, digits: int, short: str) -> None:
    assert shortened(code, digits) == short


@pytest.mark.parametrize(
    ("written", "rules", "letters", "codes"),
    [
        ("I4891", {}, "I", ("I4891", "I489", "I48")),
        ("I4891", {"ancestors": False}, "I", ("I4891",)),
        ("I4891", {"digits": 3}, "I", ("I48",)),
        ("I48.91", {"digits": 4}, "", ("I489", "I48")),
        ("W19XXXA", {}, "", ("W19",)),
        ("W19XXXA", {}, "I", ()),  # another chapter
        ("I1A0", {}, "I", ("I1A0", "I1A")),
        ("I5Z9", {}, "I", ("I5Z9", "I5Z")),  # doesn't exist, but has the shape: min_count's business
        ("4280", {}, "", ()),  # ICD-9
        ("42731", {}, "", ()),
        ("V4501", {}, "V", ("V4501", "V450", "V45")),  # ICD-9 with the shape of ICD-10: can't be told
        ("ZZZ99", {}, "", ()),
        ("I1", {}, "I", ()),
        ("I1XXX", {}, "I", ()),  # nothing but fillers after two characters
        ("I1X5", {"digits": 3}, "I", ()),
        ("I12345678", {}, "I", ()),
        ("I10-I15", {}, "I", ()),
        ("", {}, "", ()),
    ],
)
def test_what_one_written_code_stands_for(
    written: str, rules: dict[str, object], letters: str, codes: tuple[str, ...]
) -> None:
    assert codes_of(written, Icd10Rules(**rules), letters) == codes  # type: ignore[arg-type]


def test_labels_are_ordered_by_count_and_equal_ones_by_code() -> None:
    rows = [["I10", "I4891"], ["I10"], ["I480"], ["I10", "E119"], ["E119"], []]
    assert chosen(rows, "all", letters="I") == {
        "I10": [0, 1, 3],
        "I48": [0, 2],
        "I480": [2],
        "I489": [0],
        "I4891": [0],
    }


def test_a_label_needs_min_count_rows_and_a_row_counts_once() -> None:
    rows = [["I4891", "I480", "I48.91"], ["I4891"], ["I10"]]
    assert chosen(rows, "all", min_count=2) == {"I48": [0, 1], "I489": [0, 1], "I4891": [0, 1]}


def test_counting_on_the_training_folds_decides_and_orders_but_all_rows_keep_their_labels() -> None:
    rows = [["I10"], ["I10"], ["I480"], ["I480"], ["I480"]]
    train = [True, True, True, False, False]
    assert chosen(rows, "all", train, count_on="train") == {"I10": [0, 1], "I48": [2, 3, 4], "I480": [2, 3, 4]}
    assert list(chosen(rows, "all", train, count_on="train", min_count=2)) == ["I10"]
    assert list(chosen(rows, "all", train)) == ["I48", "I480", "I10"]


def test_blocks_and_chapter_stand_on_top_of_chapter_ix() -> None:
    rows = [["I4891", "I10"], ["I10"], ["I1A0"], ["I5Z9"], ["E119"]]
    found = chosen(rows, digits=3)
    assert list(found) == ["IX", "I10-I1A", "I30-I5A", "I10", "I1A", "I48", "I5Z"]
    assert found["IX"] == [0, 1, 2, 3]  # any code of the chapter; E119 is none
    assert found["I10-I1A"] == [0, 1, 2] and found["I30-I5A"] == [0]  # I5Z is in no block
    assert list(chosen(rows, min_count=3)) == ["IX", "I10-I1A"]  # min_count holds for them too


def test_all_chapters_have_no_blocks_and_letters_choose_among_them() -> None:
    rows = [["I10", "E119", "R42"]]
    assert set(chosen(rows, "all")) == {"I10", "E119", "E11", "R42"}
    assert set(chosen(rows, "all", letters="ER")) == {"E119", "E11", "R42"}
    with pytest.raises(UserError, match="icd10.letters=ER: labels=icd10:chapter_ix are those of letter I"):
        chosen(rows, letters="ER")


def test_too_few_rows_are_said_with_the_largest_label() -> None:
    with pytest.raises(UserError, match=r"icd10.min_count=5: no label .* the largest, I10, has 2 \(count_on=all\)"):
        chosen([["I10"], ["I10", "I480"]], "all", min_count=5)
    with pytest.raises(UserError, match="no row has a code that begins with a letter of Q"):
        chosen([["I10"]], "all", letters="Q")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"digits": 2}, "icd10.digits=2: must be from 3"),
        ({"digits": 8}, "icd10.digits=8"),
        ({"min_count": 0}, "icd10.min_count=0: must be at least 1"),
        ({"count_on": "test"}, "icd10.count_on=test: must be all or train"),
        ({"letters": "i"}, "icd10.letters=i: must be capital letters"),
        ({"letters": "I,R"}, "icd10.letters=I,R"),
        ({"fold_column": "folds"}, "icd10.fold_column=folds: must be fold or strat_fold"),
    ],
)
def test_a_rule_that_cannot_be_is_one_line(rules: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Icd10Rules(**rules)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_levels_and_blocks_of_names() -> None:
    assert [level_of(name) for name in ("IX", "I30-I5A", "I48", "I489", "I4891", "W19XXXA")] == [
        "chapter", "block", "3", "4", "5", "7",
    ]  # fmt: skip
    assert above("I48") == above("I5A") == ("I30-I5A", "IX")
    assert above("I19") == above("I1A") == ("I10-I1A", "IX") and above("I20") == ("I20-I25", "IX")
    assert above("I03") == ("IX",) and above("E11") == ()


def test_the_chapter_has_eighty_categories_in_ten_blocks() -> None:
    """As the tabular list of ICD-10-CM has them, so that none is forgotten and none invented."""
    blocks = [above(code)[0] for code in _descriptions() if len(code) == 3]
    assert [blocks.count(name) for name in TREE[1:]] == [3, 5, 7, 6, 3, 24, 9, 10, 9, 4]
    assert len(BLOCKS) == 10


def test_every_code_of_the_paper_has_words_and_others_their_nearest_ancestors() -> None:
    assert all(description_of(code) and "[of" not in description_of(code) for code in PAPER)
    assert len(PAPER) == len(set(PAPER)) == 49
    assert description_of("I4891") == "Atrial fibrillation, unspecified"
    assert description_of("I50812") == "Heart failure [of I50]"
    assert description_of("I21A1") == "Acute myocardial infarction [of I21]"
    assert description_of("E119") == ""


def published() -> dict[str, int]:
    """Codes in the published numbers: 361, 466 and 249 of 3, 4, 5 characters, 158 of them of letter I."""
    categories = [f"{letter}{number:02d}" for letter in "ABCDI" for number in range(100)]
    codes = categories[:261] + categories[400:500]  # 100 of I
    codes += [f"A{number:03d}" for number in range(426)] + [f"I{number:03d}" for number in range(40)]
    codes += [f"A{number:04d}" for number in range(231)] + [f"I{number:04d}" for number in range(18)]
    return dict.fromkeys(codes, 2000) | {"Z99": 1999}


def test_the_published_table_must_give_the_published_labels() -> None:
    counts = published()
    check_published(800_035, counts)
    for change in ({"I00": 1999}, {"Z99": 2000}, {"A000": 1999, "I99": 1999, "Z9999": 2000}):
        with pytest.raises(
            UserError, match=r"1076 labels \(361 of 3, 466 of 4, 249 of 5 characters; 158 in chapter IX"
        ):
            check_published(800_035, counts | change)
    swapped = {code: count for code, count in counts.items() if code != "I00"} | {"Z00": 2000}  # 1,076 still
    with pytest.raises(UserError, match="157 in chapter IX"):
        check_published(800_035, swapped)
    check_published(901, {"I10": 5})  # another table


def test_check_values_are_those_of_the_published_results() -> None:
    assert sum(icd10.PUBLISHED_LABELS.values()) == 1076 and icd10.PUBLISHED_ROWS == 800_035
