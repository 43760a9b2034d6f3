"""Phrases of many problems, which give no problem away: an allow-list for decontamination.

A benchmark's own templates are found by counting. These are of the field: a benchmark may have each of them
once, and the data a hundred times. Of MATH-500 one problem ends in "where m and n are relatively prime
positive integers. Find m + n.", of MATH train 61 do.
"""

from itertools import product
from typing import Final

_LETTERS: Final = (("m", "n"), ("p", "q"), ("a", "b"))
_BEFORE: Final = (
    *("can be written in the form", "can be expressed in the form", "can be written as"),
    *("can be expressed as", "is equal to", "is"),
)
_FIND: Final = ("find", "Find the value of", "compute", "What is")


def _fractions() -> list[str]:
    """A fraction in lowest terms whose parts are to be added, in the ways that competitions say it."""
    return [
        f"the probability {before} {fraction}{one} {other}, where {one} and {other} are {prime} positive "
        f"integers. {find} {one} + {other}."
        for (one, other), before, fraction, find, prime in product(
            _LETTERS, _BEFORE, ("", r"\frac "), _FIND, ("relatively prime", "coprime")
        )
    ]


COMPETITION: Final = (
    *_fractions(),
    "What is the answer? Express your answer as a common fraction in lowest terms.",
    "What is the result? Express your answer as a decimal to the nearest whole number.",
    "What is the result? Express your answer as a decimal to the nearest tenth.",
    "What is the result? Express your answer as a decimal to the nearest hundredth.",
    "What is the result? Express your answer in simplest radical form in terms of pi.",
    "Enter your answer as a comma separated list of all the solutions in increasing order.",
    "Enter all the solutions, separated by commas. If there are none, enter none.",
    "Enter your answer in interval notation. Express your answer in interval notation.",
    "Please reason step by step, and put your final answer within boxed.",
)
