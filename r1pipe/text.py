"""How numbers and times read: the same on the terminal, on the report and in the run's files."""

import math
from datetime import UTC, datetime


def now() -> str:
    """Return the time as it is written everywhere: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def duration(seconds: float) -> str:
    """A span of time in at most two units: `0.4 s`, `42 s`, `3m 12s`, `2h 05m`, `3d 4h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def quantity(value: float) -> str:
    """A count with three significant digits: `950`, `8.1k`, `1.54M`."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share of 1 as a percentage: `0.4 %` below one, `12 %` above."""
    value = 100 * share
    return f"{value:.1f} %" if 0 < abs(value) < 0.95 else f"{value:.0f} %"


def half_width(stderr: float) -> float:
    """Half of the 95 % interval of a mean with this standard error (normal approximation)."""
    return 1.96 * stderr


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share seen in `count` independent trials (Wilson, 1927).

    Unlike the normal approximation it stays within 0..1 and does not collapse to nothing at 0 and 1. For a
    mean of values between 0 and 1 that are not all 0 or 1 it is somewhat too wide, never too narrow.

    Raises:
        ValueError: there were no trials.
    """
    if count <= 0:
        raise ValueError("an interval needs at least one trial")
    z2 = 1.96**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 * math.sqrt(max(share * (1 - share), 0) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and its end (where the answer stands) when it is longer than `most`."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head].rstrip()} […] {text[len(text) - (most - head) :].lstrip()}"
