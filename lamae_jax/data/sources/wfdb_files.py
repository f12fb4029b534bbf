"""WFDB records: a header (.hea, text) and its signal files.

The header is always parsed here, strictly, and held against the signal files before anything is allocated. Format 16 in one
file (.dat, or the .mat of the PhysioNet Challenges) is then read here, some thirty times quicker than by the wfdb package and
with the same bits; every other format goes through that package. The header's grammar:
https://wfdb.io/spec/header-files.html . What it leaves open is not guessed: a missing or zero gain means "uncalibrated" and is
refused, where wfdb takes 200. Only a missing unit has a meaning (mV) and a missing baseline another (the ADC zero).
"""

from __future__ import annotations

import math
import os
import re
import stat
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lamae_jax.data.sources import Entry, Recording, Unreadable, check_size
from lamae_jax.files import regular

INVALID = -32768  # format 16's mark for "no valid sample here"
LONGEST_HEADER = 1 << 16  # bytes; real ones have about one thousand

# (bytes, samples) of a block, for the formats that the wfdb package reads besides FLAC; a file's last block may be cut.
BLOCKS = {
    "8": (1, 1), "16": (2, 1), "24": (3, 1), "32": (4, 1), "61": (2, 1), "80": (1, 1), "160": (2, 1),
    "212": (3, 2), "310": (4, 3), "311": (4, 3),
}  # fmt: skip
FLAC = ("508", "516", "524")

COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)
NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
RATE = re.compile(rf"({NUMBER})(?:/\S*)?")
FORMAT = re.compile(r"([0-9]+)(?:x([0-9]{1,9}))?(?::([0-9]{1,9}))?(?:\+([0-9]{1,15}))?", re.ASCII)
GAIN = re.compile(rf"({NUMBER})(?:\((-?[0-9]{{1,10}})\))?(?:/(\S+))?", re.ASCII)
# ADC resolution, ADC zero, first value, checksum, block size, then the name, which may hold blanks.
TAIL = re.compile(r"[0-9]+\s+(-?[0-9]{1,10})\s+-?[0-9]+\s+-?[0-9]+\s+[0-9]+\s+(\S.*)", re.ASCII)
WFDB_NAME = re.compile(r"[-\w]+\.\w+", re.ASCII)  # the file names that the wfdb package understands as they stand


@dataclass(frozen=True)
class Header:
    """A header that does not contradict itself; lists have one item a signal, n of them."""

    fs: float  # Hz
    samples: int  # N, per signal
    files: list[str]  # plain names in the header's own folder
    formats: list[tuple[str, int, int]]  # (code, skew, byte offset)
    gains: list[float]  # counts per unit, finite and > 0
    baselines: list[int]  # counts
    units: list[str]
    leads: list[str]  # unique


@dataclass(frozen=True)
class WfdbReader:
    """Reads the entries of a folder of WFDB records; all that a worker needs to know of a source."""

    folder: Path

    def __call__(self, entry: Entry) -> Recording:
        return read_record(self.folder, entry.path)


def read_record(folder: Path | str, path: str) -> Recording:
    """Read record `path`, relative to `folder` and without extension. Raises Unreadable, and nothing else for bad data."""
    record = record_path(folder, path)
    header = read_header(record)
    check_files(record, header)
    if all(item == header.formats[0] for item in header.formats) and len(set(header.files)) == 1:
        code, skew, offset = header.formats[0]
        if code == "16" and not skew:
            return recording(header, read_16(record, header, offset))
    return recording(header, read_through_wfdb(record, header))


def check_record(folder: Path | str, path: str) -> None:
    """Raise Unreadable when header and file sizes already show that the record cannot be read; opens the header alone."""
    record = record_path(folder, path)
    check_files(record, read_header(record))


def find_records(folder: Path) -> list[str]:
    """Every header below `folder`, relative and without extension, sorted. Linked folders are followed once."""
    found, seen = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here = os.path.realpath(root)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        below = os.path.relpath(root, folder).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name[:-4] for name in files if name.endswith(".hea")]
    return sorted(found)


def find_unlisted(folder: Path, listed: set[str]) -> list[str]:
    """The sound records below `folder` whose path is not among `listed`."""
    unlisted = []
    for path in find_records(folder):
        if path not in listed:
            try:
                check_record(folder, path)
            except Unreadable:
                continue
            unlisted.append(path)
    return unlisted


def record_path(folder: Path | str, path: str) -> str:
    """Where a listed record lies. Raises Unreadable `path` for one outside of `folder`: tables can point anywhere."""
    if not path or path.startswith("/") or "\\" in path or "::" in path or "\0" in path or ".." in path.split("/"):
        raise Unreadable("path", f"the record is listed at {path[:100]!a}, which is not a place in the source's folder")
    return f"{folder}/{path}"


