"""RoPE for longer contexts: a base that has read 4,096 tokens is to learn from traces of 32,768.

What is changed stands in the published config.json, under the names that transformers and vLLM read. Plain
Python: a model's config is looked at, and no weights.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from r1pipe.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Rope(BaseModel):
    """How the context of a student grows before it is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    factor: float = Field(gt=1)
    """The context becomes so many times as long, e.g. 8 for 4,096 to 32,768 tokens."""
    type: Literal["default", "yarn"] = "default"
    """`default` raises the base (`theta`) and has the training do the rest, as open-r1 does; `yarn` is YaRN
    (arXiv 2309.00071), which also works on a model that is not trained for it."""
    theta: float | None = Field(default=None, gt=0)
    """RoPE's base with `default`: OpenR1-Distill's 300,000 for 32,768 tokens, OpenMath-Nemotron's 500,000 for
    131,072."""

    @model_validator(mode="after")
    def _whole(self) -> "Rope":
        if self.type == "default" and self.theta is None:
            raise ValueError("type default raises RoPE's base; set theta, e.g. 300000, or type: yarn")
        if self.type == "yarn" and self.theta is not None:
            raise ValueError("type yarn keeps RoPE's base; leave out theta, or set type: default")
        return self


def stretch(config: "PreTrainedConfig", rope: Rope) -> str:
    """Change a model's config, before its weights are opened; return what was done in one sentence.

    Raises `UsageError` for a model without RoPE, one whose layers have several, and one that is scaled
    already.
    """
    text = config.get_text_config()
    before, context = _present(text), int(text.max_position_embeddings)
    after = {**before, "rope_type": rope.type}
    if rope.type == "yarn":
        after |= {"factor": rope.factor, "original_max_position_embeddings": context}
    else:
        after |= {"rope_theta": rope.theta}
    text.rope_parameters = after
    text.max_position_embeddings = round(context * rope.factor)
    how = (
        f"YaRN of factor {rope.factor:g}"
        if rope.type == "yarn"
        else f"RoPE's base is {rope.theta:,.0f} for {before['rope_theta']:,.0f}"
    )
    return f"The context is {text.max_position_embeddings:,} tokens for {context:,}: {how}."


def _present(text: Any) -> dict[str, Any]:
    """The parameters of a config's one RoPE that is not scaled. Raises `UsageError` for any other."""
    found = getattr(text, "rope_parameters", None) or {}
    if not found:
        raise UsageError(
            f"rope: a model of the kind {text.model_type!r} has no RoPE, so its context of "
            f"{int(text.max_position_embeddings):,} tokens stays. Leave out `rope`, or take another student."
        )
    if "rope_theta" not in found:
        raise UsageError(
            f"rope: the layers of a {text.model_type!r} have a RoPE each ({', '.join(found)}), and one "
            "factor does not say which is meant. Change its config.json by hand, and leave out `rope`."
        )
    kind = found.get("rope_type", "default")
    if kind != "default":
        raise UsageError(
            f"rope: the model's RoPE is scaled already ({kind}), to {int(text.max_position_embeddings):,} "
            "tokens. Leave out `rope`, or start from the base before it was scaled."
        )
    return dict(found)
