"""How judged outcomes become one table: readouts chosen on validation, seeds averaged, systems compared on equal resamples."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.store import Store
from lamae_jax.evaluate.report import ranked
from lamae_jax.evaluate.results import Judged, Outcome, codes_of, over_codes
from lamae_jax.evaluate.study.curves import Asked, Point, curve_table, curves_of, macro_over_all, point_of, scored
from lamae_jax.evaluate.study.tables import (
    Column,
    columns,
    comparisons_of,
    differences,
    supervision_rows,
    system_rows,
    versus,
    versus_rows,
)
from lamae_jax.evaluate.task import Prediction, Task, open_task


def judged(
    system: str, readout: str, macro: float, validation: float, seed: int = 0, width: int = 64, mode: str = "linear"
) -> Judged:
    """Two labels around a macro AUROC; resamples a fixed pattern around it, the same for all."""
    wobble = np.linspace(-0.06, 0.06, 101)
    outcome = Outcome(system, seed, mode, readout, width, Prediction({}, validation, np.zeros((1, 2))))
    aurocs = np.array([macro - 0.1, macro + 0.1])
    draws = aurocs + wobble[:, None]
    return Judged(outcome, aurocs, aurocs, draws, draws)


EVERY = [
    judged("lamae", "la_cls", 0.80, 0.70),
    judged("lamae", "la_cls", 0.82, 0.76, seed=1),
    judged("lamae", "la_mean", 0.70, 0.75),
    judged("lamae", "la_mean", 0.72, 0.73, seed=1),
    judged("lamae_e", "encoder_mean", 0.75, 0.80),
    judged("lamae_e", "encoder_concat", 0.85, 0.90, width=768),
    judged("ind_p", "encoder_mean", 0.78, 0.6),
    judged("lamae", "la_cls", 0.9, 0.9, mode="finetune"),
]


def test_a_systems_readout_is_the_best_on_validation_over_all_its_seeds_whatever_the_test_fold_says() -> None:
    lamae, lamae_e, independent = columns(EVERY, "linear", "best")
    assert (lamae.system, lamae.readout, lamae.macros) == ("lamae", "la_mean", [0.70, 0.72])  # .740 against .730
    assert (lamae_e.system, lamae_e.readout) == ("lamae_e", "encoder_concat")
    assert independent.system == "ind_p"


def test_at_equal_width_no_system_is_read_wider_than_the_others() -> None:
    assert [column.readout for column in columns(EVERY, "linear", "equal_width")] == [
        "la_mean",
        "encoder_mean",
        "encoder_mean",
    ]


def test_the_papers_lamae_is_read_at_its_cls_token_whatever_validation_prefers() -> None:
    shown = columns(EVERY, "linear", "paper")
    assert [(column.system, column.readout) for column in shown] == [
        ("lamae", "la_cls"), ("lamae_e", "encoder_mean"), ("ind_p", "encoder_mean"),
    ]  # fmt: skip
    assert shown[0].macros == pytest.approx([0.80, 0.82])
    assert columns([judged("lamae", "attention", 0.8, 0.7, mode="attention")], "attention", "paper") == []


def test_the_mean_over_seeds_has_the_interval_of_the_mean() -> None:
    mean = Column("lamae", "la_mean", (EVERY[2], EVERY[3])).mean
    assert mean.macro == pytest.approx(0.71)
    np.testing.assert_allclose(mean.macro_intervals()["by_patient"], [0.71 - 0.057, 0.71 + 0.057])


def test_two_systems_differ_by_what_they_differ_in_every_resample(mimic_store: Path) -> None:
    """The same luck of the test set befalls both: it is not in the difference."""
    task = of_labels(mimic_store, ("IX", "I50", "I48"), ("", "", ""), ("chapter", "3", "3"))
    flat = of_labels(mimic_store, ("a", "b", "c"), ("", "", ""), ("", "", ""))
    one, other = (
        Column("lamae", "la_mean", (EVERY[2], EVERY[3])),
        Column("ind_p", "encoder_mean", (EVERY[6], EVERY[6])),
    )
    found = versus(flat, one, other)
    assert found.value == pytest.approx(-0.07) and found.each_seed == pytest.approx([-0.08, -0.06])
    np.testing.assert_allclose([found.by_patient, found.by_record], [[-0.07, -0.07]] * 2)
    assert found.over_codes is None
    codes = versus(task, one, other).over_codes
    assert codes and codes["value"] == pytest.approx(-0.07)
    np.testing.assert_allclose([codes["by_patient"], codes["by_record"]], [[-0.07, -0.07]] * 2)
    assert "LAMAE less Ind_P, codes alone" in versus_rows([versus(task, one, other)])
    assert versus(flat, one, Column("ind_p", "encoder_mean", (EVERY[6],))).each_seed == []


def test_every_pair_of_systems_is_compared_once(mimic_store: Path) -> None:
    task = of_labels(mimic_store, ("a", "b", "c"), ("", "", ""), ("", "", ""))
    found = differences(task, columns(EVERY, "linear", "best"))
    assert list(found) == ["lamae_less_lamae_e", "lamae_less_ind_p", "lamae_e_less_ind_p"]
    assert found["lamae_e_less_ind_p"].value == pytest.approx(0.85 - 0.78)


def test_the_best_of_a_row_is_bold_the_second_italic_and_equals_are_equal() -> None:
    assert ranked([0.7, 0.8004, 0.9, 0.7996, float("nan")], [""] * 5) == [
        "0.700",
        "<i>0.800</i>",
        "<b>0.900</b>",
        "<i>0.800</i>",
        "-",
    ]
    assert ranked([0.5], ["low to high"]) == ["<b>0.500</b><small>low to high</small>"]


def of_labels(store: Path, names: tuple[str, ...], descriptions: tuple[str, ...], levels: tuple[str, ...]) -> Task:
    """A task of other labels, of which the second and the third can be learned; one test record in two has each."""
    task = open_task("icd10:chapter_ix", Store.open(store), Icd10Rules(min_count=19))
    matrix = np.tile(np.arange(task.store.size)[:, None] % 2, (1, len(names))).astype(np.float32)
    labels = dataclasses.replace(task.labels, names=names, descriptions=descriptions, levels=levels, matrix=matrix)
    return dataclasses.replace(task, labels=labels, learnable=np.array([1, 2]))


def cells(text: str) -> list[list[str]]:
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)[1:]]


def test_the_papers_table_has_a_row_a_label_and_a_column_a_system(mimic_store: Path) -> None:
    task = of_labels(mimic_store, ("a", "b", "<c>"), ("", "fibrillation", "failure & co"), ("", "", ""))
    text = system_rows(task, columns(EVERY, "linear", "equal_width"))
    assert re.findall(r"<th>([^<]*)<small>", text) == ["LAMAE", "LAMAE_E (a)", "Ind_P"]
    none, first, second, mean = cells(text)
    positive = str(np.count_nonzero(task.rows_of("test") % 2))
    assert none == ["a", positive, "-", "-", "-"]  # a label without a figure has its row
    assert first[:2] == ["b<small>fibrillation</small>", positive]
    assert first[-1] == "<b>0.680</b><small>0.623 to 0.737</small>"
    assert second[0] == "&lt;c&gt;<small>failure &amp; co</small>" and mean[0] == "<b>mean over labels</b>"


def test_rows_of_icd10_are_nested_as_in_the_paper_whatever_is_most_frequent(mimic_store: Path) -> None:
    names = ("I30-I5A", "I48", "IX", "I50", "I20-I25", "I4891", "I214", "I489")
    levels = ("block", "3", "chapter", "3", "block", "5", "4", "4")
    task = of_labels(mimic_store, names, ("words",) * len(names), levels)
    rows = [row[0] for row in cells(system_rows(task, columns(EVERY, "linear", "equal_width")))]
    assert re.findall(r"([\w-]+)<small>", "".join(rows)) == [
        "IX", "I20-I25", "I214", "I30-I5A", "I48", "I489", "I4891", "I50",
    ]  # fmt: skip
    assert rows[0] == "IX<small>words, chapter</small>"
    assert rows[6] == '<div style="margin-left: 4rem">I4891<small>words</small></div>'
    assert rows[-2:] == ["<b>mean over labels</b>", "<b>mean over codes</b>"]


def test_the_papers_table_4_stands_lamae_and_lamae_e_probed_beside_fine_tuned(mimic_store: Path) -> None:
    task = of_labels(mimic_store, ("a", "b", "c"), ("", "", ""), ("", "", ""))
    tuned = judged("lamae_e", "encoder_mean", 0.95, 0.9, mode="finetune")
    text = supervision_rows(task, [*EVERY, tuned])
    assert re.findall(r"<th>([^<]*)<small>([^<]*)</small><small>([^<]*)</small>", text) == [
        ("LAMAE", "linear probe", "la_mean, 2 seeds"), ("LAMAE_E (a)", "linear probe", "encoder_mean, 1 seed"),
        ("LAMAE", "fine-tuned", "la_cls, 1 seed"), ("LAMAE_E (a)", "fine-tuned", "encoder_mean, 1 seed"),
    ]  # fmt: skip
    assert [re.sub("<.*?>", " ", cell).split()[0] for cell in cells(text)[-1][2:]] == [
        "0.710",
        "0.750",
        "0.900",
        "0.950",
    ]
    assert supervision_rows(task, EVERY[:-1]) == ""


def test_two_comparisons_that_come_to_the_same_are_shown_as_one() -> None:
    one, two, three = ({"lamae": figure} for figure in (1, 2, 3))
    assert list(comparisons_of({"paper": one, "equal_width": two, "best": three})) == ["paper", "equal_width", "best"]
    assert comparisons_of({"paper": one, "equal_width": two, "best": two}) == {
        "paper": "read as in the paper", "best": "best against best; at equal width it is the same",
    }  # fmt: skip
    assert comparisons_of({"paper": two, "equal_width": two, "best": one}) == {
        "equal_width": "at equal width; read as in the paper it is the same", "best": "best against best",
    }  # fmt: skip
    assert comparisons_of({"paper": {}, "equal_width": one, "best": one}) == {
        "best": "best against best; at equal width it is the same"
    }


def test_the_mean_over_codes_leaves_out_the_chapter_and_the_blocks(mimic_store: Path) -> None:
    task = open_task("icd10:chapter_ix", Store.open(mimic_store), Icd10Rules(min_count=19))
    names = np.array(task.labels.names)
    assert {"IX", "I30-I5A", "I48"} <= set(names)
    assert set(names[codes_of(task)]) == {name for name in names if name != "IX" and "-" not in name}
    aurocs = np.where(np.isin(task.learnable, codes_of(task)), 0.8, 0.5)
    draws = aurocs + np.linspace(-0.06, 0.06, 101)[:, None]
    outcome = Outcome("lamae", 0, "linear", "la_cls", 64, Prediction({}, 0.7, np.zeros((1, 2))))
    found = over_codes(task, Judged(outcome, aurocs, aurocs, draws, draws))
    assert found and found["macro_auroc"] == pytest.approx(0.8)
    for kind in ("by_patient", "by_record"):
        np.testing.assert_allclose(found[kind], [0.8 - 0.057, 0.8 + 0.057])
    flat = open_task("icd10:all", Store.open(mimic_store), Icd10Rules(min_count=19))
    assert over_codes(flat, judged("lamae", "la_cls", 0.8, 0.7)) is None


def test_a_label_that_a_subset_cannot_show_counts_as_chance() -> None:
    two = judged("lamae", "la_cls", 0.8, 0.7)  # labels 3 and 5 at .7 and .9
    value, *intervals = macro_over_all(two, np.array([3, 5]), np.array([3, 5]))
    assert value == pytest.approx(0.8)
    np.testing.assert_allclose(intervals, [[0.8 - 0.057, 0.8 + 0.057]] * 2)
    value, *intervals = macro_over_all(two, np.array([3, 5]), np.array([1, 3, 5, 7]))
    assert value == pytest.approx((0.7 + 0.9 + 0.5 + 0.5) / 4)
    np.testing.assert_allclose(intervals, [[0.65 - 0.057 / 2, 0.65 + 0.057 / 2]] * 2)
    assert macro_over_all(two, np.array([3, 5]), np.array([1, 7])) == (0.5, [0.5, 0.5], [0.5, 0.5])


def test_a_point_holds_both_intervals_what_was_chosen_and_the_mean_over_codes() -> None:
    two = judged("lamae", "la_cls", 0.8, 0.7, seed=3)  # labels 3 and 5 at .7 and .9
    point = point_of(two, np.array([3, 5]), Asked(np.array([1, 3, 5, 7]), np.array([5, 7])), "a", 100, 2)
    assert (point.system, point.model, point.seed, point.size, point.draw) == ("lamae", "a", 3, 100, 2)
    assert (point.validation, point.chosen) == (0.7, {})
    assert point.by_record == pytest.approx(point.by_patient) and point.by_patient == pytest.approx([0.6215, 0.6785])
    assert point.macro_codes == point.drawn == pytest.approx((0.9 + 0.5) / 2)
    assert point.codes_by_record == pytest.approx(point.codes_by_patient)
    assert point.codes_by_patient == pytest.approx([0.7 - 0.057 / 2, 0.7 + 0.057 / 2])
    without = point_of(two, np.array([3, 5]), Asked(np.array([3, 5]), None), "a", 100, 2)
    assert without.macro_codes is without.codes_by_patient is None and without.drawn == without.macro


def test_a_label_that_the_test_fold_shows_one_sign_of_counts_at_no_size(mimic_store: Path) -> None:
    """Else it would be left out where it was learned, and count as chance where it was not."""
    task = open_task("icd10:chapter_ix", Store.open(mimic_store), Icd10Rules(min_count=19))
    values = np.zeros((task.counts["test"], 2))
    values[0, 1] = 1
    labels = dataclasses.replace(task.labels, matrix=np.zeros((task.store.size, 2), np.float32))
    labels.matrix[task.rows_of("test")] = values
    assert scored(dataclasses.replace(task, labels=labels, learnable=np.array([0, 1]))).tolist() == [1]


def test_a_curve_is_by_size_and_draw() -> None:
    points = [
        Point(
            "lamae",
            "",
            0,
            "linear",
            "la_cls",
            size,
            draw,
            size / 100 + draw,
            [],
            [0.05, 0.2],
            None,
            None,
            None,
            0.5,
            {},
        )
        for size, draw in [(30, 1), (10, 0), (20, 2), (30, 0), (20, 0), (30, 2)]
    ]
    assert curves_of(points, "linear") == {("lamae", ""): {10: [0.1], 20: [0.2, 2.2], 30: [0.3, 1.3, 2.3]}}
    assert curves_of(points, "knn") == {}
    text = curve_table(points, "linear", "records")
    assert "<td>30</td><td><b>1.300</b><small>0.300 to 2.300</small></td>" in text
    assert "<td>20</td><td><b>1.200</b><small>0.200 to 2.200, 2 draws</small></td>" in text  # one was left out
    assert "<td>10</td><td><b>0.100</b><small>0.050 to 0.200</small></td>" in text  # by patient
