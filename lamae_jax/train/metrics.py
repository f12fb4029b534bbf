"""What a run writes down while it trains: metrics.jsonl, tensorboard events, one live line."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from tensorboardX import SummaryWriter

from lamae_jax.errors import NotFinite
from lamae_jax.files import write_text
from lamae_jax.progress import Progress, say


def seconds_so_far(workdir: Path) -> float:
    """Wall time of the earlier parts of a run, as its last logged line says."""
    path = workdir / "metrics.jsonl"
    seconds = [line["seconds"] for line in read_metrics(path) if "seconds" in line] if path.exists() else []
    return max(seconds, default=0.0)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a last line that a kill left half-written is passed over."""
    lines = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


def cut_back(path: Path, step: int) -> None:
    """Drop the lines of `metrics.jsonl` after `step`, and a last line that a kill left half-written."""
    if not path.exists():
        return
    lines = [line for line in read_metrics(path) if line["step"] <= step]
    write_text(path, "".join(f"{json.dumps(line)}\n" for line in lines))


class Metrics:
    """Takes the figures of each step and reads them one step later, so that the device never waits for a log line.

    Every step's loss and gradient norm are checked; the first that is not finite raises NotFinite with its step.
    """

    def __init__(self, workdir: Path, start: int, steps: int, batch_size: int, log_every: int, writes: bool):
        self.log_every, self.batch_size, self.writes = log_every, batch_size, writes
        self.pending: list[tuple[int, dict[str, jax.Array]]] = []
        self.progress = Progress(steps, "steps", "pretrain", start=start, parts=(batch_size, "ECG"))
        self.sums: list[float] = []
        self.first, self.logged, self.since = start + 1, start, time.monotonic()
        self.latest_val: dict[str, float] = {}
        if writes:
            # Nothing is kept of a run that begins again: it measures step 0 again too.
            cut_back(workdir / "metrics.jsonl", start or -1)
            self.file = open(workdir / "metrics.jsonl", "a")  # noqa: SIM115 (closed in __exit__)
            self.events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1 if start else 0)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        if self.writes:
            self.file.close()
            try:
                self.events.close()
            except OSError:
                # A full disk: the events are lost, and tensorboardX would say so in tracebacks when the process ends.
                writer = self.events.file_writer.event_writer
                writer.close = lambda: None
                writer._worker.stop()
                if error is None:
                    raise

    def add(self, step: int, figures: dict[str, jax.Array], seconds: float) -> None:
        """Take the figures of `step` (still being computed) and read those of the step before."""
        for value in figures.values():
            value.copy_to_host_async()
        self.pending.append((step, figures))
        while len(self.pending) > 1:
            self._read(*self.pending.pop(0), seconds)

    def flush(self, seconds: float) -> None:
        """Read all that is pending; after it every step so far is known to be finite."""
        while self.pending:
            self._read(*self.pending.pop(0), seconds)

    def _read(self, step: int, figures: dict[str, jax.Array], seconds: float) -> None:
        values = {name: float(value) for name, value in jax.device_get(figures).items()}
        for name in ("train/loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise NotFinite(f"step {step}: {name} is {values[name]}")
        self.sums.append(values["train/loss"])
        shown = {"val": self.latest_val["val_mse"]} if self.latest_val else {}
        if step == self.first:
            self.progress.restart(step)  # it was compiled
        else:
            self.progress.update(step, loss=values["train/loss"], **shown)
        if step % self.log_every == 0:
            now = time.monotonic()
            rate = (step - self.logged) * self.batch_size / max(now - self.since, 1e-9)
            self.logged, self.since = step, now
            values["train/loss"] = sum(self.sums) / len(self.sums)
            self.sums.clear()
            self.write(step, {**values, "ecg_per_s": rate, "seconds": seconds})

    def evaluated(self, step: int, figures: dict[str, float], took: float, seconds: float) -> None:
        """Take an evaluation at `step`; the time that it `took` is not counted in ECG/s."""
        self.since += took
        if not math.isfinite(figures["val_mse"]):
            raise NotFinite(f"step {step}: val/loss is {figures['val_mse']}")
        if not self.latest_val:
            names = {name: name.removeprefix("val_mse_").replace("_", " ") for name in figures if name != "val_mse"}
            yardsticks = ", ".join(f"{words} {figures[name]:.4f}" for name, words in names.items())
            self.progress.close()
            say(f"without learning: {yardsticks}")
        self.latest_val = figures
        self.write(step, {"val/loss": figures["val_mse"], "seconds": seconds})

    def write(self, step: int, figures: dict[str, float]) -> None:
        """One JSON object a line, and the same to tensorboard."""
        if not self.writes:
            return
        self.file.write(
            json.dumps({"step": step, **{name: round_off(value) for name, value in figures.items()}}) + "\n"
        )
        self.file.flush()
        for name, value in figures.items():
            self.events.add_scalar(name, value, step)


def round_off(value: Any) -> Any:
    """Seven digits: all that float32 holds."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
