"""Conversations in the rows of files: `messages` of {role, content}, and ShareGPT's of {from, value}."""

from collections.abc import Mapping
from typing import Any, Final

Turn = dict[str, str]
"""{role, content}"""

_ROLES: Final = {"human": "user", "gpt": "assistant"}
"""What ShareGPT calls them."""


def read_turn(written: Any) -> Turn | None:
    """A turn, its role by the usual name; None where it is none.

    >>> read_turn({"from": "human", "value": "1 + 1?"})
    {'role': 'user', 'content': '1 + 1?'}
    """
    if not isinstance(written, Mapping):
        return None
    role, content = written.get("role", written.get("from")), written.get("content", written.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    return {"role": _ROLES.get(role, role), "content": content}


def read_turns(messages: Any, column: str) -> list[Turn] | str:
    """The turns of a whole conversation, or in a few words why what stands in a column is none."""
    read = [read_turn(each) for each in messages] if isinstance(messages, list) else []
    told = [each for each in read if each is not None]
    if len(told) < 2 or len(told) < len(read):
        return f"{column!r} is not a list of {{role, content}} with a question and an answer"
    if told[-1]["role"] != "assistant":
        return f"{column!r} does not end in an assistant's answer"
    return told
