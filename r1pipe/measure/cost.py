"""What generating costs in money: by the hour of a GPU, by the token, or both."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Price(BaseModel):
    """What generation is paid by, as a recipe writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    gpu_hour: float = Field(default=0.0, ge=0)
    """US dollars for one GPU and hour."""
    gpus: int = Field(default=1, ge=1)
    """GPUs that are paid for while completions are generated and judged."""
    million_prompt_tokens: float = Field(default=0.0, ge=0)
    """US dollars for a million tokens of prompts, as a server bills them."""
    million_tokens: float = Field(default=0.0, ge=0)
    """US dollars for a million generated tokens."""

    @model_validator(mode="after")
    def _costs_something(self) -> "Price":
        if not (self.gpu_hour or self.million_prompt_tokens or self.million_tokens):
            raise ValueError(
                "a price has at least one of gpu_hour, million_prompt_tokens and million_tokens above 0; "
                "leave out price where nothing is paid"
            )
        return self

    def of(self, *, seconds: float, prompt_tokens: int, tokens: int) -> float:
        """US dollars for so long a time on the GPUs and so many tokens.

        >>> Price(gpu_hour=2, gpus=8).of(seconds=1800, prompt_tokens=0, tokens=0)
        8.0
        """
        by_time = seconds / 3600 * self.gpus * self.gpu_hour
        return by_time + (prompt_tokens * self.million_prompt_tokens + tokens * self.million_tokens) / 1e6
