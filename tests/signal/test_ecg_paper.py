"""ECG paper can be measured: 25 mm a second, 10 mm a millivolt, and nothing is drawn that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lamae_jax.errors import UserError
from lamae_jax.signal.ecg_paper import draw_ecg, draw_reconstruction, save_figure, save_vector
from lamae_jax.signal.leads import CHEST_LEADS, LIMB_LEADS, STANDARD_LEADS

FS = 100


def ecg(samples: int = 1000) -> np.ndarray:
    """Twelve leads [12, S] in mV: a spike of (lead number + 5) / 10 mV every second."""
    signal = np.zeros((12, samples))
    signal[:, 50::FS] = (np.arange(12)[:, None] + 5) / 10
    return signal


def strokes(figure: Figure, colour: str) -> list[np.ndarray]:
    """What is drawn in a colour, each stroke [points, 2] in mm."""
    return [np.array(line.get_xydata()) for line in figure.axes[0].lines if line.get_color() == colour]


def traces(figure: Figure) -> list[np.ndarray]:
    """The leads' own strokes: longer than calibration pulses and column marks."""
    return [stroke for stroke in strokes(figure, "#111111") if len(stroke) > 10]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_a_second_is_25_mm_and_a_millivolt_10_mm_of_true_paper() -> None:
    figure = draw_ecg(ecg(), FS, STANDARD_LEADS, layout="12x1")
    axes = figure.axes[0]
    assert np.allclose(figure.get_size_inches() * 25.4, [axes.get_xlim()[1], axes.get_ylim()[1]])
    assert axes.get_position().bounds == (0, 0, 1, 1)
    drawn = traces(figure)
    assert len(drawn) == 12
    for number, stroke in enumerate(drawn):
        assert np.allclose(np.diff(stroke[:, 0]), 25 / FS)
        assert np.isclose(np.ptp(stroke[:, 1]), number + 5)  # (number + 5) / 10 mV
    pulses = [stroke for stroke in strokes(figure, "#111111") if len(stroke) == 6]
    assert len(pulses) == 12 and all(np.isclose(np.ptp(pulse[:, 1]), 10) for pulse in pulses)
    assert all(pulse[3, 0] - pulse[2, 0] == 5 for pulse in pulses)


def test_the_clinical_layout_is_four_columns_and_a_rhythm_strip() -> None:
    figure = draw_ecg(ecg(), FS, STANDARD_LEADS, title="somebody")
    names = [text for text in texts(figure) if text in STANDARD_LEADS]
    assert names == ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6", "II"]
    drawn = traces(figure)
    assert [len(stroke) for stroke in drawn] == [250] * 12 + [1000]
    # The columns are consecutive in time: one beat a second stands at .5 s, 1.5 s, ... of the sheet.
    left = drawn[0][0, 0]
    times = [(stroke[np.argmax(stroke[:, 1]), 0] - left) / 25 for stroke in drawn[:4]]
    assert np.allclose(times, [0.5, 2.5, 5.5, 7.5])
    assert "somebody" in texts(figure) and any("25 mm/s   10 mm/mV" in text for text in texts(figure))


def test_baselines_lie_on_the_bold_lines() -> None:
    for stroke in traces(draw_ecg(ecg(), FS, STANDARD_LEADS)):
        assert np.isclose(np.median(stroke[:, 1]) % 5, 0)


def test_an_offset_does_not_move_a_lead_off_its_row() -> None:
    plain, lifted = (traces(draw_ecg(ecg() + offset, FS, STANDARD_LEADS)) for offset in (0, 20))
    assert all(np.allclose(a, b) for a, b in zip(plain, lifted, strict=True))


def test_an_unavailable_lead_is_named_and_not_drawn() -> None:
    available = np.ones(12, bool)
    available[8] = False
    figure = draw_ecg(ecg(), FS, STANDARD_LEADS, available)
    assert texts(figure).count("not available") == 1 and "V3" in texts(figure)
    assert len(traces(figure)) == 12


def test_any_leads_can_be_drawn_one_below_the_other() -> None:
    figure = draw_ecg(ecg()[:2], FS, ("V5", "II"), layout="12x1")
    assert [text for text in texts(figure) if text in STANDARD_LEADS] == ["V5", "II"]
    with pytest.raises(UserError, match="layout 3x4: needs the standard twelve leads, not V5 II"):
        draw_ecg(ecg()[:2], FS, ("V5", "II"))
    with pytest.raises(UserError, match="layout 6x2: must be 3x4 or 12x1"):
        draw_ecg(ecg(), FS, STANDARD_LEADS, layout="6x2")


def test_only_the_first_ten_seconds_are_drawn() -> None:
    assert max(len(stroke) for stroke in traces(draw_ecg(ecg(3000), FS, STANDARD_LEADS))) == 1000


