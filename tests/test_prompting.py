"""Prompts, and the one parser of completions."""

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.errors import UsageError
from r1pipe.prompting import (
    TAGS,
    Parsed,
    boxed_answer,
    marked_answer,
    opens_thinking,
    parse,
    render,
)

THOUGHT = "5 * 6 = 30 ; 30 + 4 = 34 yes"


class Chat:
    """As much of a tokenizer as the chat template needs."""

    def __init__(self, ending: str, opens: str = "") -> None:
        self.chat_template: str | None = "some"
        self.ending = ending
        self.opens = opens

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        assert options["tokenize"] is False and options["add_generation_prompt"] is True
        opens = self.opens if options["enable_thinking"] else ""
        return f"<|user|> {messages[0]['content']} {self.ending}{opens}"


def test_r1_zero_is_the_papers_template() -> None:
    """Table 1 of the DeepSeek-R1 paper, word for word, with the thinking opened."""
    assert render("r1-zero", "What is 6 times 7?") == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
        "The assistant first thinks about the reasoning process in the mind and then provides the user with "
        "the answer. The reasoning process and answer are enclosed within <think> </think> and <answer> "
        "</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here "
        "</answer>. User: What is 6 times 7? Assistant: <think>"
    )
    assert render("r1-zero", "nums 1 2 3 to 6").endswith("User: nums 1 2 3 to 6. Assistant: <think>")


def test_r1_zero_without_thinking() -> None:
    """A question that needs no thinking gets neither the instructions about it nor an opened tag."""
    prompt = render("r1-zero", "copy red", reasoning=False)
    assert prompt.endswith("User: copy red. Assistant:")
    assert not any(tag in prompt for tag in TAGS)


def test_braces_in_a_question_survive() -> None:
    """LaTeX is put into the template as it is."""
    assert r"User: \frac{1}{2} {question}. Assistant" in render("r1-zero", r"\frac{1}{2} {question}")


def test_plain() -> None:
    """The question alone."""
    assert render("plain", "2 + 2 =") == "2 + 2 ="


@pytest.mark.parametrize(
    ("tokenizer", "reasoning", "prompt"),
    [
        (Chat("<|assistant|>", opens=" <think>"), True, "<|user|> hi <|assistant|> <think>"),
        (Chat("<|assistant|>", opens=" <think>"), False, "<|user|> hi <|assistant|>"),
        (Chat("<|assistant|>\n"), True, "<|user|> hi <|assistant|>\n<think>\n"),
        (Chat("<|assistant|>"), True, "<|user|> hi <|assistant|>\n<think>\n"),
        (Chat("<|assistant|>\n"), False, "<|user|> hi <|assistant|>\n"),
    ],
)
def test_chat_opens_thinking_once(tokenizer: Any, reasoning: bool, prompt: str) -> None:
    """The tag is opened exactly when thinking is wanted, by the tokenizer's template or after it."""
    assert render("chat", "hi", reasoning=reasoning, tokenizer=tokenizer) == prompt
    assert opens_thinking(prompt) is reasoning


