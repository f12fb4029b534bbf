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
from lamae_jax.evaluate.results import Judged, Outcome
from lamae_jax.evaluate.study.curves import Point, curve_table, curves_of, macro_over_all, scored
from lamae_jax.evaluate.study.tables import Column, columns, label_rows, versus
from lamae_jax.evaluate.task import Prediction, open_task


def judged(
    system: str, readout: str, macro: float, validation: float, seed: int = 0, width: int = 64, mode: str = "linear"
) -> Judged:
    """Two labels around a macro AUROC; resamples a fixed pattern around it, the same for all."""
    wobble = np.linspace(-0.06, 0.06, 101)
    outcome = Outcome(system, seed, mode, readout, width, Prediction({}, validation, np.zeros((1, 2))))
    aurocs = np.array([macro - 0.1, macro + 0.1])
    return Judged(outcome, aurocs, aurocs, aurocs + wobble[:, None], macro + wobble, macro + wobble, {})


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
    lamae, lamae_e, independent = columns(EVERY, "linear", equal_width=False)
    assert (lamae.system, lamae.readout, lamae.macros) == ("lamae", "la_mean", [0.70, 0.72])  # .740 against .730
    assert (lamae_e.system, lamae_e.readout) == ("lamae_e", "encoder_concat")
    assert independent.system == "ind_p"


def test_at_equal_width_no_system_is_read_wider_than_the_others() -> None:
    assert [column.readout for column in columns(EVERY, "linear", equal_width=True)] == [
        "la_mean",
        "encoder_mean",
        "encoder_mean",
    ]


def test_the_mean_over_seeds_has_the_interval_of_the_mean() -> None:
    mean = Column("lamae", "la_mean", (EVERY[2], EVERY[3])).mean
    assert mean.macro == pytest.approx(0.71)
    np.testing.assert_allclose(mean.macro_intervals()["by_patient"], [0.71 - 0.057, 0.71 + 0.057])


def test_two_systems_differ_by_what_they_differ_in_every_resample() -> None:
    """The same luck of the test set befalls both: it is not in the difference."""
    one, other = (
        Column("lamae", "la_mean", (EVERY[2], EVERY[3])),
        Column("ind_p", "encoder_mean", (EVERY[6], EVERY[6])),
    )
    found = versus(one, other)
    assert found.value == pytest.approx(-0.07) and found.each_seed == pytest.approx([-0.08, -0.06])
    np.testing.assert_allclose(found.interval, [-0.07, -0.07])
    assert versus(one, Column("ind_p", "encoder_mean", (EVERY[6],))).each_seed == []


def test_the_best_of_a_row_is_bold_the_second_italic_and_equals_are_equal() -> None:
    assert ranked([0.7, 0.8004, 0.9, 0.7996, float("nan")], [""] * 5) == [
        "0.700",
        "<i>0.800</i>",
        "<b>0.900</b>",
        "<i>0.800</i>",
        "-",
    ]
    assert ranked([0.5], ["low to high"]) == ["<b>0.500</b><small>low to high</small>"]


def test_the_papers_table_has_a_row_a_label_and_a_column_a_system() -> None:
    text = label_rows(["I48", "<I50>"], ["fibrillation", "failure & co"], columns(EVERY, "linear", equal_width=True))
    assert text.count("<tr>") == 4 and re.findall(r"<th>([^<]*)<small>", text) == [
        "LAMAE",
        "LAMAE_E (a)",
        "Ind_P",
    ]
    assert "<b>0.680</b><small>0.623 to 0.737</small>" in text  # Ind_P on I48
    assert "&lt;I50&gt;<small>failure &amp; co</small>" in text


def test_a_label_that_a_subset_cannot_show_counts_as_chance() -> None:
    two = judged("lamae", "la_cls", 0.8, 0.7)  # labels 3 and 5 at .7 and .9
    assert macro_over_all(two, np.array([3, 5]), np.array([3, 5])) == pytest.approx(0.8)
    assert macro_over_all(two, np.array([3, 5]), np.array([1, 3, 5, 7])) == pytest.approx((0.7 + 0.9 + 0.5 + 0.5) / 4)


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
        Point("lamae", "", "linear", "la_cls", size, draw, size / 100 + draw)
        for size, draw in [(30, 1), (10, 0), (30, 0)]
    ]
    assert curves_of(points, "linear") == {("lamae", ""): {10: [0.1], 30: [0.3, 1.3]}}
    assert curves_of(points, "knn") == {}
    assert "<td>30</td><td><b>0.800</b><small>0.300 to 1.300</small></td>" in curve_table(points, "linear", "records")
