"""How a question becomes a prompt, and the one parser of what comes back."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from r1pipe.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["r1-zero", "chat", "plain"]
TEMPLATES: Final[tuple[Template, ...]] = get_args(Template)
"""`r1-zero`: the paper's own, for a base model. `chat`: the tokenizer's. `plain`: the question as it is."""

OPEN_THINK: Final = "<think>"
CLOSE_THINK: Final = "</think>"
OPEN_ANSWER: Final = "<answer>"
CLOSE_ANSWER: Final = "</answer>"
TAGS: Final = (OPEN_THINK, CLOSE_THINK, OPEN_ANSWER, CLOSE_ANSWER)

_CONVERSATION: Final = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it."
)
_R1_ZERO: Final = (
    f"{_CONVERSATION} The assistant first thinks about the reasoning process in the mind and then provides "
    "the user with the answer. The reasoning process and answer are enclosed within <think> </think> and "
    "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User: {question}. Assistant: <think>"
)
"""DeepSeek-R1 paper, Table 1, with the thinking opened for the model."""
_R1_ZERO_DIRECT: Final = _CONVERSATION + " User: {question}. Assistant:"


def render(
    template: Template,
    question: str,
    *,
    reasoning: bool = True,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> str:
    """The prompt for `question`, as text.

    With `reasoning`, the templates `r1-zero` and `chat` end in an opened `<think>`; without it they ask for
    an answer at once. `chat` needs the tokenizer, whose chat template is called with
    `enable_thinking=reasoning`.

    Raises:
        UsageError: `chat` without a tokenizer that has a chat template, or an unknown template.
    """
    if template == "plain":
        return question
    if template == "r1-zero":
        text = _R1_ZERO if reasoning else _R1_ZERO_DIRECT
        # The paper's full stop after the question would double one that is there.
        return text.replace("{question}.", question if question.endswith((".", "?", "!")) else f"{question}.")
    if template == "chat":
        return _render_chat(question, reasoning, tokenizer)
    raise UsageError(f"Unknown template {template!r}; there are {', '.join(TEMPLATES)}.")


def _render_chat(question: str, reasoning: bool, tokenizer: "PreTrainedTokenizerBase | None") -> str:
    if tokenizer is None or not tokenizer.chat_template:
        raise UsageError(
            "The template 'chat' needs a tokenizer with a chat template, and this one has none; "
            "set template: r1-zero, which suits a base model."
        )
    prompt = str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=reasoning,
        )
    )
    if reasoning and not opens_thinking(prompt):
        # As the templates of R1's own family end; a line break is also what a word-level tokenizer splits at.
        prompt += f"{'' if prompt[-1:].isspace() else chr(10)}{OPEN_THINK}\n"
    return prompt


def opens_thinking(prompt: str) -> bool:
    """Whether a completion of `prompt` starts inside the thinking."""
    return prompt.rstrip().endswith(OPEN_THINK)


@dataclass(frozen=True, slots=True)
class Parsed:
    """The parts of a completion."""

    thinking: str | None
    """What stands before the last `</think>`, or all when it never closes; None where no thinking began."""
    summary: str
    """What stands between the thinking and the answer."""
    answer: str | None
    """None when there is none to judge: the thinking was not closed, or nothing marks an answer after it."""
    closed: bool
    """Whether the thinking ended; true where none began."""
    well_formed: bool
    """Whether the whole text is `<think> … </think> [summary] <answer> … </answer>`, each tag once and only
    the summary empty; or, where no thinking began, a text that is not empty and has no tags at all. What
    reads like a tag, such as `</Think>`, is one too many."""
    tail: str = field(default="", compare=False)
    """All that follows the thinking, as it is; empty where that was not closed."""

    def fits(self, reasoning: bool) -> bool:
        """Whether it is well formed in the way its question asks for: with thinking, or without."""
        return self.well_formed and (self.thinking is not None) == reasoning

    def shown(self, reasoning: bool) -> str:
        """What a reader sees: what follows the thinking, without tags.

        Nothing where a thinking that was asked for is missing or open.
        """
        if not self.closed or (reasoning and self.thinking is None):
            return ""
        text = self.tail.partition(OPEN_THINK)[0]  # what thinks on after the answer is thinking too
        for tag in TAGS:
            text = text.replace(tag, " ")
        return re.sub(r"[ \t]+", " ", text).strip()


def parse(text: str, opened: bool) -> Parsed:
    """Take a completion apart; `opened` says whether its prompt ended in `<think>`.

    The answer is what the last `<answer>` pair after the thinking holds, else the last balanced `\\boxed{}`,
    else what follows the last `####`, else what the last "the answer is" says; a completion that neither
    thinks nor marks an answer is the answer.
    Unclosed thinking has no answer, whatever it holds. Never raises.

    >>> parse("5 * 6 = 30 yes </think> so 30 <answer> 5 * 6 </answer>", opened=True).answer
    '5 * 6'
    """
    thinking, closed, tail = _split_thinking(text, opened)
    if thinking is None:
        bare = not any(tag in text for tag in TAGS)
        answer = marked_answer(tail) or (text.strip() if bare else None)
        well_formed = bool(text.strip()) and not _LIKE_A_TAG.search(text)
        return Parsed(None, "", answer or None, closed=True, well_formed=well_formed, tail=tail)
    if not closed:
        return Parsed(thinking, "", None, closed=False, well_formed=False)
    summary, answer = tail.partition(OPEN_ANSWER)[0].strip(), marked_answer(tail)
    whole = OPEN_THINK + text if opened else text
    return Parsed(thinking, summary, answer, True, answer is not None and _well_formed(whole), tail)


def _split_thinking(text: str, opened: bool) -> tuple[str | None, bool, str]:
    """(thinking or None, whether it closed, what comes after it)."""
    if not opened:
        _, tag, after = text.partition(OPEN_THINK)
        if not tag:
            # A `</think>` that nothing opened closes nothing, but an answer is looked for after it.
            return None, True, text.rpartition(CLOSE_THINK)[2]
        text = after
    thinking, tag, tail = text.rpartition(CLOSE_THINK)
    return (thinking.strip(), True, tail) if tag else (text.strip(), False, "")


_LIKE_A_TAG: Final = re.compile(r"<\s{0,9}/?\s{0,9}(?:think|answer)\b[^<>]*>", re.IGNORECASE)
"""A tag, and what a reader would take for one: `</Think>`, `< answer >`. Neither may stand in a part."""


def _well_formed(whole: str) -> bool:
    if any(whole.count(tag) != 1 for tag in TAGS) or len(_LIKE_A_TAG.findall(whole)) != len(TAGS):
        return False
    parts, rest = [], whole
    for tag in TAGS:
        part, found, rest = rest.partition(tag)
        if not found:
            return False
        parts.append(part.strip())
    before, thinking, _, answer = parts
    return not before and bool(thinking) and bool(answer) and not rest.strip()


def marked_answer(text: str) -> str | None:
    """The last answer that `text` marks as such, or None; `text` is what comes after the thinking."""
    before, tag, _ = text.rpartition(CLOSE_ANSWER)
    if tag and OPEN_ANSWER in before:
        return _unboxed(before.rpartition(OPEN_ANSWER)[2].strip()) or None
    if OPEN_ANSWER in text:
        return None
    last_words = _LAST_WORDS.findall(text) if "I hope" in text else []
    boxed = boxed_answer(last_words[-1] if last_words else text)
    if boxed is not None:
        return boxed or None
    if last_words:
        return last_words[-1].strip() or None
    _, mark, after = text.rpartition("####")
    if mark:
        return after.strip().partition("\n")[0].strip() or None
    return _said(text)


_SAID: Final = re.compile(
    r"\banswer(?:[ \t]+is[ \t:]|[ \t*]*:)|^[ \t]*a[ \t]*:", re.IGNORECASE | re.MULTILINE
)
_LAST_WORDS: Final = re.compile(
    r"\bfinal answer is:?\s([^\n]{1,1000}?)[.,]?\s+I hope it is correct", re.IGNORECASE
)
"""What a well-known prompt asks an answer to end in; it outranks a box in the solution before it."""
_SENTENCE_END: Final = re.compile(r"(?<![.\s])\.(?=\s+[A-Z\\(]|\s*$)|[.,]?\s+I hope\b")


def _said(text: str) -> str | None:
    """What the last "the answer is" or a line's "Answer:" says, up to the end of its sentence."""
    last_line = text[text.rfind("\n") + 1 :]
    if not (marks := list(_SAID.finditer(last_line))):
        last_line = text
        if not (marks := list(_SAID.finditer(text))):
            return None
    line = last_line[marks[-1].end() :].partition("\n")[0]
    return _SENTENCE_END.split(line, maxsplit=1)[0].strip(" \t*") or None


