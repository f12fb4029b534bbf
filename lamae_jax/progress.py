"""What a run says while it works: one live line on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time

_silent = False


def hush() -> None:
    """Say nothing from here on: of the processes of one job only the first speaks (errors aside)."""
    global _silent
    _silent = True


def say(text: str) -> None:
    """Print one plain line at once."""
    if not _silent:
        print(text, flush=True)


def clock(seconds: float) -> str:
    """Seconds as a reader says them: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Progress towards `total` things of a `unit`, with rate and remaining time.

    On a terminal one line is rewritten several times a second; elsewhere a plain line appears at most every `every` seconds.
    Where each thing holds several others, `parts` says how many and of what, `(16, "ECG")`: the rate is told in those.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        label: str,
        start: int = 0,
        every: float = 10.0,
        parts: tuple[int, str] | None = None,
    ):
        self.total, self.unit, self.label = total, unit, label
        self.parts = parts or (1, unit)
        self.live = sys.stdout.isatty() and not _silent
        self.every = 0.2 if self.live else every
        self.start, self.began = start, time.monotonic()
        self.shown = -1e9 if self.live else self.began
        self.width = 0

    def restart(self, done: int) -> None:
        """Count rate and remaining time from here: what came before (compiling, say) does not come again."""
        self.start, self.began = done, time.monotonic()

    def rate(self, done: int) -> float:
        """Things a second since the start."""
        return (done - self.start) / max(time.monotonic() - self.began, 1e-9)

    def update(self, done: int, **figures: float | str) -> None:
        """Show how far it is, if it is time to; `figures` are shown as given (`loss=0.61`)."""
        now = time.monotonic()
        if now - self.shown < self.every:
            return
        self.shown = now
        rate = self.rate(done)
        left = clock((self.total - done) / rate) if rate > 0 else "?"
        parts = [f"{self.label} {done}/{self.total} {self.unit}"]
        parts += [
            f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in figures.items()
        ]
        size, part = self.parts
        parts.append(f"{rate * size:.4g} {part}/s")
        self.line(", ".join([*parts, f"{left} left"]))

    def line(self, text: str) -> None:
        """Rewrite the live line, or print a plain one."""
        if self.live:
            padding = " " * max(0, self.width - len(text))
            self.width = len(text)
            print(f"\r{text}{padding}", end="", flush=True)
        else:
            say(text)

    def close(self) -> None:
        """End the live line, so that the next print starts on its own."""
        if self.live and self.width:
            print(flush=True)
            self.width = 0
