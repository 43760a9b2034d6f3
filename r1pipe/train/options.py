"""A trainer's own options: checked against TRL's config class before anything starts."""

import dataclasses
import difflib
import warnings
from collections.abc import Mapping
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from r1pipe.stage import Findings

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
    "save_total_limit": "two are kept, so that one is whole at any time",
    "remove_unused_columns": "r1pipe prepares the columns",
    "packing": "TRL's packing cuts what is too long; padding_free: true leaves out padding, and cuts nothing",
    "use_vllm": "rollouts come from r1pipe's own engine",
    "min_p": "r1pipe's engine has no such option",
    "repetition_penalty": "r1pipe's engine has no such option",
    "generation_kwargs": "set `temperature` on the stage, or trainer.top_p and trainer.top_k",
    "cache_implementation": "r1pipe's engine has a cache of its own; set `engine`",
    "use_transformers_continuous_batching": "r1pipe's engine drops finished rows; set `engine`",
    "use_transformers_paged": "r1pipe's engine drops finished rows; set `engine`",
    "transformers_continuous_batching_config": "r1pipe's engine drops finished rows; set `engine`",
    "vllm_importance_sampling_clip_min": "the ratio has no lower bound; `mismatch_bound` is the upper one",
}
"""TrainingArguments that are not a recipe's to set, and why."""


def check_trainer(
    config_class: type,
    options: Mapping[str, Any],
    renamed: Mapping[str, str],
    whole: Mapping[str, Any] | None = None,
) -> Findings:
    """What is wrong with a stage's `trainer:` section, and what this machine lacks for it.

    `renamed` maps an option of the trainer to the stage's own field that sets it. `whole` is all that the
    stage would give the config class; where the section is right by itself, the class is asked about that.
    """
    known = {field.name for field in dataclasses.fields(config_class) if field.init}
    wrong = []
    for key in options:
        if key in renamed:
            wrong.append(f"trainer.{key}: set `{renamed[key]}` on the stage instead")
        elif key in OWNED:
            wrong.append(f"trainer.{key} cannot be set: {OWNED[key]}")
        elif key in known and key.startswith("vllm_"):
            wrong.append(f"trainer.{key}: set `engine` on the stage instead, whose fields vLLM's options are")
        elif key not in known:
            wrong.append(
                f"trainer.{key}: {config_class.__name__} has no such option{_hint(key, known, renamed)}"
            )
    wrong = wrong or _wrong_types(config_class, options)
    return Findings(wrong) if wrong else _refused(config_class, whole or options)


def _wrong_types(config_class: type, options: Mapping[str, Any]) -> list[str]:
    hints = get_type_hints(config_class)
    found = []
    for key, value in options.items():
        try:
            TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            found.append(f"trainer.{key} is {value!r}: {error.errors()[0]['msg']}")
    return found


def _refused(config_class: type, options: Mapping[str, Any]) -> Findings:
    """What the config class itself says. It is built on this machine, and writes nothing."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    on_gpu = torch.cuda.is_available()
    machine = {"output_dir": "nowhere", "use_cpu": not on_gpu, "bf16": on_gpu, "report_to": "none"}
    try:
        with warnings.catch_warnings(action="ignore"):
            config_class(**({key: value for key, value in machine.items() if key in fields} | dict(options)))
    except (ValueError, TypeError, ImportError) as error:
        said = [f"trainer: {config_class.__name__} says: {' '.join(str(error).split())}"]
        return Findings(lacking=said) if isinstance(error, ImportError) else Findings(said)
    return Findings()


def _hint(key: str, known: set[str], renamed: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(key, [*(known - OWNED.keys()), *renamed.values()], n=1)
    if not near:
        return ""
    field = renamed.get(near[0], near[0] if near[0] in renamed.values() else None)
    return (
        f"; did you mean {near[0]!r}?" if field is None else f"; did you mean `{field}`, on the stage itself?"
    )
