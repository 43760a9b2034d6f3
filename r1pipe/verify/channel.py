"""Values and calls between two processes that do not trust each other.

Tests and the program that they test run in processes of their own. What passes between them is data: numbers,
texts, lists, dictionaries and the like arrive as copies of exactly those types, whatever class of the
program's stood behind them. Any other object stays where it is, and the other side gets a `Remote` that asks
for its attributes, calls and elements. A Remote is equal to itself alone: no object of the program's has a
say in a comparison that the tests make.

A message is a line of JSON. Calls may nest, since a function can be given to the other side and called from
there. What a call does to a list, dictionary, set or bytearray that it was given is done to the caller's too.
"""

import builtins
import json
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, Self

LARGEST_MESSAGE: Final = 16 << 20
"""Bytes. Whoever sends more has gone wild, or tries to fill the other's memory."""
_SAFE_INTEGER: Final = 1 << 62  # JSON's readers are fast with these, and refuse those of thousands of digits

_COLLECTIONS: Final[dict[str, type]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip
_TYPES: Final = {name: each for name, each in vars(builtins).items() if isinstance(each, type)}
_MUTABLE: Final = ("list", "dict", "set", "bytearray")
_TEXTUAL: Final = {
    "decimal.Decimal": ("__str__", None),
    "fractions.Fraction": ("__str__", None),
    "datetime.date": ("isoformat", "fromisoformat"),
    "datetime.datetime": ("isoformat", "fromisoformat"),
    "datetime.time": ("isoformat", "fromisoformat"),
}
_TIMEDELTA: Final = "datetime.timedelta"
"""Types that are sent as text: the method that writes it, and the one that reads it if not the type."""
_CALLED: Final = (FunctionType, BuiltinFunctionType, MethodType, partial)
_BASES: Final = (bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict)


class Lost(BaseException):
    """The other side is gone, or sends what is no message. No test can catch it for an error of its own."""


class Peer:
    """One end of the channel, a connected socket's descriptor, which it takes over.

    `answers` are the requests that the other end may make of this one. `load` gives the names of a program;
    it is called when they are asked for.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        answers: Collection[str],
        load: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._in = os.fdopen(descriptor, "rb")
        self._out = os.fdopen(descriptor, "wb", closefd=False)
        self._answers = frozenset(answers)
        self._load = load
        self._kept: dict[int, Any] = {}  # objects of this side that the other knows by their number
        self._numbers: dict[int, int] = {}
        self._remotes: dict[int, Remote] = {}
        self.refused = False
        """Whether the other end asked for more of an object that it was given than this end answers."""

    def request(self, kind: str, *parts: Any) -> Any:
        """Ask the other side, and answer its questions until it has answered.

        Raises what the call raised over there, as the built-in error that it is or derives from. A
        StopIteration is one where the next element was asked for, and a RuntimeError elsewhere.
        """
        self._send([kind, *parts])
        while True:
            answer = self._receive()
            match answer:
                case ["value", value]:
                    return value
                case ["raise", [*names], str(text)]:
                    error = _error(names, text)
                    if isinstance(error, StopIteration) and [kind, *parts[1:2]] != ["special", "__next__"]:
                        raise RuntimeError("a call raised StopIteration")  # it would end a loop of the tests
                    raise error
                case _:
                    self._answer(answer)

    def serve(self) -> None:
        """Answer until the other side has no more questions."""
        while True:
            try:
                question = self._receive()
            except Lost:
                return
            self._answer(question)

    def call(self, target: "Remote", args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Call an object of the other side."""
        sent = [self.encode(value) for value in args]
        encoded = {name: self.encode(value) for name, value in named.items()}
        value, changes = self.request("call", target._number, sent, encoded)
        for place, changed in changes:
            _restore(args[place], self.decode(changed))
        return self.decode(value)

    # --- The answering side

    def _answer(self, question: Any) -> None:
        outcome = Trial(Exception, SystemExit) if question[:1] == ["call"] else Trial()
        reply: Any = None
        with outcome:
            kind, *parts = question
            if kind not in self._answers:
                self.refused |= parts[:1] in [[each] for each in self._objects()]
                raise PermissionError(f"{kind} is refused here")
            reply = _HANDLERS[kind](self, *parts)
        if outcome.error is None:
            self._send(["value", reply])
        else:
            names = [each.__name__ for each in type(outcome.error).__mro__]
            self._send(["raise", names, _text(outcome.error)])

    def _objects(self) -> list[int]:
        """The numbers of what was given to the other side that is more than something to call."""
        return [number for number, each in self._kept.items() if not isinstance(each, _CALLED)]

    def _names(self, wanted: list[str]) -> Any:
        found = self._load()
        return {name: self.encode(found[name]) for name in wanted if name in found}

    def _call(self, number: int, sent: list[Any], named: dict[str, Any]) -> Any:
        args = [self.decode(value) for value in sent]
        value = self._kept[number](*args, **{name: self.decode(each) for name, each in named.items()})
        after = [(i, self.encode(args[i])) for i, each in enumerate(sent) if _tag(each) in _MUTABLE]
        return [self.encode(value), [[i, each] for i, each in after if each != sent[i]]]

    def _get(self, number: int, name: str) -> Any:
        return self.encode(getattr(self._kept[number], name))

    def _set(self, number: int, name: str, value: Any) -> None:
        setattr(self._kept[number], name, self.decode(value))

    def _special(self, number: int, name: str, sent: list[Any]) -> Any:
        operand = self._kept[number]
        method = getattr(type(operand), name, None)
        if method is None:
            raise TypeError(f"{type(operand).__name__!r} object has no {name}")
        return self.encode(method(operand, *(self.decode(value) for value in sent)))

    # --- Values as JSON

    def encode(self, value: Any) -> Any:
        """A value as JSON: what JSON has is itself, the rest is a list that begins with its type's name."""
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return value if -_SAFE_INTEGER < value < _SAFE_INTEGER else ["int", hex(value)]
        if kind.__name__ in _COLLECTIONS and kind is _COLLECTIONS[kind.__name__]:
            return [kind.__name__, *map(self.encode, value)]
        if kind is dict:
            return ["dict", *([self.encode(key), self.encode(each)] for key, each in value.items())]
        if kind in (bytes, bytearray):
            return [kind.__name__, value.hex()]
        if kind is complex:
            return ["complex", value.real, value.imag]
        if kind is range:
            return ["range", *map(self.encode, (value.start, value.stop, value.step))]
        if kind is Remote and value._peer is self:
            return ["yours", value._number]
        return self._encode_other(value, kind)

    def _encode_other(self, value: Any, kind: type) -> Any:
        if isinstance(value, type) and _TYPES.get(value.__name__) is value:
            return ["type", value.__name__]
        full_name = f"{kind.__module__}.{kind.__qualname__}"
        if full_name in _TEXTUAL:
            return [full_name, getattr(value, _TEXTUAL[full_name][0])()]
        if full_name == _TIMEDELTA:
            return [full_name, value.days, value.seconds, value.microseconds]
        if kind.__module__ == "numpy":
            return self.encode(value.tolist()) if hasattr(value, "tolist") else self._keep(value)
        base = next((base for base in _BASES if isinstance(value, base)), None)
        return self._keep(value) if base is None else self.encode(base(value))

    def _keep(self, value: Any) -> list[Any]:
        number = self._numbers.setdefault(id(value), len(self._numbers))
        self._kept[number] = value
        return ["mine", number]

    def decode(self, data: Any) -> Any:
        """The value that `encode` of the other side was given. Raises Lost for what it cannot have made."""
        try:
            return self._decode(data)
        except (AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
            raise Lost(f"not a value: {error}") from error

    def _decode(self, data: Any) -> Any:
        if not isinstance(data, list):
            if isinstance(data, dict):
                raise TypeError("a bare object")
            return data
        tag, *parts = data
        if tag in _COLLECTIONS:
            return _COLLECTIONS[tag](map(self._decode, parts))
        if tag == "mine":
            (number,) = parts
            return self._remotes.setdefault(number, Remote(self, number))
        return _READERS[tag](self, *parts)

    # --- Lines

    def _send(self, message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        if len(line) > LARGEST_MESSAGE:
            raise MemoryError("too much for one message")
        try:
            self._out.write(line)
            self._out.flush()
        except OSError as error:
            raise Lost("the other side is gone") from error

    def _receive(self) -> Any:
        try:
            line = self._in.readline(LARGEST_MESSAGE)
        except OSError as error:
            raise Lost("the other side is gone") from error
        if not line.endswith(b"\n"):
            raise Lost("the other side is gone, or sends without end")
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Lost("not a message") from error


class Trial:
    """A context that keeps any error of foreign code, of whatever class, instead of letting it out.

    An exit, an interrupt and the loss of the channel go on their way, unless their `kinds` are named.
    """

    error: BaseException | None = None

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds or (Exception,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, self._kinds):
            self.error = error
            return True
        return False


class Remote:
    """An object of the other side. It is equal to itself alone, always true, and no number.

    What an object would be asked together with the expected value, it is not asked: comparisons, arithmetic,
    `in`; nor is it the context of a test, whose failure it could hide.
    """

    __slots__ = ("_number", "_peer")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._peer.call(self, args, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copy, pickle and the like look for is not to be found
            raise AttributeError(name)
        return self._peer.decode(self._peer.request("get", self._number, name))

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.request("set", self._number, name, self._peer.encode(value))

    def __iter__(self) -> Any:
        return self._special("__iter__")

    def __next__(self) -> Any:
        return self._special("__next__")

    def __len__(self) -> int:
        return int(self._special("__len__"))

    def __getitem__(self, key: Any) -> Any:
        return self._special("__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._special("__setitem__", key, value)

    def __delitem__(self, key: Any) -> None:
        self._special("__delitem__", key)

    def __str__(self) -> str:
        return str(self._special("__str__"))

    def __repr__(self) -> str:
        return str(self._special("__repr__"))

    def __bool__(self) -> bool:
        return True

    def _special(self, name: str, *args: Any) -> Any:
        sent = [self._peer.encode(value) for value in args]
        return self._peer.decode(self._peer.request("special", self._number, name, sent))


def _read_textual(name: str, text: str) -> Any:
    import importlib  # late, as every start waits for what is imported above, and few need this

    module, _, kind = name.rpartition(".")
    reader = getattr(importlib.import_module(module), kind)
    method = _TEXTUAL[name][1]
    return getattr(reader, method)(text) if method else reader(text)


def _read_timedelta(peer: Peer, days: int, seconds: int, microseconds: int) -> Any:
    from datetime import timedelta

    return timedelta(days, seconds, microseconds)


_READERS: Final[dict[str, Callable[..., Any]]] = {
    "int": lambda peer, text: int(text, 16),
    "dict": lambda peer, *pairs: {peer._decode(key): peer._decode(value) for key, value in pairs},
    "bytes": lambda peer, text: bytes.fromhex(text),
    "bytearray": lambda peer, text: bytearray.fromhex(text),
    "complex": lambda peer, real, imag: complex(real, imag),
    "range": lambda peer, *ends: range(*map(peer._decode, ends)),
    "type": lambda peer, name: _TYPES[name],
    _TIMEDELTA: _read_timedelta,
    "yours": lambda peer, number: peer._kept[number],
    **{name: lambda peer, text, name=name: _read_textual(name, text) for name in _TEXTUAL},
}
_HANDLERS: Final[dict[str, Callable[..., Any]]] = {
    "names": Peer._names, "call": Peer._call, "get": Peer._get, "set": Peer._set, "special": Peer._special,
}  # fmt: skip


def _tag(data: Any) -> Any:
    return data[0] if isinstance(data, list) else None


def _restore(original: Any, changed: Any) -> None:
    """Give a mutable argument the content that it has on the other side after the call."""
    if type(original) is not type(changed):
        raise Lost("an argument changed its type")
    if isinstance(original, list | bytearray):
        original[:] = changed
    else:
        original.clear()
        original.update(changed)


def _text(error: BaseException) -> str:
    """What an error says, short; its own `__str__` may be anything."""
    spoken = Trial()
    text = ""
    with spoken:
        text = str(error)[:500]
    return text


def _error(names: Sequence[Any], text: str) -> BaseException:
    """The nearest error that is known here among the classes of one that was raised on the other side."""
    for name in names:
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if name == "JSONDecodeError" and "ValueError" in names:
            return json.JSONDecodeError(text, "", 0)
        if name == "SystemExit":
            return SystemExit(text)
        if isinstance(kind, type) and issubclass(kind, UnicodeError):
            return _unicode_error(kind, text)
        if isinstance(kind, type) and issubclass(kind, Exception):
            made = Trial()
            with made:
                return kind(text)
    return RuntimeError(text)  # of a class that is no exception, or of one that is not made of a text


def _unicode_error(kind: type[UnicodeError], text: str) -> UnicodeError:
    """One that says where in what text: that is not sent, so it is nowhere."""
    if kind is UnicodeDecodeError:
        return UnicodeDecodeError("", b"", 0, 0, text)
    if kind is UnicodeEncodeError:
        return UnicodeEncodeError("", "", 0, 0, text)
    return UnicodeError(text)
