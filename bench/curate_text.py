"""The sentences of made-up reasoning: what people and models say when they work on a problem."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Final

DOMAINS: Final = ("algebra", "number theory", "geometry", "code", "science")
CHINESE: Final = "Chinese"
_POOL: Final = 6000  # sentences of each domain

_OPENERS: Final = (
    *(
        "Okay, so",
        "Wait,",
        "Hmm,",
        "Alternatively,",
        "Let me check:",
        "So",
        "First,",
        "Now",
        "Therefore",
        "But",
    ),
    *(
        "Actually,",
        "That means",
        "Let me see, since",
        "I think",
        "In other words,",
        "Next,",
        "Let's verify that",
    ),
    *(
        "Because of this,",
        "Going back,",
        "To be sure,",
        "Suppose that",
        "It follows that",
        "Hold on,",
        "Indeed,",
    ),
)
_VERBS: Final = (
    *(
        "gives",
        "equals",
        "leads to",
        "cannot exceed",
        "simplifies to",
        "reduces to",
        "depends on",
        "determines",
    ),
    *(
        "is the same as",
        "is bounded by",
        "comes from",
        "agrees with",
        "differs from",
        "grows like",
        "cancels",
    ),
    *("must satisfy", "is consistent with", "contradicts", "follows from", "can be replaced by", "implies"),
)
_ENDS: Final = (
    *(
        "which is what we wanted",
        "as the problem says",
        "so this case is done",
        "up to a sign",
        "by symmetry",
    ),
    *(
        "but I should double check",
        "so the total is %d",
        "and the remainder is %d",
        "after adding %d on both sides",
    ),
    *(
        "for every value from %d to %d",
        "unless the two are equal",
        "when we start from %d",
        "with %d left over",
    ),
    *(
        "so only %d cases remain",
        "because %d is too small",
        "and then we multiply by %d",
        "if I have not slipped",
    ),
    *(
        "which I computed before",
        "and nothing else changes",
        "since both sides are positive",
        "in this situation",
    ),
)
_PLACES: Final = (
    *(
        "in the first equation",
        "at this point",
        "on the left hand side",
        "from step %d",
        "in the second case",
    ),
    *(
        "by the earlier remark",
        "over the whole range",
        "for the smaller one",
        "in the worst case",
        "here",
        "again",
    ),
    *("without loss of generality", "from the given condition", "in the last line", "after substitution"),
)
_NOUNS: Final[Mapping[str, Sequence[str]]] = {
    "algebra": (
        *("the quadratic \\(x^2 - %dx + %d = 0\\)", "the coefficient of \\(x^%d\\)", "the sum of the roots"),
        *(
            "the discriminant \\(b^2 - 4ac = %d\\)",
            "the polynomial",
            "the expression \\(\\frac{%d}{x + %d}\\)",
        ),
        *(
            "the constant term %d",
            "the inverse function",
            "the factor \\((x - %d)\\)",
            "the slope",
            "the value f(%d)",
        ),
        *(
            "the system of equations",
            "the inequality \\(%dx < %d\\)",
            "the geometric series",
            "the product %d*%d",
        ),
    ),
    "number theory": (
        *(
            "the remainder modulo %d",
            "the greatest common divisor of %d and %d",
            "the prime factor %d",
            "the digit sum",
        ),
        *(
            "the order of %d modulo %d",
            "the number of divisors of %d",
            "the congruence \\(%dx \\equiv %d\\)",
            "parity",
        ),
        *(
            "the last digit of \\(%d^{%d}\\)",
            "the least common multiple",
            "the residue class",
            "the exponent of two",
        ),
        *("Fermat's little theorem", "the Euclidean algorithm", "the quotient %d", "the perfect square %d"),
    ),
    "geometry": (
        *(
            "the angle of %d degrees",
            "the side of length %d",
            "the circumscribed circle",
            "the area \\(\\frac{%d}{2}\\)",
        ),
        *(
            "the altitude from the vertex",
            "the midpoint of the segment",
            "triangle ABC",
            "the ratio \\(%d : %d\\)",
        ),
        *(
            "the inscribed square",
            "the tangent line",
            "the perimeter %d",
            "the diagonal \\(\\sqrt{%d}\\)",
            "the radius",
        ),
        *("the power of the point", "the parallel through the point", "the hypotenuse", "the law of cosines"),
    ),
    "code": (
        *(
            "the loop over `range(%d)`",
            "the index i = %d",
            "the dictionary of counts",
            "the recursive call",
            "the list",
        ),
        *(
            "the base case",
            "the pointer to the next node",
            "the running sum %d",
            "the complexity O(n log n)",
            "the heap",
        ),
        *(
            "the function `solve(n)`",
            "the test with input %d",
            "the off by one error",
            "the queue of size %d",
            "the key",
        ),
        *(
            "the sorted array",
            "the cache of %d entries",
            "the boundary at %d",
            "the second argument",
            "the stack",
        ),
    ),
    "science": (
        *(
            "the force of %d newtons",
            "the mass of %d kg",
            "the temperature at %d kelvin",
            "the energy balance",
            "the charge",
        ),
        *(
            "the velocity after %d seconds",
            "the concentration of the solution",
            "the reaction rate",
            "the wavelength",
        ),
        *(
            "the pressure of %d pascals",
            "the half life of %d years",
            "the equilibrium constant",
            "the current",
        ),
        *(
            "the momentum before the collision",
            "the acceleration",
            "the molar mass %d",
            "the boundary condition",
        ),
    ),
}
_CHINESE_PARTS: Final = (
    "首先 所以 等等 因此 另外 我们知道 接下来 其实 不过 由此可见 假设 再看一遍",
    "这个方程 第一个条件 它们的和 余数 两边 这个三角形 最后一项 系数 前面的结果 变量的取值",
    "等于%d 不能超过%d 可以化简 与题目一致 必须大于%d 除以%d之后得到%d 满足要求 和前面矛盾",
    "还需要检验 这就是答案的一部分 一共有%d种情况 所以剩下%d 符合题意 下面继续计算 加上%d即可",
)


@cache
def sentences(domain: str, seed: int) -> tuple[list[str], float]:
    """What a domain's traces are made of, and the mean length: texts that want numbers for each `%d`.

    Every fourth ends its paragraph.
    """
    random = Random(f"{seed} sentences {domain}")
    make = _chinese if domain == CHINESE else _english
    found = [make(domain, random) + random.choice((" ", " ", " ", "\n\n")) for _ in range(_POOL)]
    return found, sum(map(len, found)) / len(found)


def _english(domain: str, random: Random) -> str:
    nouns = _NOUNS[domain]
    parts = [random.choice(_OPENERS), random.choice(nouns), random.choice(_VERBS), random.choice(nouns)]
    if random.random() < 0.6:
        parts.append(random.choice(_PLACES))
    return f"{' '.join(parts)}, {random.choice(_ENDS)}."


def _chinese(_: str, random: Random) -> str:
    first, *others = (random.choice(part.split()) for part in _CHINESE_PARTS)
    return f"{first}{''.join(others[:2])}\N{FULLWIDTH COMMA}{others[2]}。"


# --- Questions

_PEOPLE: Final = (
    "Nora",
    "Ilya",
    "Mei",
    "Tomás",
    "Aisha",
    "Bram",
    "Lucía",
    "Ravi",
    "Hanna",
    "Kofi",
    "Yuki",
    "Oren",
)
_THINGS: Final = (
    *(
        "stamps",
        "marbles",
        "notebooks",
        "plums",
        "bolts",
        "tickets",
        "seashells",
        "tiles",
        "candles",
        "lemons",
    ),
    *("pencils", "buttons", "postcards", "acorns", "spoons", "kites"),
)
_SETTINGS: Final = (
    *(
        "at the harbour market",
        "for the village fair",
        "in a dusty attic",
        "on the last day of school",
        "by the canal",
    ),
    *(
        "during the long winter",
        "for a neighbour's birthday",
        "at the railway museum",
        "after the storm had passed",
    ),
    *(
        "in grandmother's workshop",
        "before the concert began",
        "on a rainy weekend",
        "in the botanical garden",
    ),
)


def question(domain: str, random: Random, benchmark: bool = False) -> tuple[str, int]:
    """A problem and its answer. No two are likely to be the same; those of a `benchmark` are worded
    otherwise."""
    if benchmark:
        return _of_benchmark(random)
    return _ASKED[domain](random)


def _of_benchmark(random: Random) -> tuple[str, int]:
    a, b, c = (random.randrange(11, 990) for _ in range(3))
    who, what, where = random.choice(_PEOPLE), random.choice(_THINGS), random.choice(_SETTINGS)
    text = (
        f"{where.capitalize()}, {who} sorted {a} {what} into {b % 17 + 2} equal piles and gave away what was "
        f"left, then received {c} more from {random.choice(_PEOPLE)}, who kept {b} {random.choice(_THINGS)}. "
        f"How many {what} does {who} have in the end?"
    )
    return text, a - a % (b % 17 + 2) + c


def _algebra(random: Random) -> tuple[str, int]:
    a, b, c = (random.randrange(2, 9999) for _ in range(3))
    opening = random.choice(("Find all real", "Determine every", "Work out each possible"))
    return f"{opening} $x$ such that ${a}x - {b + 3 * a} = {c}x - {b + 3 * c}$, with reasons.", 3


def _number_theory(random: Random) -> tuple[str, int]:
    a, m, k = random.randrange(10**4, 10**7), random.randrange(11, 997), random.randrange(2, 5)
    verb = random.choice(("What remains when", "Compute what is left when", "Give the remainder when"))
    return f"{verb} ${a}^{k}$ is divided by ${m}$, and say how you know it?", a**k % m


def _geometry(random: Random) -> tuple[str, int]:
    a, b, h = (random.randrange(3, 3000) for _ in range(3))
    return f"A trapezoid has parallel sides {a} and {b + 1} and height {2 * h}. How large is its area?", (
        a + b + 1
    ) * h


def _code(random: Random) -> tuple[str, int]:
    n, step, start = random.randrange(50, 90_000), random.randrange(2, 90), random.randrange(90)
    return (
        f"How many numbers does the loop `for i in range({start}, {start + n}, {step})` visit in all?",
        -(-n // step),
    )


def _science(random: Random) -> tuple[str, int]:
    mass, speed = random.randrange(2, 5000), random.randrange(2, 2000)
    who, what, where = random.choice(_PEOPLE), random.choice(_THINGS), random.choice(_SETTINGS)
    return (
        f"{who} pushes a cart of {what} {where}; it weighs {2 * mass} kg and moves at {speed} m/s. What is "
        f"its kinetic energy in joules?",
        mass * speed**2,
    )


_ASKED: Final[Mapping[str, Callable[[Random], tuple[str, int]]]] = {
    "algebra": _algebra,
    "number theory": _number_theory,
    "geometry": _geometry,
    "code": _code,
    "science": _science,
}