def test_chat_needs_a_template() -> None:
    """Without a chat template the message names the template to use instead."""
    bare: Any = Chat("")
    bare.chat_template = None
    for tokenizer in (None, bare):
        with pytest.raises(UsageError, match="r1-zero"):
            render("chat", "hi", tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("text", "opened", "parsed"),
    [
        (f"{THOUGHT} </think> <answer> 5 </answer>", True, Parsed(THOUGHT, "", "5", True, True)),
        (f"<think> {THOUGHT} </think><answer>5</answer>", False, Parsed(THOUGHT, "", "5", True, True)),
        ("a </think> so b <answer> 5 </answer>\n", True, Parsed("a", "so b", "5", True, True)),
        # Not the whole form, but an answer all the same
        ("a </think> <answer> 5 </answer> b", True, Parsed("a", "", "5", True, False)),
        ("a </think> <answer> 4 </answer> <answer> 5 </answer>", True, Parsed("a", "", "5", True, False)),
        ("</think> <answer> 5 </answer>", True, Parsed("", "", "5", True, False)),
        ("<think> a </think> <answer> 5 </answer>", True, Parsed("<think> a", "", "5", True, False)),
        ("hm <think> a </think> <answer> 5 </answer>", False, Parsed("a", "", "5", True, False)),
        ("a </think> b </think> <answer> 5 </answer>", True, Parsed("a </think> b", "", "5", True, False)),
        ("a </think> It is \\boxed{5}.", True, Parsed("a", "It is \\boxed{5}.", "5", True, False)),
        ("a </think> It is\n#### 5\n", True, Parsed("a", "It is\n#### 5", "5", True, False)),
        ("a </think> <answer> \\boxed{5} </answer>", True, Parsed("a", "", "5", True, True)),
        # No answer
        ("a", True, Parsed("a", "", None, False, False)),
        ("a <answer> 5 </answer>", True, Parsed("a <answer> 5 </answer>", "", None, False, False)),
        ("a </think> five", True, Parsed("a", "five", None, True, False)),
        ("a </think> <answer> 5", True, Parsed("a", "", None, True, False)),
        ("a </think> <answer> </answer>", True, Parsed("a", "", None, True, False)),
        ("<think> a \\boxed{5}", False, Parsed("a \\boxed{5}", "", None, False, False)),
        # No thinking
        ("red blue", False, Parsed(None, "", "red blue", True, True)),
        ("It is \\boxed{5}.", False, Parsed(None, "", "5", True, True)),
        ("<answer> 5 </answer>", False, Parsed(None, "", "5", True, False)),
        ("a </think> <answer> 5 </answer>", False, Parsed(None, "", "5", True, False)),
        ("</answer>", False, Parsed(None, "", None, True, False)),
        ("", False, Parsed(None, "", None, True, False)),
        ("", True, Parsed("", "", None, False, False)),
    ],
)
def test_parse(text: str, opened: bool, parsed: Parsed) -> None:
    """Every shape a completion may take, and what is made of it."""
    assert parse(text, opened) == parsed


def test_fits() -> None:
    """A form is right for the question that asks for it and wrong for the other kind."""
    thought, direct = parse("a </think> <answer> 5 </answer>", True), parse("5", False)
    assert (thought.fits(True), thought.fits(False)) == (True, False)
    assert (direct.fits(True), direct.fits(False)) == (False, True)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} rather than that \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\boxed{", None),
        (r"} \boxed{3}", "3"),
        (r"\boxed{}", ""),
        ("{5}", None),
    ],
)
def test_last_boxed(text: str, content: str | None) -> None:
    """The last box whose braces balance counts; escaped braces are text."""
    assert boxed_answer(text) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and \boxed{2}.", "1, 2"),
        (r"\boxed{1}\boxed{2}", "1, 2"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        (r"$a = \boxed{1} \) and \( b = \boxed{2}$", "1, 2"),
        (r"\boxed{71} or \boxed{72}", "71, 72"),
        (r"\boxed{5}, so the answer is \boxed{5}", "5"),
        (r"\boxed{5} and \boxed{5}", "5"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{1}, so \boxed{2}", "2"),
        (r"\boxed{x} = \boxed{2}", "2"),
        ("\\boxed{1},\n\n\\boxed{2}", "2"),
        (r"\boxed{1} no no no no no \boxed{2}", "2"),
        (r"\boxed{1} " + "and then it went on " * 5 + r"\boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\fbox{3}", "3"),
        (r"\\boxed{004}", "004"),
        ("none", None),
        (r"-\boxed{5}", ""),
        (r"\boxed{5}^2", ""),
        (r"$x \ne \boxed{5}$", ""),
        (r"2\cdot\boxed{5}", ""),
        (r"- \boxed{5}", "5"),
        (r"x = **\boxed{5}**", "5"),
        (r"\boxed{90}^\circ", "90"),
        (r"\boxed{90}^{\circ}", "90"),
    ],
)
def test_boxes_that_are_one_answer(text: str, content: str | None) -> None:
    """Those that a word or next to nothing joins, unless the first is taken back; so guesses are a list."""
    assert boxed_answer(text) == content


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{255} Final Answer: The final answer is $10,455$. I hope it is correct.", "$10,455$"),
        (r"The final answer is \boxed{7}. I hope it is correct.", "7"),
        ("The answer is 3.5. I hope it is correct.", "3.5"),
        ("The answer is 5. Then we are done.", "5"),
        ("The answer is: x = 2", "x = 2"),
        ("**Answer:** 12", "12"),
        ("A: 12", "12"),
        ("A: 12\nThe answer is 13", "13"),
        ("The answer is ", None),
        ("no idea", None),
    ],
)
def test_marked_answer(text: str, answer: str | None) -> None:
    """What is said ends with its sentence."""
    assert marked_answer(text) == answer