def test_light_lies_behind_the_part_of_its_lead_that_it_belongs_to() -> None:
    light = np.zeros((12, 10))
    light[6, 6], light[1, 0] = 1.0, 0.5  # V1 from 6 to 7 s, of which its column shows 6 to 7; II from 0 to 1 s
    figure = draw_ecg(ecg(), FS, STANDARD_LEADS, light=light)
    glows = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    left = traces(figure)[0][0, 0]
    assert sorted(round((glow.get_x() - left) / 25, 3) for glow in glows) == [0, 0, 6]  # lead II has a strip of its own
    assert all(np.isclose(glow.get_width(), 25) for glow in glows)
    bright, dim = (max(glows, key=lambda g: g.get_alpha()), min(glows, key=lambda g: g.get_alpha()))
    assert np.isclose(bright.get_alpha(), 2 * dim.get_alpha())
    assert not [p for p in draw_ecg(ecg(), FS, STANDARD_LEADS).axes[0].patches if isinstance(p, Rectangle)]


def test_vector_figures_have_letters_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_vector(draw_ecg(ecg(), FS, STANDARD_LEADS, title="somebody"), tmp_path / f"{name}.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text() and ">somebody</text>" in text


# --- reconstructions

HIDDEN = np.zeros((12, 1000), bool)
HIDDEN[:, 20:40] = True  # .2 s of each lead, and ...
HIDDEN[3] = True  # ... all of aVR
BLUE, GREY = "#0057d9", "#8a8a8a"


def reconstruction(made: np.ndarray, masked: np.ndarray | None = None, **other: object) -> Figure:
    original = ecg()
    seen = np.where(HIDDEN, 0, original) if masked is None else masked
    return draw_reconstruction(original, seen, made, FS, STANDARD_LEADS, HIDDEN, **other)  # type: ignore[arg-type]


def test_the_model_draws_only_where_it_was_blind() -> None:
    made = strokes(reconstruction(ecg() + 0.1), BLUE)
    assert len(made) == 12
    drawing_order = [lead for pair in zip(LIMB_LEADS, CHEST_LEADS, strict=True) for lead in pair]
    for lead, stroke in zip(drawing_order, made, strict=True):
        drawn = np.flatnonzero(np.isfinite(stroke[:, 1]))
        # with one visible sample on either side, to join the ink
        assert drawn.tolist() == (list(range(240)) if lead == "aVR" else list(range(19, 41)))
    assert len(strokes(reconstruction(ecg()), GREY)) == 12  # the recording below it
    # What it makes of visible samples is never shown.
    other = strokes(reconstruction(np.where(HIDDEN, ecg() + 0.1, 99)), BLUE)
    assert all(np.array_equal(one, two, equal_nan=True) for one, two in zip(made, other, strict=True))


def test_what_is_hidden_is_blank_and_shaded() -> None:
    figure = reconstruction(ecg())
    shades = [shade for shade in figure.axes[0].collections if isinstance(shade, PolyCollection)]
    widths = [np.ptp(np.asarray(shade.get_paths()[0].vertices)[:, 0]) for shade in shades]
    assert np.allclose(sorted(widths), [5.0] * 11 + [60.0])  # .2 s, and 2.4 s
    lead_i = traces(figure)[12]  # the second panel's first
    visible = lead_i[np.isfinite(lead_i[:, 1]), 0]
    edges = np.asarray(shades[0].get_paths()[0].vertices)[:, 0]
    assert visible[19] < edges.min() < visible[20] and edges.max() <= visible[20] + 1e-9
    assert "What the model saw (10% hidden)" in texts(figure)
    # Whatever stands in the hidden samples of the masked signal, none of it is shown.
    other = reconstruction(ecg(), masked=np.where(HIDDEN, 99, ecg()))
    for one, two in zip(traces(figure), traces(other), strict=True):
        assert np.array_equal(one, two, equal_nan=True)


def test_every_lead_is_named_in_all_three_panels() -> None:
    available = np.ones(12, bool)
    available[3] = False
    shown = texts(reconstruction(ecg(), available=available, title="after 600 steps"))
    assert all(shown.count(lead) == 3 for lead in STANDARD_LEADS)
    assert shown.count("not available") == 3 and "after 600 steps" in shown
    assert "What the model saw (2% hidden)" in shown  # of what is available


def test_a_single_lead_can_be_drawn() -> None:
    figure = draw_reconstruction(ecg()[:1], ecg()[:1], ecg()[:1], FS, ("V2",), HIDDEN[:1])
    assert texts(figure).count("V2") == 3


# --- files


def test_the_same_figure_gives_the_same_png(tmp_path: Path) -> None:
    for name in ("one.png", "deep/two.png"):
        save_figure(draw_ecg(ecg(), FS, STANDARD_LEADS), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "deep/two.png").read_bytes()
    assert png_size(tmp_path / "one.png")[0] == int(270 / 25.4 * 150)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "one.png"]


def test_drawing_touches_no_global_state_of_matplotlib() -> None:
    code = (
        "import sys, lamae_jax.signal.ecg_paper; sys.exit('matplotlib.pyplot' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