def read_header(record: str) -> Header:
    """Read and parse `record`.hea. Raises Unreadable."""
    try:
        with open(record + ".hea", "rb", buffering=0, opener=regular) as file:
            raw = file.read(LONGEST_HEADER)
    except FileNotFoundError:
        if any(os.path.exists(record + extension) for extension in (".dat", ".mat")):
            raise Unreadable("header", "the signal file is there, the header is not") from None
        raise Unreadable("absent", "listed, but neither header nor signal file is there") from None
    except OSError as error:
        raise Unreadable("header", f"the header cannot be opened: {error.strerror}") from None
    if len(raw) == LONGEST_HEADER:
        raise Unreadable("header", f"a header of {LONGEST_HEADER} bytes or more")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # old headers write the micro sign so
    return parse_header(text)


def parse_header(text: str) -> Header:
    """Parse a header. Raises Unreadable with the first thing that is wrong."""
    lines = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]
    if not lines:
        raise Unreadable("header", "the header is empty")
    record = lines[0].split()
    if len(record) < 2 or not COUNT.fullmatch(record[1]):
        raise Unreadable("header", f"no record line: {lines[0][:60]!a}")
    if "/" in record[0]:
        raise Unreadable("format", "a record of several segments; take the segments one by one")
    signals = int(record[1])
    if signals != len(lines) - 1 or not signals:
        raise Unreadable("header", f"{signals} signals are announced, {len(lines) - 1} signal lines follow")
    rate = RATE.fullmatch(record[2]) if len(record) > 2 else None
    fs = float(rate[1]) if rate else math.nan
    if not 0 < fs < math.inf:
        raise Unreadable("fs", f"no positive sampling rate in the record line: {lines[0][:60]!a}")
    if len(record) < 4 or not COUNT.fullmatch(record[3]) or not int(record[3]):
        raise Unreadable("header", "the number of samples is missing or 0")

    header = Header(fs, int(record[3]), [], [], [], [], [], [])
    for number, line in enumerate(lines[1:], 1):
        parse_signal_line(header, line, number)
    if len(set(header.leads)) < signals:
        twice = next(name for name in header.leads if header.leads.count(name) > 1)
        raise Unreadable("leads", f"the name {twice[:30]!a} stands twice")
    return header


def parse_signal_line(header: Header, line: str, number: int) -> None:
    """Append what one signal line says. Raises Unreadable."""
    fields = line.split(None, 3)
    name = fields[0]
    if not is_plain_name(name):
        raise Unreadable("path", f"signal {number} points to {name[:60]!a}, no plain name in the header's folder")
    if len(fields) < 2:
        raise Unreadable("header", f"signal line {number} ends after the file name")
    if len(fields) < 3:
        raise Unreadable("gain", f"signal {number} has no gain: it is uncalibrated")
    code = parse_format(fields[1])
    gain, baseline, unit = parse_gain(fields[2])
    tail = TAIL.fullmatch(fields[3]) if len(fields) > 3 else None
    if tail is None:
        if len(fields) < 4 or re.fullmatch(r"[-0-9\s]*", fields[3]):
            raise Unreadable("leads", f"signal {number} has no name")
        raise Unreadable("header", f"signal line {number} is not in order: {line[:80]!a}")
    header.files.append(name)
    header.formats.append(code)
    header.gains.append(gain)
    header.baselines.append(int(tail[1]) if baseline is None else baseline)
    header.units.append(unit)
    header.leads.append(tail[2])


@lru_cache(maxsize=256)
def is_plain_name(name: str) -> bool:
    """Whether a signal file's name stays in the folder of its header: no path, no address."""
    return name not in (".", "..") and not any(mark in name for mark in "/\\:\0")


@lru_cache(maxsize=256)
def parse_format(text: str) -> tuple[str, int, int]:
    """`16`, `16+24`, `212:3` -> (code, skew, byte offset). Raises Unreadable."""
    match = FORMAT.fullmatch(text)
    if match is None:
        raise Unreadable("header", f"{text[:30]!a} is no format")
    code, per_frame, skew, offset = match.groups()
    if code not in BLOCKS and code not in FLAC:
        raise Unreadable("format", f"format {code[:10]} is unknown")
    if per_frame not in (None, "1"):
        raise Unreadable("format", f"{per_frame} samples a frame: signals of several rates in one record")
    return code, int(skew or 0), int(offset or 0)


@lru_cache(maxsize=4096)
def parse_gain(text: str) -> tuple[float, int | None, str]:
    """`200.0(0)/mV` -> (200.0, 0, "mV"); baseline None where not written. Raises Unreadable."""
    match = GAIN.fullmatch(text)
    gain = float(match[1]) if match else math.nan
    if match is None or not 1e-12 < gain < 1e12:  # beyond that no unit is meant, and single precision overflows
        raise Unreadable("gain", f"{text[:30]!a} gives no finite positive gain: the amplitude is unknown")
    return gain, None if match[2] is None else int(match[2]), match[3] or "mV"


