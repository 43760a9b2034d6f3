"""What a preference model thinks of sampled answers, asked about those alone that may be kept.

DeepSeek-R1 paper, section 2.3.3: general data has no right answers, and good ones are chosen from several.
"""

import math
from collections.abc import Sequence

from r1pipe.curate.filters import Keep
from r1pipe.curate.traces import TraceRow
from r1pipe.errors import RunFailed
from r1pipe.measure.samples import parsed
from r1pipe.rewards.rules import Scorer, preferences


class Preferring:
    """Scores rows batch by batch. A batch's scores depend on its rows alone, so it may be made again."""

    def __init__(self, scorer: Scorer, keep: Keep) -> None:
        """`scorer` is the model; `keep` decides which rows are worth asking about."""
        self._scorer = scorer
        self._filters = keep.unscored.filters()

    def scored(self, rows: Sequence[TraceRow]) -> list[TraceRow]:
        """The rows in order, those with a score that no other filter rejects.

        The model sees the question and what follows the thinking. Raises `RunFailed` for a score that is no
        number.
        """
        places = [place for place, row in enumerate(rows) if all(each(row) is None for each in self._filters)]
        shown = [(rows[i]["question"], parsed(rows[i]).shown(rows[i]["reasoning"])) for i in places]
        found = list(rows)
        for place, score in zip(places, preferences(self._scorer, shown), strict=True):
            if not math.isfinite(score):
                raise RunFailed(
                    f"The preference model gave no number for completion {rows[place]['id']!r}: "
                    f"{rows[place]['completion'][:500]!r}. No score was made up for it; take another "
                    "`preference_model`."
                )
            found[place] = {**rows[place], "preference": score}
        return found
