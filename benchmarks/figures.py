"""Figures as reports write them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits them.

    Example:
        >>> duration(0.00012), duration(0.0456), duration(2.5)
        ('0.12 ms', '45.6 ms', '2.50 s')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{1 if seconds >= 0.01 else 2}f} ms"


def times(ratio: float) -> str:
    """Return a ratio with three digits.

    Example:
        >>> times(512.3), times(1.0), times(0.8123)
        ('512x', '1.00x', '0.81x')
    """
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.1f}x" if ratio >= 10 else f"{ratio:.2f}x"
