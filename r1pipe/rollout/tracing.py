"""Rows of training data: a model's, the tasks' own answers, the solver's."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from r1pipe.curate.filters import Keep
from r1pipe.curate.rewrite import Rewrite, make_readable
from r1pipe.curate.traces import Drawn, Source, TraceRow, trace_row
from r1pipe.errors import UsageError
from r1pipe.measure.language import Language
from r1pipe.measure.samples import SampleRow, target_of
from r1pipe.prompting import OPEN_THINK, Template, opens_thinking
from r1pipe.rollout.answers import JournalRow
from r1pipe.rollout.asking import Question, ask
from r1pipe.rollout.batching import seed_of
from r1pipe.rollout.engine import Sampling
from r1pipe.rollout.writers import tokens_of
from r1pipe.tasks.countdown import Countdown
from r1pipe.train.determinism import derive_seed
from r1pipe.world.demonstrations import demonstrations

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TraceMaker:
    """Makes the rows of one sampling."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        model: tuple[str, str] | None,
        *,
        seed: int,
        sampling: Sampling,
        keep: Keep,
        rewrite: Rewrite | None = None,
    ) -> None:
        """`model` is the name and the fingerprint of the model that answers (`TeacherSpec.asked` of a
        teacher), None where the tasks do; `seed` is the run's."""
        self._tokenizer = tokenizer
        self._model = model
        self._seed = seed
        self._sampling = sampling
        self._keep = keep
        self._rewrite = rewrite

    def of(self, question: Question, row: JournalRow) -> TraceRow:
        """The row of a completion, made readable if it is right and the recipe asks for it."""
        if self._model is None:
            return _trace(question, row, "gold", self._keep.language)
        drawn = self._drawn(*self._model, question, row)
        text = self._readable(row)
        if text is None:
            return _trace(question, row, "model", self._keep.language, drawn)
        again = question.judged(row["sample"], text, tokens=tokens_of(text, self._tokenizer))
        return _trace(question, again, "rewritten", self._keep.language, drawn, row["completion"])

    def _drawn(self, model: str, fingerprint: str, question: Question, row: JournalRow) -> Drawn:
        return Drawn(
            model=model,
            model_fingerprint=fingerprint,
            engine=row.get("engine"),
            engine_version=row.get("engine_version"),
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            top_k=self._sampling.top_k,
            max_new_tokens=self._sampling.max_new_tokens,
            seed=seed_of(self._seed, question, row["sample"]),
        )

    def _readable(self, row: SampleRow) -> str | None:
        """What a right answer is rewritten to, or None where it stays as it is."""
        if self._rewrite is None or row["verdict"] != "pass":
            return None
        text = make_readable(
            row["completion"], opened=row["opened"], target=target_of(row), how=self._rewrite
        )
        return None if text == row["completion"] else text

    def solved(
        self, wanted: int, template: Template, room: int, taken: set[str], temperature: float
    ) -> list[TraceRow]:
        """So many of the solver's rows, about problems that are not `taken`.

        `room` is the most tokens of a prompt, `temperature` how blindly the solver guesses. Raises
        `UsageError` where it runs out.
        """
        rows = list(islice(self._solved(template, room, taken, temperature), wanted))
        if len(rows) < wanted:
            raise UsageError(
                f"The solver could write {len(rows)} rows that `keep` allows, {wanted} were asked for. "
                "Set `solver` lower, or loosen `keep`."
            )
        return rows

    def _solved(
        self, template: Template, room: int, taken: set[str], temperature: float
    ) -> Iterator[TraceRow]:
        filters = self._keep.unscored.filters()  # nobody asks what is thought of the solver's
        how = self._rewrite or Rewrite()
        language = self._keep.language or how.language
        seed = derive_seed(self._seed, "solver")
        for item, text in demonstrations(
            seed, temperature=temperature, language=language, summary=how.summary
        ):
            if item.id in taken:
                continue
            for question in ask([(_COUNTDOWN, item)], template, self._tokenizer, room).questions:
                whole = text if opens_thinking(question.prompt) else f"{OPEN_THINK} {text}"
                row = question.judged(0, whole, tokens=tokens_of(whole, self._tokenizer))
                if all(filter_(row) is None for filter_ in filters):
                    yield _trace(question, row, "solver", language)


_COUNTDOWN: Final = Countdown()


def _trace(
    question: Question,
    row: SampleRow,
    source: Source,
    language: Language | None,
    drawn: Drawn | None = None,
    original: str | None = None,
) -> TraceRow:
    return trace_row(
        row,
        prompt=question.prompt,
        prompt_tokens=len(question.token_ids),
        source=source,
        verifier=str(question.item.meta.get("judge", question.task.name)),
        difficulty=question.item.difficulty,
        language=language,
        original=original,
        drawn=drawn,
    )
