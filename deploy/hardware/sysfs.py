"""Small files of the kernel's under /proc and /sys, which may not be there."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """Without the blanks around it. Empty where there is no such file, or none that we may read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """None where there is none, and for words: ``max``, or -1 for what is not known."""
    digits = text(path)
    return int(digits) if digits.isdecimal() and digits.isascii() else None
