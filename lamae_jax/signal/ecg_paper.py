"""ECGs drawn as they are read: 25 mm a second, 10 mm a millivolt, on millimetre paper, with a calibration pulse.

Everything is laid out in millimetres, and figures have their true size: printed at 100 % they can be measured with a ruler.
For display each lead is shifted so that its median lies on its baseline. No pyplot, hence no state behind the caller's back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lamae_jax.errors import UserError
from lamae_jax.files import write_with
from lamae_jax.signal.leads import CHEST_LEADS, LIMB_LEADS, STANDARD_LEADS
from lamae_jax.signal.quality import runs

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
_SCALE = f"{MM_PER_SECOND:g} mm/s   {MM_PER_MV:g} mm/mV"
LONGEST_STRIP = 10.0  # seconds of a recording that are drawn
_DPI = 150

# Colours: paper and grid as printed ECG paper has them, ink, and what a model made up.
_PAPER, _FINE, _BOLD, _INK, _GREY = "#fffaf8", "#f8dcd8", "#efb3ad", "#111111", "#8a8a8a"
_HIDDEN, _MODEL, _LIGHT = "#cfd3da", "#0057d9", "#f5b800"
_EDGE = 5.0  # mm of paper around everything
_PULSE = 10.0  # mm for the calibration pulse in front of a row
_LINE = 5.0  # mm for a line of text above
_LEAST_ABOVE, _LEAST_BELOW, _MOST = 15.0, 5.0, 35.0  # mm that a row takes above and below its baseline

CLINICAL_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"), ("II",))
_PANEL_SECONDS = 2.4  # seconds a lead in each panel of `draw_reconstruction`


def draw_ecg(
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str],
    available: np.ndarray | None = None,
    title: str = "",
    layout: str = "3x4",
    light: np.ndarray | None = None,
) -> Figure:
    """Up to 10 s of `signal` [L, S] in mV. `available` bool [L]: leads that are not are named as missing.

    `light` [L, T], from 0 to 1, is laid behind the ink as a glow, each value over an equal part of its lead's time.
    Layout `3x4`: four columns of consecutive quarters of the time, lead II below throughout (the standard twelve leads are
    needed); `12x1`: a row a lead, whichever leads there are. Raises UserError for another layout, or leads it cannot show.
    """
    if layout not in ("3x4", "12x1"):
        raise UserError(f"layout {layout}: must be 3x4 or 12x1")
    if layout == "3x4" and set(leads) != set(STANDARD_LEADS):
        raise UserError(f"layout 3x4: needs the standard twelve leads, not {' '.join(leads)}; 12x1 takes any")
    samples = min(signal.shape[1], round(LONGEST_STRIP * fs))
    shown = signal[:, :samples] - np.median(signal[:, :samples], axis=1, keepdims=True)
    traces = _traces(shown, leads, available)
    rows = CLINICAL_ROWS if layout == "3x4" else tuple((lead,) for lead in leads)
    extents = [_extent([traces[lead] for lead in row]) for row in rows]
    width = 2 * _EDGE + _PULSE + _whole_squares(samples / fs * MM_PER_SECOND)
    height = 2 * _EDGE + _LINE + sum(above + below for above, below in extents)
    figure, axes = _paper(width, height)
    axes.text(_EDGE, height - _EDGE - 3, title, fontsize=11, color=_INK, weight="bold")
    axes.text(width - _EDGE, height - _EDGE - 3, f"{_SCALE}   {fs:g} Hz", fontsize=9, color=_INK, ha="right")

    top = height - _EDGE - _LINE
    for row, (above, below) in zip(rows, extents, strict=True):
        baseline = top - above
        _calibration(axes, _EDGE, baseline)
        bounds = np.linspace(0, samples, len(row) + 1).round().astype(int)
        for lead, start, stop in zip(row, bounds[:-1], bounds[1:], strict=True):
            left = _EDGE + _PULSE + start / fs * MM_PER_SECOND
            if start:
                axes.plot([left, left], [baseline - 2.5, baseline + 2.5], color=_INK, linewidth=0.8)
            _name(axes, left + 1, baseline + above - 4, lead)
            piece = traces[lead]
            if light is not None and piece is not None:
                glow = light[list(leads).index(lead)]
                _glow(axes, left, baseline - below, above + below, glow, signal.shape[1] / fs, (start / fs, stop / fs))
            _draw(axes, left, baseline, None if piece is None else piece[start:stop], fs)
        top = baseline - below
    return figure


def draw_reconstruction(
    original: np.ndarray,
    masked: np.ndarray,
    reconstruction: np.ndarray,
    fs: float,
    leads: Sequence[str],
    hidden: np.ndarray,
    available: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Three ECGs side by side, all [L, S] in mV: the recording, what the model saw of it, and what it made of that.

    `hidden` bool [L, S]: what was kept from the model, grey in the second panel; in the third the model's own drawing of it
    stands in blue over the recording in grey. Limb leads stand left, chest leads right, the first 2.4 seconds of each.
    """
    samples = min(original.shape[1], round(_PANEL_SECONDS * fs))
    share = hidden.mean() if available is None else hidden[available].mean()
    hidden = hidden[:, :samples]
    baselines = np.median(original[:, :samples], axis=1, keepdims=True)
    recorded = _traces(original[:, :samples] - baselines, leads, available)
    seen = _traces(np.where(hidden, np.nan, masked[:, :samples] - baselines), leads, available)
    # The model's strokes begin and end at the visible samples on either side, so that they join the ink. What a model makes
    # of visible patches means nothing (they are not in its loss) and is not shown.
    wider = hidden.copy()
    wider[:, 1:] |= hidden[:, :-1]
    wider[:, :-1] |= hidden[:, 1:]
    joined = np.where(hidden, reconstruction[:, :samples], masked[:, :samples]) - baselines
    made = _traces(np.where(wider, joined, np.nan), leads, available)
    covered = dict(zip(leads, hidden, strict=True))

    columns = [[lead for lead in half if lead in leads] for half in (LIMB_LEADS, CHEST_LEADS)]
    rows = [[lead for lead in row if lead] for row in zip_longest(*filter(None, columns))]
    extents = [_extent([recorded[lead] for lead in row]) for row in rows]
    strip = _whole_squares(samples / fs * MM_PER_SECOND) + _EDGE
    panel = len(rows[0]) * strip + _EDGE
    width = 2 * _EDGE + _PULSE + 3 * panel - 2 * _EDGE
    height = 2 * _EDGE + _LINE * (3 if title else 2) + sum(above + below for above, below in extents)
    figure, axes = _paper(width, height)
    axes.text(_EDGE + _PULSE, height - _EDGE - 3, title, fontsize=15, color=_INK, weight="bold")
    heads_at = height - _EDGE - (_LINE if title else 0) - 4
    heads = ("Recording", f"What the model saw ({share:.0%} hidden)", "Reconstruction (blue)")
    for number, head in enumerate(heads):
        left = _EDGE + _PULSE + number * panel
        axes.text(left, heads_at, head, fontsize=15, color=_INK, weight="bold")
        top = heads_at + 4 - 2 * _LINE
        for row, (above, below) in zip(rows, extents, strict=True):
            baseline = top - above
            if number == 0:
                _calibration(axes, _EDGE, baseline)
            for place, lead in enumerate(row):
                x = left + place * strip
                _name(axes, x + 0.8, baseline + above - 4, lead, size=12)
                if number == 0 or recorded[lead] is None:
                    _draw(axes, x, baseline, recorded[lead], fs)
                elif number == 1:
                    _shade(axes, x, baseline - below, above + below, covered[lead], fs)
                    _draw(axes, x, baseline, seen[lead], fs)
                else:
                    _draw(axes, x, baseline, recorded[lead], fs, color=_GREY)
                    _draw(axes, x, baseline, seen[lead], fs)
                    _draw(axes, x, baseline, made[lead], fs, color=_MODEL, linewidth=1.6)
            top = baseline - below
    axes.text(width - _EDGE, heads_at, _SCALE, fontsize=11, color=_INK, ha="right")
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a PNG atomically; the same figure gives the same bytes."""
    canvas = FigureCanvasAgg(figure)
    write_with(path, lambda file: canvas.print_png(file, metadata={"Software": None}))


def save_vector(figure: Figure, path: Path | str) -> None:
    """Write an SVG atomically, letters as letters; the same figure gives the same bytes."""
    with rc_context({"svg.hashsalt": "lamae_jax", "svg.fonttype": "none"}):
        canvas = FigureCanvasSVG(figure)
        write_with(path, lambda file: canvas.print_svg(file, metadata={"Date": None, "Creator": None}))


def _traces(signal: np.ndarray, leads: Sequence[str], available: np.ndarray | None) -> dict[str, np.ndarray | None]:
    """The rows of `signal` [L, S] by lead; None for a lead that is not available."""
    usable = [True] * len(leads) if available is None else available
    return {lead: row if ok else None for lead, row, ok in zip(leads, signal, usable, strict=True)}


def _extent(leads: Sequence[np.ndarray | None]) -> tuple[float, float]:
    """Millimetres that a row takes above and below its baseline, so that rows seldom run into each other."""
    peaks = [(x.max(), -x.min()) for x in leads if x is not None]
    above = _whole_squares(max((peak for peak, _ in peaks), default=0.0) * MM_PER_MV + 2)
    below = _whole_squares(max((peak for _, peak in peaks), default=0.0) * MM_PER_MV + 1)
    return min(max(above, _LEAST_ABOVE), _MOST), min(max(below, _LEAST_BELOW), _MOST)


def _whole_squares(millimetres: float) -> float:
    """Rounded up to the 5 mm squares of the paper, so that every baseline lies on a line and heights can be counted off."""
    return 5.0 * math.ceil(millimetres / 5 - 1e-9)


def _paper(width: float, height: float) -> tuple[Figure, Axes]:
    """A sheet with its grid; the axes' unit is the millimetre."""
    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=_DPI, facecolor=_PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    for spacing, colour, line in ((1, _FINE, 0.4), (5, _BOLD, 0.7)):
        across = [[(x, 0), (x, height)] for x in np.arange(0, width + 1e-6, spacing)]
        along = [[(0, y), (width, y)] for y in np.arange(0, height + 1e-6, spacing)]
        axes.add_collection(LineCollection(across + along, colors=colour, linewidths=line, zorder=0))
    return figure, axes


