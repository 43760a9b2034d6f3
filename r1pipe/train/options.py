"""A trainer's own options: checked against TRL's config class before anything starts."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

OWNED = {
    "output_dir": "r1pipe decides where a stage writes",
    "overwrite_output_dir": "r1pipe decides where a stage writes",
    "resume_from_checkpoint": "a stopped stage goes on by itself",
    "seed": "the recipe has one seed; set `seed` at its top",
    "data_seed": "the recipe has one seed; set `seed` at its top",
    "report_to": "nothing is reported to anybody; see metrics/<stage>.jsonl",
    "push_to_hub": "a stage publishes an artifact in the run's folder",
    "save_strategy": "set `save_every` on the stage",
    "save_only_model": "a stage must be able to go on",
    "load_best_model_at_end": "the last weights are published",
    "remove_unused_columns": "r1pipe prepares the columns",
}
"""TrainingArguments that are not a recipe's to set, and why."""


def problems(config_class: type, options: Mapping[str, Any], renamed: Mapping[str, str]) -> list[str]:
    """What is wrong with a stage's `trainer:` section, one sentence each.

    `renamed` maps an option of the trainer to the stage's own field that sets it.
    """
    known = {field.name for field in dataclasses.fields(config_class) if field.init}
    found = []
    for key in options:
        if key in renamed:
            found.append(f"trainer.{key}: set `{renamed[key]}` on the stage instead")
        elif key in OWNED:
            found.append(f"trainer.{key} cannot be set: {OWNED[key]}")
        elif key not in known:
            found.append(
                f"trainer.{key}: {config_class.__name__} has no such option{_hint(key, known, renamed)}"
            )
    return found


def _hint(key: str, known: set[str], renamed: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(key, [*known, *renamed.values()], n=1)
    if not near:
        return ""
    field = renamed.get(near[0], near[0] if near[0] in renamed.values() else None)
    return (
        f"; did you mean {near[0]!r}?" if field is None else f"; did you mean `{field}`, on the stage itself?"
    )
