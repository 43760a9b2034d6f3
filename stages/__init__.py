"""The pipeline's verbs, one module each. A module is imported when its verb is first used."""

from r1pipe.stage import Verbs

VERBS = Verbs(
    {
        verb: f"stages.{verb}"
        for verb in (
            "corpus",
            "pretrain",
            "checkpoint",
            "sft",
            "rl",
            "sample",
            "curate",
            "distill",
            "evaluate",
        )
    }
)