def _unboxed(answer: str) -> str:
    boxed = boxed_answer(answer)
    return answer if boxed is None else boxed


_BRACES: Final = re.compile(r"\\{1,3}(?:boxed|fbox) ?\{|\\.|[{}]", re.DOTALL)


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """(start, start of the content, end of the content) of every box whose braces balance, in the order in
    which they open. One pass over the text."""
    openings: list[tuple[int, int] | None] = []  # None where a brace boxes nothing
    found = []
    for match in _BRACES.finditer(text):
        token = match[0]
        if token.endswith("{") and token != "\\{":
            openings.append((match.start(), match.end()) if token != "{" else None)
        elif token == "}" and openings:
            opening = openings.pop()
            if opening is not None:
                found.append((*opening, match.start()))
    return sorted(found)


_NEAR: Final = 10
"""Characters between two boxes that are one answer whatever stands there."""
_JOINED: Final = 70
"""Characters between two boxes that are one answer if a word or a comma there joins them."""
_MOST_BOXES: Final = 100
_JOINS: Final = re.compile(r"\b(?:and|or)\b|[,;]")
_PARTS: Final = re.compile(
    r"\n\s*\n|\b(?:not?|rather|wait|instead|actually|so|thus|hence|therefore)\b", re.IGNORECASE
)