def check_files(record: str, header: Header) -> None:
    """Hold the claimed number of samples against what is read at most and the size of each signal file. Raises Unreadable."""
    check_size(len(header.leads), header.samples)
    folder = os.path.dirname(record)
    for name in dict.fromkeys(header.files):
        try:
            status = os.stat(f"{folder}/{name}")
        except OSError as error:
            raise Unreadable("missing_signal", f"signal file {name[:60]}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("missing_signal", f"signal file {name[:60]} is no regular file")
        formats = [code for file, code in zip(header.files, header.formats, strict=True) if file == name]
        code, _, offset = formats[0]
        if any((other, at) != (code, offset) for other, _, at in formats):
            raise Unreadable("header", f"signal file {name[:60]} is given two formats or offsets")
        if code in FLAC:
            check_flac(f"{folder}/{name}", name, len(formats), header.samples + offset, status.st_size)
            continue
        block, samples = BLOCKS[code]
        values = len(formats) * header.samples
        cut, whole = offset - (-values * block // samples), offset - (-values // samples) * block
        if status.st_size not in (cut, whole):
            claim = f"{len(formats)} signals x {header.samples} samples in format {code}"
            raise Unreadable("size", f"the signal file has {status.st_size} bytes, {cut} are due for {claim}")


def check_flac(path: str, name: str, signals: int, samples: int, size: int) -> None:
    """Hold a FLAC file's own description against the header. Raises Unreadable."""
    with open(path, "rb") as file:
        start = file.read(26)
    if len(start) < 26 or start[:4] != b"fLaC" or start[4] & 0x7F != 0:
        raise Unreadable("format", f"signal file {name[:60]} is no FLAC file")
    # STREAMINFO: 20 bits rate, 3 bits channels - 1, 5 bits sample width - 1, 36 bits samples a channel.
    packed = int.from_bytes(start[18:26], "big")
    channels, total = (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    if (channels, total) != (signals, samples):
        raise Unreadable(
            "size", f"the FLAC file holds {channels} signals x {total} samples, {signals} x {samples} are due"
        )
    # A constant stream compresses without bound; a recorded ECG two to four times.
    if signals * samples > max(1 << 20, 64 * size):
        raise Unreadable("size", f"{signals} x {samples} samples in {size} bytes is no recording")


def read_16(record: str, header: Header, offset: int) -> np.ndarray:
    """Format 16, one file, checked: little-endian int16, signals interleaved -> float32 [n, N] in physical units."""
    signals, size = len(header.leads), 2 * len(header.leads) * header.samples
    with open(f"{os.path.dirname(record)}/{header.files[0]}", "rb", buffering=0) as file:
        if offset:
            file.seek(offset)
        raw = file.read()
    if len(raw) != size:  # the file changed since it was measured, or the disk gave less
        raise Unreadable("size", f"{len(raw)} bytes could be read, {size} are due")
    counts = np.frombuffer(raw, "<i2").reshape(header.samples, signals)
    gains = np.array(header.gains)
    baselines = np.array(header.baselines, np.float64)
    # Single precision gives the very bits of wfdb's double precision, rounded, as long as both operands are exact in it.
    exact = (gains == gains.astype(np.float32)).all() and np.abs(baselines).max() < 1 << 23
    kind = np.float32 if exact else np.float64
    # Turned while the samples are small: quicker than turning floats.
    signal: np.ndarray = np.ascontiguousarray(counts.T).astype(kind)
    if baselines.any():
        signal -= baselines.astype(kind)[:, None]
    signal /= gains.astype(kind)[:, None]
    signal = signal.astype(np.float32, copy=False)
    if counts.min() == INVALID:
        signal[counts.T == INVALID] = np.nan
    return signal


def read_through_wfdb(record: str, header: Header) -> np.ndarray:
    """Any other format, by the wfdb package -> float32 [n, N] in physical units."""
    # A name that wfdb would understand otherwise than we did could lead it to another file.
    strange = [name for name in header.files if not WFDB_NAME.fullmatch(name)]
    if strange:
        raise Unreadable("format", f"the wfdb package does not take the file name {strange[0][:60]!a}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # wfdb's pandas warnings, at import and at every header
        import wfdb

        try:
            read = wfdb.rdrecord(os.path.abspath(record))
        except Exception as error:  # whatever a foreign parser raises on foreign bytes concerns this record alone
            line = " ".join(str(error).split())[:120]
            raise Unreadable("format", f"wfdb: {type(error).__name__}: {line}") from None
    ours = (header.files, [code for code, _, _ in header.formats], header.gains, header.baselines, header.samples)
    theirs = (read.file_name, read.fmt, read.adc_gain, read.baseline, read.sig_len)
    if ours != theirs or read.p_signal.shape != (header.samples, len(header.leads)):
        raise Unreadable("header", "the wfdb package understands this header otherwise")
    return np.ascontiguousarray(read.p_signal.T, np.float32)


def recording(header: Header, signal: np.ndarray) -> Recording:
    """The recording of a header and its signal [n, N]."""
    return Recording(signal, header.fs, tuple(header.leads), tuple(header.units))
