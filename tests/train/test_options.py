"""Options under `trainer:` are checked before anything starts: by name, by type and by the config class."""

from dataclasses import dataclass

from r1pipe.stage import Findings
from r1pipe.train.options import check_trainer


@dataclass
class Arguments:
    """Stands for a config of TRL's."""

    learning_rate: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0
    rows: int = 4

    def __post_init__(self) -> None:
        if self.rows % 2:
            raise ValueError(f"rows is {self.rows}:\n  it must be even")


RENAMED = {"learning_rate": "learning_rate", "lr_scheduler_type": "scheduler"}


def test_known_options_pass() -> None:
    """What the config class has is the user's to set."""
    assert check_trainer(Arguments, {"max_grad_norm": 0.5}, RENAMED) == Findings()


def test_a_misspelt_option_names_the_nearest() -> None:
    """The nearest option of the trainer, or the stage's own field where that is meant."""
    assert check_trainer(Arguments, {"max_gradnorm": 1, "schedular": "x", "zzz": 1}, RENAMED).wrong == [
        "trainer.max_gradnorm: Arguments has no such option; did you mean 'max_grad_norm'?",
        "trainer.schedular: Arguments has no such option; did you mean `scheduler`, on the stage itself?",
        "trainer.zzz: Arguments has no such option",
    ]


def test_a_wrong_type_is_named() -> None:
    """Where the class itself would take anything."""
    assert check_trainer(Arguments, {"max_grad_norm": "high", "rows": 2.5}, RENAMED).wrong == [
        "trainer.max_grad_norm is 'high': Input should be a valid number",
        "trainer.rows is 2.5: Input should be a valid integer",
    ]


def test_the_config_class_is_asked() -> None:
    """About the section alone, or about all that the stage would give it."""
    assert check_trainer(Arguments, {"rows": 3}, RENAMED).wrong == [
        "trainer: Arguments says: rows is 3: it must be even"
    ]
    assert check_trainer(Arguments, {"max_grad_norm": 1}, RENAMED, {"max_grad_norm": 1, "rows": 5}).wrong == [
        "trainer: Arguments says: rows is 5: it must be even"
    ]


def test_a_library_that_is_missing_is_no_wrong_option() -> None:
    """The section is right, and runs where the library is."""

    @dataclass
    class Needy:
        optim: str = "adamw_torch"

        def __post_init__(self) -> None:
            raise ImportError("You need to install\n bitsandbytes")

    assert check_trainer(Needy, {"optim": "adamw_8bit"}, {}) == Findings(
        lacking=["trainer: Needy says: You need to install bitsandbytes"]
    )


def test_what_the_stage_or_the_recipe_sets_is_refused() -> None:
    """Two places for one value would leave it open which counts."""
    assert check_trainer(Arguments, {"learning_rate": 1, "seed": 3}, RENAMED).wrong == [
        "trainer.learning_rate: set `learning_rate` on the stage instead",
        "trainer.seed cannot be set: the recipe has one seed; set `seed` at its top",
    ]
