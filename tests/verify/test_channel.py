"""What passes between two processes is data; what is no data stays where it is."""

import json
import socket
import threading
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1pipe.verify.channel import LARGEST_MESSAGE, Lost, Peer, Remote

Point = namedtuple("Point", "x y")


class Node:
    """A class such as a program might define."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.left: Any = None
        self.set: dict[int, Any] = {}

    def __eq__(self, other: object) -> bool:
        return True

    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: int) -> int:
        return [self.value, 2, 3][key]

    def __setitem__(self, key: int, value: Any) -> None:
        self.set[key] = value

    def __delitem__(self, key: int) -> None:
        del self.set[key]

    def __str__(self) -> str:
        return f"Node {self.value}"

    def __repr__(self) -> str:
        return f"Node({self.value})"


def _count(n: int) -> Iterator[int]:
    yield from range(n)


def _extend(target: Any, more: Any) -> None:
    target.update(more) if hasattr(target, "update") else target.extend(more)


def _raise(kind: str) -> None:
    class Odd(KeyError):
        def __str__(self) -> str:
            raise ValueError

    odd_json = type("JSONDecodeError", (Exception,), {})()
    no_text = UnicodeDecodeError("ascii", b"", 0, 1, "x")
    raise {
        "odd": Odd("x"),
        "value": ValueError("no"),
        "unicode": no_text,
        "encode": UnicodeEncodeError("ascii", "", 0, 1, "x"),
        "translate": UnicodeTranslateError("", 0, 1, "x"),
        "json": json.JSONDecodeError("x", "", 0),
        "odd json": odd_json,
        "stop": StopIteration(),
        "exit": SystemExit(2),
        "group": ExceptionGroup("x", [ValueError()]),
    }[kind]


PROGRAM: dict[str, Any] = {
    "same": lambda value: value,
    "Node": Node,
    "count": _count,
    "extend": _extend,
    "fail": _raise,
    "apply": lambda function, *args, **named: function(*args, **named),
    "look": lambda value: value.secret,
    "cycle": lambda: (lambda kept: kept.append(kept) or kept)([]),
    "constant": 5,
    "kind": lambda value, kind: isinstance(value, kind),
}


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, Any]]:
    """The names of a program at the other end of a channel."""
    ours, theirs = socket.socketpair()
    every = ("names", "call", "get", "set", "special")
    program = Peer(theirs.detach(), answers=every, load=lambda: PROGRAM)
    thread = threading.Thread(target=program.serve, daemon=True)
    thread.start()
    with ours:
        peer = Peer(ours.fileno(), answers=("call",))
        offered = peer.request("names", [*PROGRAM, "missing"])
        yield {name: peer.decode(value) for name, value in offered.items()}
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive()
        ours.detach()  # the peer closes it


simple = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**4000, 10**4001), st.floats(allow_nan=False),
    st.text(st.characters()), st.binary(), st.complex_numbers(allow_nan=False), st.decimals(allow_nan=False),
    st.fractions(), st.dates(), st.datetimes(allow_imaginary=False).map(lambda time: time.replace(fold=0)),
    st.sampled_from([int, str, list, ValueError, range(3), range(10**20), bytearray(b"a"), float("inf")]),
)  # fmt: skip
hashable = st.recursive(
    st.one_of(st.integers(), st.text(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner)),
    max_leaves=5,
)
values = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(deque),
        st.sets(hashable),
        st.dictionaries(hashable, inner),
    ),
    max_leaves=10,
)


@given(values)
@settings(max_examples=150)
def test_data_arrives_as_it_is(names: dict[str, Any], value: Any) -> None:
    """There and back again, with the same types at every depth."""
    back = names["same"](value)
    assert back == value
    assert repr(back) == repr(value) or _with_sets(value)


def _with_sets(value: Any) -> bool:
    return any(name in repr(value) for name in ("frozenset(", "{"))


def test_what_derives_from_data_arrives_as_that_data(names: dict[str, Any]) -> None:
    """A named tuple is a tuple, a Counter a dictionary: nothing of a class is left."""

    class Text(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    cases = [
        (Point(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (Text("a"), "a"),
        (True, True),
    ]
    for value, plain in cases:
        back = names["same"](value)
        assert back == plain
        assert type(back) is type(plain)
    kept = [Decimal("1.50"), Fraction(1, 3), date(2026, 2, 3), datetime(2026, 2, 3, 4, 5)]
    kept.append(timedelta(-3, 4, 5))
    assert list(map(names["same"], kept)) == kept
    assert names["constant"] == 5
    assert names["kind"](3, int) is True


def test_numbers_of_numpy_are_numbers(names: dict[str, Any]) -> None:
    """Arrays arrive as lists."""
    numpy = pytest.importorskip("numpy")
    assert names["same"](numpy.float64(0.5)) == 0.5
    assert names["same"](numpy.arange(4).reshape(2, 2)) == [[0, 1], [2, 3]]


def test_an_object_stays_where_it_is(names: dict[str, Any]) -> None:
    """Its attributes, methods, calls and elements can be asked for; its say in comparisons cannot."""
    node, other = names["Node"](1), names["Node"](2)
    assert isinstance(node, Remote)
    node.left = other
    assert node.left is other
    assert node.left.value == 2
    assert node != 1 and node != other and node == node
    assert bool(node) and len(node) == 3 and node[1] == 2
    assert names["same"](node) is node
    node[5] = "five"
    assert node.set == {5: "five"}
    del node[5]
    assert node.set == {}
    assert (str(node), repr(node)) == ("Node 1", "Node(1)")
    with pytest.raises(AttributeError):
        _ = node.missing
    with pytest.raises(AttributeError):
        _ = node.__deepcopy__
    with pytest.raises(IndexError):
        _ = node[7]
    assert list(names["count"](3)) == [0, 1, 2]
    with pytest.raises(TypeError):
        iter(names["same"]).__next__()


def test_arguments_change_as_they_would_in_one_process(names: dict[str, Any]) -> None:
    """What a function does to a list, a dictionary, a set or a bytearray is seen by its caller."""
    cases: list[tuple[Any, Any, Any]] = [
        ([1], [2], [1, 2]),
        ({1: 2}, {3: 4}, {1: 2, 3: 4}),
        ({1}, {2}, {1, 2}),
        (bytearray(b"a"), b"b", bytearray(b"ab")),
    ]
    for target, more, expected in cases:
        assert names["extend"](target, more) is None
        assert target == expected


def test_functions_can_be_given(names: dict[str, Any]) -> None:
    """They are called back, and what they raise arrives too; nothing else of ours can be asked for."""

    def add(x: int, *, y: int) -> int:
        return x + y

    assert names["apply"](add, 1, y=2) == 3
    assert names["apply"](names["apply"], add, 1, y=2) == 3
    with pytest.raises(ZeroDivisionError):
        names["apply"](lambda: 1 // 0)
    with pytest.raises(PermissionError, match="get is refused here"):
        names["look"](add)


def test_errors_arrive_as_the_nearest_built_in(names: dict[str, Any]) -> None:
    """A class of the program's own is one that we know; its text may fail."""
    with pytest.raises(ValueError, match=r"^no$"):
        names["fail"]("value")
    with pytest.raises(KeyError):
        names["fail"]("odd")
    with pytest.raises(UnicodeDecodeError):
        names["fail"]("unicode")
    with pytest.raises(UnicodeEncodeError):
        names["fail"]("encode")
    with pytest.raises(UnicodeError):
        names["fail"]("translate")
    with pytest.raises(json.JSONDecodeError):
        names["fail"]("json")
    with pytest.raises(Exception) as odd:
        names["fail"]("odd json")
    assert type(odd.value) is Exception
    with pytest.raises(RuntimeError, match="StopIteration"):
        names["fail"]("stop")
    with pytest.raises(SystemExit):
        names["fail"]("exit")
    with pytest.raises(Exception, match="x"):
        names["fail"]("group")
    with pytest.raises(RecursionError):
        names["cycle"]()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[",
        b"nothing\n",
        b"[" * 100_000 + b"\n",
        b'["value", {"a": 1}]\n',
        b'["value", ["eval", "1"]]\n',
        b'["value", ["type", "eval"]]\n',
        b'["value", ["set", ["list"]]]\n',
        b'["value", ["bytes", 5]]\n',
        b'["value", ["yours", 7]]\n',
        b'["value", ["mine"]]\n',
        b'["value", []]\n',
        b'["value", ["os.system", "true"]]\n',
        b"x" * (LARGEST_MESSAGE + 10),
    ],
)
def test_what_is_no_answer_is_a_loss(answer: bytes) -> None:
    """Whatever is sent instead, the other side counts as gone, and nothing of it is carried out."""
    ours, theirs = socket.socketpair()
    peer = Peer(ours.detach(), answers=("call",))
    sending = threading.Thread(target=_send, args=(theirs, answer))
    sending.start()
    with pytest.raises(Lost):
        peer.decode(peer.request("get", 0, "name"))
    theirs.close()
    sending.join()
    with pytest.raises(Lost):
        peer.request("get", 0, "name")


def _send(to: socket.socket, data: bytes) -> None:
    try:
        to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_an_argument_keeps_its_type() -> None:
    """A list that came back as a set is not believed."""
    ours, theirs = socket.socketpair()
    peer = Peer(ours.detach(), answers=())
    theirs.sendall(b'["value", [1, [[0, ["set", 1]]]]]\n')
    with pytest.raises(Lost, match="changed its type"):
        peer.call(Remote(peer, 0), [[1]], {})
    theirs.close()


def test_too_much_for_one_message() -> None:
    """The sender of more than a message holds is told so."""
    ours, theirs = socket.socketpair()
    peer = Peer(ours.detach(), answers=())
    with pytest.raises(MemoryError):
        peer.request("call", "x" * LARGEST_MESSAGE)
    theirs.close()