_TOUCHES: Final = re.compile(r"(?:[-+^\u2212]|\\(?:cdot|times|div|neq?|not|pm|frac|sqrt) *)$")
_TOUCHED: Final = re.compile(r"\^(?! ?\{? ?\\(?:circ|degree))")
"""A sign, factor or power that stands directly at a box; degrees only dress what is in it."""


def boxed_answer(text: str) -> str | None:
    """What the last `\\boxed{}` holds, together with those before it that are one answer with it, or None.

    Boxes are one answer when next to nothing stands between them, or a little with an `and`, `or`, comma or
    semicolon in it; not when it takes the first back or draws a conclusion. So two guesses are two answers.

    A box that is a part of a formula, as in `-\\boxed{5}` and `\\boxed{5}^2`, holds no answer: it is empty.

    >>> boxed_answer(r"The roots are \\boxed{1} and \\boxed{2}.")
    '1, 2'
    """
    boxes = _boxes(text) if "box" in text else []
    if not boxes:
        return None
    first, begins, ends = boxes[-1]
    if _TOUCHES.search(text[:first]) or _TOUCHED.match(text[ends + 1 :]):
        return ""
    contents = [text[begins:ends].strip()]
    for start, begins, ends in reversed(boxes[-_MOST_BOXES:-1]):
        between = text[ends + 1 : first]
        joined = len(between) <= _JOINED and _JOINS.search(between)
        near = joined or (len(between) < _NEAR and "=" not in between)
        if ends > first or not near or _PARTS.search(between):
            break
        content = text[begins:ends].strip()
        if content not in contents:
            contents.append(content)
        first = start
    return ", ".join(reversed(contents))
