"""The tiny world's arithmetic, on which its problems and its solver agree: every value is a token."""

from r1pipe.world.words import LARGEST_NUMBER


def apply(left: int, sign: str, right: int) -> int | None:
    """The value of `left sign right`, or None where it leaves the world: not whole, below 0 or above 99."""
    if sign == "+":
        value = left + right
    elif sign == "-":
        value = left - right
    elif sign == "*":
        value = left * right
    elif right and left % right == 0:
        value = left // right
    else:
        return None
    return value if 0 <= value <= LARGEST_NUMBER else None
