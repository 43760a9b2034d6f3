"""The named rewards, and how they are asked."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.errors import RunFailed, UsageError
from r1pipe.prompting import parse
from r1pipe.rewards import REWARDS, RewardInput, each, give, make_rewards, total
from r1pipe.tasks.base import Item
from r1pipe.verify.verdict import Completion, Verdict, failed, passed, undecided

FORM = "</think> <answer> 5 </answer>"
BY_RULE = [name for name in REWARDS if name != "preference"]
FIRST = ("accuracy", "format", "language")


def _given(
    text: str,
    verdict: Verdict | None = None,
    *,
    reasoning: bool = True,
    opened: bool | None = None,
    truncated: bool = False,
    tokens: int = 0,
    item: str = "a",
) -> RewardInput:
    opened = reasoning if opened is None else opened
    completion = Completion(text, opened, truncated, tokens)
    asked = Item(item, "?", "5", reasoning)
    return RewardInput(asked, completion, parse(text, opened), verdict or passed())


def _rewards(given: RewardInput, *, language: str = "en", always: bool = False) -> dict[str, float | None]:
    rewards = make_rewards(FIRST, language=language, language_when="always" if always else "correct")
    return dict(give(rewards, [given])[0])


@pytest.mark.parametrize(
    ("text", "verdict", "rewards"),
    [
        (f"5 no 5 no 5 bu 5 yes {FORM}", passed(), (1, 1, 0.75)),
        (f"5 no 5 no 5 bu 5 yes {FORM}", failed("wrong"), (0, 1, 0)),
        (f"5 + 4 = 9 {FORM}", passed(), (1, 1, 0)),  # no words, so none in the language
        (f"5 yes {FORM} and more", passed(), (1, 0, 1)),
        (FORM, passed(), (1, 0, 0)),
        ("5 yes", failed("thinking not closed"), (0, 0, 0)),
    ],
)
def test_reasoning(text: str, verdict: Verdict, rewards: tuple[float, float, float]) -> None:
    """(accuracy, format, language) of a completion that was to think."""
    assert tuple(_rewards(_given(text, verdict)).values()) == rewards


def test_language_of_wrong_answers() -> None:
    """A recipe may reward the language of wrong answers too, and may ask for another language."""
    assert _rewards(_given(f"5 no bu {FORM}", failed("wrong")), always=True)["language"] == 0.5
    assert _rewards(_given(f"5 bu bu no {FORM}"), language="zh")["language"] == pytest.approx(2 / 3)
    assert _rewards(_given(f"alors on a la somme {FORM}"), language="fr")["language"] == 1


def test_direct_answers() -> None:
    """A question that needs no thinking wants text without tags, and has no language reward."""
    assert _rewards(_given("red blue", reasoning=False)) == {"accuracy": 1, "format": 1, "language": None}
    thought = _rewards(_given(f"<think> hm {FORM}", reasoning=False))
    assert thought == {"accuracy": 1, "format": 0, "language": None}


def test_truncated_has_no_form() -> None:
    """A text that was cut off did not end by itself, even where it looks whole."""
    assert _rewards(_given(f"5 yes {FORM}", failed("truncated"), truncated=True))["format"] == 0


@pytest.mark.parametrize(
    ("tokens", "reward"),
    [(0, 0), (12288, 0), (12289, -1 / 4096), (14336, -0.5), (16383, -4095 / 4096), (16384, -1), (20000, -1)],
)
def test_overlong(tokens: int, reward: float) -> None:
    """DAPO's equation 13 with a limit of 16,384 and a buffer of 4,096 tokens: exact at both ends."""
    rewards = make_rewards(["overlong"], max_new_tokens=16384, overlong_buffer=4096)
    assert give(rewards, [_given("5", tokens=tokens)]) == [{"overlong": reward}]


def test_overlong_buffer_by_itself() -> None:
    """A quarter of the limit, and one token where that is less."""
    (quarter,) = make_rewards(["overlong"], max_new_tokens=100).values()
    assert quarter([_given("", tokens=t) for t in (75, 80, 100)]) == [0, -0.2, -1]
    (least,) = make_rewards(["overlong"], max_new_tokens=2).values()
    assert least([_given("", tokens=t) for t in (1, 2)]) == [0, -1]


@pytest.mark.parametrize(
    ("text", "ngram", "reward"),
    [
        ("a b c d", 2, 0),
        ("a b a b", 2, -1 / 3),  # ab ba ab
        ("A b a B a b", 2, -3 / 5),
        ("no no no no no", 1, -4 / 5),
        ("a b c", 4, 0),
        ("a b c d", 4, 0),
        ("", 4, 0),
        ("wait wait </think> wait wait", 2, -1 / 4),  # the whole completion counts
        ("再想再想", 2, -1 / 3),  # by characters where no spaces are put
        ("再想 again 再想", 2, -1 / 4),
    ],
)
def test_repetition(text: str, ngram: int, reward: float) -> None:
    """Minus the share of runs of words that came before; nothing to compare is no repetition."""
    rewards = make_rewards(["repetition"], repetition_ngram=ngram)
    assert give(rewards, [_given(text)])[0]["repetition"] == pytest.approx(reward)


def test_preference() -> None:
    """The model is asked once, about the question and what follows the thinking without its tags; its logit
    goes through the logistic function."""
    asked: list[tuple[str, str]] = []

    def scorer(pairs: Sequence[tuple[str, str]]) -> list[float]:
        asked.extend(pairs)
        return [0.0, math.log(3), -1000.0][: len(pairs)]

    (reward,) = make_rewards(["preference"], scorer=scorer).values()
    batch = [
        _given("hm </think> so five <answer> 5 </answer>"),
        _given("hm </think>"),  # nothing to see
        _given("five, I think"),  # a thinking that does not end
        _given("five", opened=False),  # none, where one was asked for
        _given("hello ada", reasoning=False),
        _given("hm </think> five <think> or six"),  # more thinking, never shown
    ]
    assert reward(batch) == [0.5, 0, 0, 0, pytest.approx(0.75), 0.0]
    assert asked == [("?", "so five 5"), ("?", "hello ada"), ("?", "five")]


