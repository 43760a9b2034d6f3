"""What the solver shows."""

from itertools import islice

from r1pipe.measure.language import consistency
from r1pipe.measure.trace import measure
from r1pipe.prompting import parse
from r1pipe.tasks.countdown import Countdown, is_held_out
from r1pipe.verify.verdict import Completion
from r1pipe.world.demonstrations import MOST_ATTEMPTS, demonstrations


def test_demonstrations_are_right_readable_and_of_seen_problems() -> None:
    """Each passes, keeps to its language, tries nothing twice, is true in every step, and ends in a
    summary."""
    attempts = []
    for item, text in islice(demonstrations(0, temperature=30.0, language="zh", summary=True), 50):
        parts = parse(text, opened=True)
        assert Countdown().judge(item, Completion(text, True)).passed
        assert not is_held_out(item.gold["numbers"], item.gold["target"])
        assert consistency(f"{parts.thinking} {parts.summary}", "zh") == 1.0
        assert parts.summary == f"suoyi {parts.answer} = {item.gold['target']}"
        trace = measure(parts.thinking or "", item.gold["target"])
        assert (trace.steps, trace.verdicts) == (trace.valid_steps, trace.valid_verdicts)
        assert trace.regular and trace.repeated_attempts == 0
        attempts.append(trace.attempts or 0)
    assert max(attempts) <= MOST_ATTEMPTS
    assert 3 < sum(attempts) / 50 < 7  # nearly blind guesses: some searching is shown


def test_demonstrations_are_a_function_of_the_seed() -> None:
    """The same ones again; others under another seed; without a summary the answer follows the thinking."""

    def three(seed: int, summary: bool = True) -> list[str]:
        shown = demonstrations(seed, temperature=30.0, language="en", summary=summary)
        return [text for _, text in islice(shown, 3)]

    assert three(0) == three(0) != three(1)
    assert all("</think> <answer>" in text for text in three(0, summary=False))
