"""Phrases of many problems, which give no problem away: an allow-list for decontamination.

A benchmark's own templates are found by counting. These are of the field: a benchmark may have each of them
once, and the data a hundred times. Of MATH-500 one problem ends in "where m and n are relatively prime
positive integers. Find m + n.", of MATH train 61 do.
"""

from itertools import product
from typing import Final

_LETTERS: Final = (("m", "n"), ("p", "q"), ("a", "b"), ("r", "s"))
_PRIME: Final = ("relatively prime", "coprime")

COMPETITION: Final = (
    *(
        f"where {one} and {other} are {prime} {kind}"
        for (one, other), prime, kind in product(_LETTERS, _PRIME, ("positive integers", "integers"))
    ),
    *(
        f"can be {said} {how} {fraction} {one} {other}"
        for (one, other), said, how, fraction in product(
            _LETTERS, ("written", "expressed"), ("as", "in the form"), ("", "frac")
        )
    ),
    "Express your answer as a common fraction",
    "Express your answer as a decimal to the nearest",
    "Express your answer to the nearest",
    "Express your answer in simplest radical form",
    "Express your answer in terms of",
    "Express your answer in interval notation",
    "Enter your answer in interval notation",
    "Enter your answer in the form",
    "Enter your answer as",
    "Enter all the solutions, separated by commas",
    "Enter all solutions, separated by commas",
    "separated by commas",
    "What is the value of",
    "Please reason step by step, and put your final answer within boxed",
)
"""Phrases that ask for an answer in some form."""
