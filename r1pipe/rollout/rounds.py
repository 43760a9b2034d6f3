"""How often each prompt is asked: some completions first, more of those prompts that were hard.

Which (prompt, sample) are made is a function of the verdicts alone. A prompt's next completions depend on its
own verdicts and on no other's, and where a budget ends the work, it does so in the order of the prompts. So
kills, machines and the order in which completions end have no part in it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from r1pipe.rollout.asking import Question

Pair = tuple[Question, int]
"""A question and the number of the sample, from 0, among all of its problem."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How many completions a prompt gets."""

    samples: int
    """In the first round, and at most in each further one."""
    most: int | None = None
    """In all rounds together; without it the first is the only one."""
    enough: int = 1
    """Accepted completions with which no further round asks the prompt."""

    def of(
        self, questions: Sequence[Question], accepted: Callable[[str], int], budget: int | None = None
    ) -> Iterator[list[Pair]]:
        """The pairs of one round after the other.

        A problem that stands several times in `questions` is asked that many times as often, and its samples
        go on counting. Before a further round is asked for, all of the one before must have been judged.

        Args:
            questions: in the order in which a budget is spent.
            accepted: how many different completions of a problem, by its id, may be kept so far.
            budget: completions in all; what is beyond it is not asked.
        """
        times = Counter(question.item.id for question in questions)
        numbers: Counter[str] = Counter()
        asked = [0] * len(questions)
        left = len(questions) * max(self.samples, self.most or 0) if budget is None else budget
        while True:
            pairs: list[Pair] = []
            for place, question in enumerate(questions):
                problem = question.item.id
                if asked[place] and accepted(problem) >= self.enough * times[problem]:
                    continue
                count = self._count(asked[place])
                begin = numbers[problem]
                pairs += [(question, begin + i) for i in range(count)]
                asked[place] += count
                numbers[problem] += count
            pairs = pairs[:left]
            if not pairs:
                return
            left -= len(pairs)
            yield pairs

    def _count(self, asked: int) -> int:
        """How many more of a prompt that was asked so often and needs more."""
        if asked == 0:
            return self.samples
        return 0 if self.most is None else min(self.samples, self.most - asked)
