"""How an answer is written: what only dresses it goes, what looks the same on paper is spelled the same.

Nothing here knows what a number is. All of it is regular expressions without nested repeats, so that the cost
grows with the length of the text.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_SIMPLE: Final = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)

_SIGNS: Final = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "π": r"\pi ", "∞": r"\infty ",
        "√": r"\sqrt ", "\N{UNION}": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ",
        "°": r"^\circ ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
        "¾": r"\frac{3}{4}", "€": "", "£": "", "¥": "", "₹": "", "¢": " cents", "“": "", "”": "",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{FULLWIDTH COMMA}": ",",
        "\N{NO-BREAK SPACE}": " ", "\N{THIN SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " ",
        "\N{ZERO WIDTH SPACE}": "", "\N{WORD JOINER}": "", "\N{ZERO WIDTH NO-BREAK SPACE}": "",
    }
)  # fmt: skip
"""Signs that have a spelling in TeX; signs of money and quotation marks only dress an answer."""

_TEXT_COMMANDS: Final = r"(?:text(?:bf|it|rm|normal|sf)?|math(?:rm|bf|it)|mbox|hbox|rm|bf)"
_REWRITTEN: Final = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"(?<=\d)(?:,\\!|\{,\}|\\,) *(?=\d{3}(?!\d))", ""),  # thousands, beyond doubt
        (r"(?<=\d)\{,\}(?=\d)", "."),  # a decimal comma, as TeX wants it written
        (r"(?<!\\)\\!|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits)(?![a-z])", ""),
        (r"(?<!\\)\\[,;:> \n]|\\q?quad(?![a-zA-Z])|~|\s+", " "),
        (r"\\[$]|[$]|(?<!\\)\\[()\[\]]", " "),
        (r"\\%", "%"),
        (rf"\\{_TEXT_COMMANDS} ?\{{", r"\\text{"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[hv]?phantom ?(?:\{[^{}]*\}|[^{\\])", ""),
        (r"\\frac(?![a-zA-Z]) ?(\d|[a-zA-Z]|\\pi(?![a-zA-Z])) ?(?=[\d{\\a-zA-Z])", r"\\frac{\1}"),
        (r"(\\frac ?\{[^{}]*\}) ?(\d|[a-zA-Z]|\\pi(?![a-zA-Z]))", r"\1{\2}"),
        (r"\\sqrt ?(\d|[a-zA-Z](?![a-zA-Z]))", r"\\sqrt{\1}"),
        (r"\\(?:varnothing|O)(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\neq(?![a-zA-Z])", r"\\ne"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\^ ?\{? ?\\(?:circ|degree)(?![a-zA-Z]) ?\}?|\\degree(?![a-zA-Z])", r"^\\circ "),
    )
)
_ESCAPED_TWICE: Final = re.compile(r"\\\\(?=[a-zA-Z])")
_WRAPPED: Final = re.compile(r"^(?:\\\"|[*`\" ])+|(?:\\\"|[*`\".,;:? ])+$")
_SPACES: Final = re.compile(r" {2,}")
_PI: Final = re.compile(r"(?<![a-zA-Z\\])pi(?![a-zA-Z])")
_SAID: Final = re.compile(
    r"^(?:so,? |thus,? |hence,? |therefore,? )?(?:the )?(?:final )?answer(?: is|:| =)[: ]*", re.IGNORECASE
)


def tidy(text: str) -> str:
    r"""The text without its dressing: math delimiters, spacing, signs of money, emphasis, a full stop.

    >>> tidy(r"\(\dfrac12\,\mathrm{cm}\).")
    '\\frac{1}{2} \\text{cm}'
    """
    if _SIMPLE.fullmatch(text):
        return text
    if not text.isascii():
        # Half of a surrogate pair is no text, and nothing could send it to a worker.
        text = text.encode("utf-8", "replace").decode().translate(_SIGNS)
    if "\\" in text or "$" in text or "{" in text or "~" in text:
        if "\\\\" in text and "\\begin" not in text:
            text = _ESCAPED_TWICE.sub(r"\\", text)
        for pattern, by in _REWRITTEN:
            text = pattern.sub(by, text)
    text = _WRAPPED.sub("", " ".join(text.split()))
    return _PI.sub(r"\\pi ", _SAID.sub("", text)).strip()


_TEXT: Final = re.compile(r"\\text\{([^{}]*)\}")
_LOOSE: Final = re.compile(r"(?<![\d,]) +| +(?!\d)|(?<=,) +(?!\d{3}(?!\d))")
_SINGLE: Final = re.compile(r"([\^_])\{(.)\}")


def bare(text: str) -> str:
    r"""What a tidied text says without spaces and `\text{}`: equal texts are equal in this form.

    A space stays where it makes two of one number, in `1 2` and `32, 349`.
    """
    text = _SPACES.sub(" ", _TEXT.sub(r"\1", text)).strip()
    return _SINGLE.sub(r"\1\2", _LOOSE.sub("", text)).rstrip(".")


_ARTICLE: Final = re.compile(r"\b(?:the|an?)\b (?=\w)")
_NOT_LETTERS: Final = re.compile(r"((?<!\w)-(?=\d)|[.:](?=\d)|(?<=\d)%|(?<=\d) (?=\d))|[\W_]")
"""What goes, but for what belongs to a number."""
_WORDS: Final = re.compile(r"[^\W\d_][^\\^_=<>+*/{}()\[\]|,;]*")
_SHORT_WORDS: Final = frozenset(("yes", "no", "odd"))
_WORD: Final = re.compile(r"[^\W\d_]{2,}")


def words(text: str) -> str | None:
    r"""A tidied text in words, in the form that equal ones share, or None where it may be mathematics.

    Words are what stands inside `\text{}`, and otherwise two words or one of four letters; case, articles,
    spaces and punctuation do not count. A single letter is a name, and `A` is not `a`.
    """
    plain = _TEXT.sub(r"\1", text).strip(" ()")
    if len(plain) == 1:
        return plain if plain.isalpha() else None
    if not _WORDS.fullmatch(plain):
        return None
    found = _WORD.findall(plain)
    lowered = plain.lower()
    spoken = len(found) > 1 or (found and len(found[0]) > 3) or lowered in _SHORT_WORDS
    if not (spoken or _TEXT.fullmatch(text.strip("() "))):
        return None
    return _NOT_LETTERS.sub(r"\1", _ARTICLE.sub("", lowered)) or _NOT_LETTERS.sub(r"\1", lowered)


def unwrapped(text: str) -> str:
    r"""The content of a text that is one `\text{}`; else the text."""
    match = _TEXT.fullmatch(text)
    return match[1].strip() if match else text


_BRACKET: Final = r"\\[{}]|[()\[\]{}]"
_DEPTH: Final = {"(": 1, "[": 1, "{": 1, "\\{": 1, ")": -1, "]": -1, "}": -1, "\\}": -1}
_LIST: Final = re.compile(
    rf"{_BRACKET}|;|, ?\\text\{{ *(?:and|or) *\}}|\\text\{{ *,? *(?:and|or) *\}}"
    r"|,? ?(?<![a-zA-Z\\])(?:and|or)(?![a-z])|,"
)
_EQUATION: Final = re.compile(rf"{_BRACKET}|(?<![<>!:=])=(?![=])|\\approx(?![a-z])")


def depth(text: str) -> int:
    """How deep the brackets of a text are nested, whether they match or not."""
    deepest = now = 0
    for match in re.finditer(_BRACKET, text):
        now = max(0, now + _DEPTH[match[0]])
        deepest = max(deepest, now)
    return deepest


def _outside(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """What the pattern finds that no bracket encloses, up to a bracket that closes what was not opened."""
    level = 0
    for match in pattern.finditer(text):
        step = _DEPTH.get(match[0])
        if step is None:
            if level == 0:
                yield match
        elif (level := level + step) < 0:
            return


def _cut(text: str, at: Iterable[re.Match[str]]) -> list[str]:
    parts, start = [], 0
    for match in at:
        parts.append(text[start : match.start()].strip())
        start = match.end()
    return [*parts, text[start:].strip()]


def enclosed(text: str) -> tuple[str, str, str] | None:
    """(opening, content, closing) of a text that stands in one pair of brackets, of whatever kind each is."""
    level, opening = 0, ""
    for match in re.finditer(_BRACKET, text):
        step = _DEPTH[match[0]]
        if not opening and (match.start() or step < 0):
            return None
        opening = opening or match[0]
        level += step
        if level == 0:
            if match.end() != len(text):
                return None
            return opening[-1], text[len(opening) : match.start()].strip(), match[0][-1]
    return None


def split(text: str) -> list[str]:
    """The parts of a list: between semicolons if there are any, else between commas and joining words."""
    found = list(_outside(_LIST, text))
    semicolons = [match for match in found if match[0] == ";"]
    spaced = [match for match in found if match[0] != "," or text[match.end() :].startswith(" ")]
    for separators in (semicolons, spaced, found):
        parts = _cut(text, separators)
        if len(parts) > 1 and (separators is not spaced or not any("," in part for part in parts)):
            return [part for part in parts if part]
    return [text]


def named(text: str) -> tuple[str, str]:
    """(what is on the left, what is on the right) of an equation; of a chain of them, the ends.

    The left is empty for a text that is none. What follows an `\\approx` is left out, unless what stands
    before it is nothing but a name.

    >>> named("x = 5 + 6 = 11")
    ('x', '11')
    """
    signs = list(_outside(_EQUATION, text))
    parts = _cut(text, signs)
    if len(parts) < 2:
        return "", text
    exact = [part for part, sign in zip(parts[1:], signs, strict=True) if sign[0] == "="]
    if len(parts) == 2 and exact and _LETTER.fullmatch(parts[1]) and not is_name(parts[0]):
        return parts[1], parts[0]  # 4 = x
    if exact:
        return parts[0], exact[-1]
    return (parts[0], parts[1]) if not parts[0] or is_name(parts[0]) else ("", parts[0])


_LETTER: Final = re.compile(r"[a-zA-Z]")


def chain(text: str) -> list[str]:
    """The sides of an equation, or of a chain of them."""
    return _cut(text, (sign for sign in _outside(_EQUATION, text) if sign[0] == "="))


_NAME: Final = re.compile(
    r"[a-zA-Z\\|(](?:_(?:\w|\{[^{}]*\})|\([^()]*\)|\{[a-zA-Z]*\}|\[[a-zA-Z]\]|[a-zA-Z\\|:, )]|\^\{-1\}|')*",
    re.ASCII,
)


def is_name(text: str) -> bool:
    """Whether the left side of an equation only names what is on the right: `x`, `a_{37}`, `f(2)`, `|AB|`."""
    plain = bool(_NAME.fullmatch(text)) and not _FUNCTION.search(text)
    return plain or bool(_DERIVATIVE.fullmatch(text))


_FUNCTION: Final = re.compile(
    r"\\(?:sqrt|(?:arc)?(?:sin|cos|tan)|cot|sec|csc|log|ln|lg|exp|cdot|times|not)(?![a-z])"
)
_DERIVATIVE: Final = re.compile(r"d[a-zA-Z] ?/ ?d[a-zA-Z]")


def named_right(text: str) -> bool:
    """Whether in a right answer's equation, or chain of them, a name stands for the right side."""
    sides = chain(text)
    return is_name(sides[0]) or (len(sides) > 2 and is_name(sides[-2])) or is_name(named(text)[0])


_OF_NAMES: Final = re.compile(r" ?\+ ?| ?(?:\*|\\cdot(?![a-z])) ?")


def is_named(text: str) -> bool:
    """Whether the left side of an answer's equation is a name, or a sum or product of different ones."""
    names = [each.strip() for each in _OF_NAMES.split(text)]
    return all(map(is_name, names)) and len(set(names)) == len(names)
