"""The answer in a text that somebody wrote freely."""

import pytest

from r1pipe.verify.extract import written_answer, written_gold


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # What is marked
        ("so 48 + 24 = 72\n#### 72", "72"),
        (r"It is \boxed{5}.", "5"),
        ("The answer is 5. It was easy.", "5"),
        ("<think> 7 \\boxed{7} </think> The answer is 8.", "8"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        # The last formula
        ("Answer $ 9 $", "9"),
        ("Answer \\[ \n 9 \n \\]", "9"),
        (r"Therefore $x \geq 5$ is the solution.", r"x \geq 5"),
        (r"The roots are $1$, $2$ and \(3\).", "1, 2, 3"),
        ("First $1$, and later on $2$ and $3$.", "2, 3"),
        (r"Here it comes: $(9+1)$", "10"),
        # The last number
        ("the number is not 10 which is 1,000.99€", "1,000.99"),
        ("Soucis : 2,74 $ a..", "2,74"),
        ("With $n$ as above there are 12 of them", "12"),
        ("they may be 71 or 72", "71 or 72"),
        ("It is 2/3 of them", "2/3"),
        # All of it
        ("$1$ and $2$", "$1$ and $2$"),
        ("71 or 72", "71 or 72"),
        (r"\frac{1}{3} \text{meters}", r"\frac{1}{3} \text{meters}"),
        ("28 percent", "28 percent"),
        ("AZYUK2A", "AZYUK2A"),
        ("white", "white"),
        ("October 30", "October 30"),
        ("3 cats and 4 dogs", "3 cats and 4 dogs"),
        ("Price: 20", "20"),
        ("a word " * 50, ("a word " * 50).strip()),
        ("", ""),
    ],
)
def test_written_answer(text: str, answer: str) -> None:
    """What it marks, else its last formulas or its last number if it is prose, else the whole text."""
    assert written_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48 + 24 = 72\n#### 72", "72"),
        (r"so $n = \boxed{1,-2}.$", "1,-2"),
        (r"so \boxed{x = 1 \text{ and", r"x = 1 \text{ and"),
        ("$125$ miles", "$125$ miles"),
        ("The value is $28 \\%$. " + "It was long. " * 30, r"28 \%"),
        ("3 cats and 4 dogs or so", "3 cats and 4 dogs or so"),
    ],
)
def test_written_gold(text: str, answer: str) -> None:
    """A worked solution's answer, a bare one as it is, and what a box holds that was cut off."""
    assert written_gold(text) == answer