def test_undecided_is_never_a_reward() -> None:
    """An undecided verdict makes every reward None, so that the completion is left out and not punished; no
    reward is asked about it."""
    seen: list[str] = []

    def curious(batch: Sequence[RewardInput]) -> list[float | None]:
        seen.extend(given.item.id for given in batch)
        return [1.0] * len(batch)

    rewards = {**make_rewards(BY_RULE, language_when="always"), "curious": curious}
    batch = [
        _given(f"5 yes {FORM}", undecided("timed out"), item="a", truncated=True, tokens=512),
        _given(f"5 yes {FORM}", item="b"),
    ]
    left_out, counted = give(rewards, batch)
    assert left_out == dict.fromkeys(rewards)
    assert counted == {
        "accuracy": 1, "format": 1, "language": 1, "overlong": 0, "repetition": 0, "curious": 1
    }  # fmt: skip
    assert seen == ["b"]
    assert give(rewards, [batch[0]]) == [dict.fromkeys(rewards)] and seen == ["b"]
    assert give(rewards, []) == []


def _spoilt(rule: object) -> str:
    """What is said when a reward goes wrong on item `b` of three."""
    batch = [_given("one", item="a"), _given("two", item="b"), _given("three", item="c")]
    with pytest.raises(RunFailed) as raised:
        give({"mine": rule}, batch)  # type: ignore[dict-item]
    return str(raised.value)


def test_a_reward_that_raises_names_the_item() -> None:
    """The one completion of a batch that did it is found by asking each alone."""

    def fails(given: RewardInput) -> float:
        return 1 / (given.item.id != "b")

    said = _spoilt(each(fails))
    assert said.startswith("The reward 'mine' failed with ZeroDivisionError: division by zero. ")
    assert "The item was 'b', the completion 'two'. No reward was made up for it" in said


def test_a_reward_that_raises_on_the_batch_alone() -> None:
    """Where none alone does it, the batch's first is named."""

    def fails(batch: Sequence[RewardInput]) -> list[float | None]:
        return [[1.0][i] for i in range(len(batch))]

    assert "failed with IndexError" in _spoilt(fails) and "The item was 'a'" in _spoilt(fails)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_reward(value: float) -> None:
    """A reward that is not finite ends the run with the item; an advantage of it would spoil every weight."""
    said = _spoilt(each(lambda given: value if given.item.id == "b" else 1.0))
    assert said.startswith(f"The reward 'mine' gave {value}. The item was 'b'")


def test_a_value_for_each_completion() -> None:
    """A reward that answers for fewer completions than it was asked about ends the run too."""
    assert _spoilt(lambda batch: [1.0]).startswith("The reward 'mine' gave 1 values for 3 completions. ")
    assert "failed with TypeError" in _spoilt(lambda batch: None)
    (reward,) = make_rewards(["preference"], scorer=lambda pairs: [0.0] * 9).values()
    assert "failed with ValueError" in _spoilt(reward)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_a_preference_model_that_gives_no_number(logit: float) -> None:
    """An infinite logit is a broken model, not a perfect answer."""
    (reward,) = make_rewards(["preference"], scorer=lambda pairs: [logit for _ in pairs]).values()
    with pytest.raises(RunFailed, match="The reward 'preference' gave nan"):
        give({"preference": reward}, [_given("hm </think> five")])


def test_total() -> None:
    """The weighted sum of what was given; None when nothing was."""
    weights = {"accuracy": 1.0, "format": 0.1, "language": 0.2}
    assert total({"accuracy": 1, "format": 1, "language": 0.5}, weights) == pytest.approx(1.2)
    assert total({"accuracy": 1, "format": 0, "language": None}, weights) == 1.0
    assert total({"accuracy": None, "format": None, "language": None}, weights) is None


def test_unknown_names() -> None:
    """A misspelt reward is answered with the nearest one, an unknown language with those there are."""
    with pytest.raises(UsageError, match="did you mean 'accuracy'"):
        make_rewards(["acuracy"])
    with pytest.raises(UsageError, match=r"Unknown reward 'beauty'.*preference\.$"):
        make_rewards(["beauty"])
    with pytest.raises(UsageError, match=r"'preference' needs a preference model; set `preference_model`"):
        make_rewards(["preference"])
    with pytest.raises(UsageError, match="Unknown language 'tlh'; there are en, zh, es"):
        make_rewards(["accuracy"], language="tlh")


PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "5", "no", "再", "\n", "la"])
RANGES = {"overlong": (-1, 0), "repetition": (-1, 0)}


@given(
    st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([passed(), failed("wrong")]),
    st.integers(0, 600),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_ranges(
    text: str, reasoning: bool, opened: bool, verdict: Verdict, tokens: int, logit: float
) -> None:
    """Whatever was written, every reward is in its range: 0 to 1, or -1 to 0 for what only takes away."""
    rewards = make_rewards(REWARDS, language_when="always", scorer=lambda pairs: [logit for _ in pairs])
    given = _given(text, verdict, reasoning=reasoning, opened=opened, tokens=tokens)
    for name, value in give(rewards, [given])[0].items():
        low, high = RANGES.get(name, (0, 1))
        assert (value is None and name == "language") or low <= value <= high
