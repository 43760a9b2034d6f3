"""What a recipe's author probably meant."""

from r1pipe.hints import missing_key, unknown_key
from stages import VERBS

EVALUATE = VERBS["evaluate"]
NAME = ("stages", "scores")


def test_a_key_inside_a_mapping_is_looked_for_there() -> None:
    """The names a mapping's author gave are passed over: `sets.quick` has the keys of every set."""
    said = unknown_key(("sets", "quick"), "problms", EVALUATE, NAME)
    assert said == "unknown key 'stages.scores.sets.quick.problms'; did you mean 'problems'?"
    said = unknown_key(("sets", "quick", "task"), "splt", EVALUATE, NAME)
    assert said == "unknown key 'stages.scores.sets.quick.task.splt'; did you mean 'split'?"


def test_a_key_of_another_section_is_sent_there() -> None:
    """`problems` on the stage itself belongs in a set."""
    said = unknown_key((), "problems", EVALUATE, NAME)
    assert said == "unknown key 'stages.scores.problems'; 'problems' belongs in 'stages.scores.sets'"


def test_a_missing_key_inside_a_mapping_is_explained() -> None:
    """With the sentence under its field."""
    said = missing_key(("sets", "quick"), "task", EVALUATE, NAME)
    assert said.startswith("'stages.scores.sets.quick' needs 'task': What is asked.")