PIECES = st.sampled_from([*TAGS, " ", "5", "no", "\\boxed{", "}", "####", "\n", "\\"])


@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)), st.booleans())
def test_any_text_parses(text: str, opened: bool) -> None:
    """Parsing never raises; an answer is never empty, and never comes out of thinking that did not end."""
    parsed = parse(text, opened)
    assert parsed.answer is None or parsed.answer.strip()
    assert parsed.closed or parsed.answer is None
    assert not parsed.well_formed or parsed.answer


PART = r"(?:(?!<\s*/?\s*(?:think|answer)\b[^<>]*>).)*"
"""Text without tags."""
FORM = re.compile(
    rf"\s*<think>(?P<thinking>{PART})</think>{PART}<answer>(?P<answer>{PART})</answer>\s*",
    re.DOTALL | re.IGNORECASE,
)
TAG_LIKE = ["<THINK>", "</Think>", "<answer >", "< /answer>", "<think a='b'>"]
SOUP = st.lists(st.sampled_from([*TAGS, *TAGS, " ", "5", "so", "<", "\\boxed{}", *TAG_LIKE]), max_size=9)


def nearly(parts: list[str]) -> str:
    """Pieces put where a completion in the form could have them."""
    before, thinking, summary, answer, after = (parts + [""] * 5)[:5]
    return f"{before}<think>{thinking}</think>{summary}<answer>{answer}</answer>{after}"


@given(st.one_of(SOUP.map("".join), SOUP.map(nearly)), st.booleans())
def test_the_form_is_that_of_the_whole_text(text: str, opened: bool) -> None:
    """A thought text is well formed exactly when one anchored pattern matches all of it, what the prompt
    opened included: one thinking part and one answer part, neither empty, nothing before, nothing after, no
    tag in another case or with spaces in it."""
    parsed = parse(text, opened)
    if parsed.thinking is None:
        return
    whole = f"<think>{text}" if opened else text
    found = FORM.fullmatch(whole)
    exact = found is not None and all(whole.count(tag) == 1 for tag in TAGS)
    filled = exact and found is not None and found["thinking"].strip() and parsed.answer is not None
    assert parsed.well_formed == bool(filled)


@pytest.mark.parametrize(
    "text",
    [
        "a </think> <answer> 5 </answer> <ANSWER> 6 </ANSWER>",
        "a </THINK> </think> <answer> 5 </answer>",
        "a < /think > </think> <answer> 5 </answer>",
        "a </think> so <Answer> <answer> 5 </answer>",
        "a </think> <answer> \\boxed{} </answer>",
        "<answer> 5 </answer> a </think>",
        "a <think> b </think> c </think> <answer> 5 </answer>",
        "a </think> <answer> <answer> 5 </answer> </answer>",
        "a </think> <answer> 5 </answer> a </think> <answer> 5 </answer>",
    ],
)
def test_what_only_looks_like_the_form(text: str) -> None:
    """Two thinking parts, two answers, an answer before the thinking, nested or misspelt tags, an empty
    box."""
    assert not parse(text, True).well_formed
    assert not parse(f"<think> {text}", False).well_formed


@given(
    st.text(alphabet="abc 123+=;\n", min_size=1).filter(str.strip),
    st.text(alphabet="abc 123\n"),
    st.text(alphabet="123+ ()", min_size=1).filter(str.strip),
)
def test_well_formed_round_trip(thinking: str, summary: str, answer: str) -> None:
    """What is written in the form comes apart into the same parts."""
    text = f"{thinking}</think>{summary}<answer>{answer}</answer>"
    assert parse(text, True) == Parsed(thinking.strip(), summary.strip(), answer.strip(), True, True)
    assert parse(f"<think>{text}", False) == parse(text, True)


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "</think>", "<think ", "<   ", "<answer>", "</answer>", "{", "#### "]
)
def test_long_text_parses_quickly(piece: str) -> None:
    """The cost grows with the length and not with its square: 100,000 tags take well under a second."""
    started = time.process_time()
    parse(piece * 100_000, True)
    parse("</think>" + piece * 100_000, True)
    assert time.process_time() - started < 2.0
