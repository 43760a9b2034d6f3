"""Verdicts on answers: what they may be, and how each kind of answer is judged."""

from typing import Final

VERSION: Final = 1
"""Raised by hand when a verdict on any answer would come out another; every trace carries it."""