def _calibration(axes: Axes, left: float, baseline: float) -> None:
    """The pulse of 1 mV and .2 s."""
    pulse = MM_PER_MV
    axes.plot(
        left + np.array([0, 1, 1, 6, 6, 7]), baseline + np.array([0, 0, pulse, pulse, 0, 0]), color=_INK, linewidth=0.8
    )


def _name(axes: Axes, left: float, bottom: float, lead: str, size: float = 10) -> None:
    axes.text(left, bottom, lead, fontsize=size, weight="bold", color=_INK, zorder=4)


def _draw(
    axes: Axes,
    left: float,
    baseline: float,
    millivolts: np.ndarray | None,
    fs: float,
    color: str = _INK,
    linewidth: float = 1.1,
) -> None:
    """A piece of a lead [S] from `left` on. None: the lead is not there, and it says so; NaN is left blank."""
    if millivolts is None:
        axes.text(left + 5, baseline, "not available", fontsize=9, color=_GREY, va="center", style="italic")
        return
    x = left + np.arange(len(millivolts)) / fs * MM_PER_SECOND
    axes.plot(x, baseline + millivolts * MM_PER_MV, color=color, linewidth=linewidth, solid_joinstyle="round", zorder=3)


def _shade(axes: Axes, left: float, bottom: float, height: float, hidden: np.ndarray, fs: float) -> None:
    """Grey over the hidden stretches [S] of one lead."""
    for first, length in zip(*runs(hidden), strict=True):
        x, width = left + first / fs * MM_PER_SECOND, length / fs * MM_PER_SECOND
        axes.fill_between([x, x + width], bottom, bottom + height - 1, color=_HIDDEN, linewidth=0, zorder=2)


def _glow(
    axes: Axes,
    left: float,
    bottom: float,
    height: float,
    light: np.ndarray,
    seconds: float,
    window: tuple[float, float],
) -> None:
    """The part of a lead's `light` [T], which spans `seconds`, that falls into the `window` of time drawn from `left` on."""
    start, stop = window
    each = seconds / len(light)
    for number, value in enumerate(light):
        first, last = max(number * each, start), min((number + 1) * each, stop)
        if last > first and value > 0.01:
            x, width = left + (first - start) * MM_PER_SECOND, (last - first) * MM_PER_SECOND
            glow = Rectangle(
                (x, bottom + 0.5), width, height - 1, color=_LIGHT, alpha=0.75 * value, linewidth=0, zorder=1
            )
            axes.add_patch(glow)
