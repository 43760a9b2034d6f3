"""The filter, carried out by a small interpreter of classic BPF, on both kinds of machines."""

import errno
import struct

import pytest

from r1pipe.errors import EnvironmentUnfit
from r1pipe.verify.seccomp import program_filter

ALLOW, KILL, REFUSE, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def decide(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter says to a call, by the kernel's rules for BPF."""
    steps = list(struct.iter_unpack("=HBBI", program_filter(machine)))
    data = struct.pack(
        "=IIQ6Q",
        number,
        ARCHITECTURE[machine] if architecture is None else architecture,
        0,
        *(*arguments, *[0] * 6)[:6],
    )
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += yes if holds[code] else no


@pytest.mark.parametrize(
    ("machine", "read", "clone", "prctl", "exits", "refused"),
    [
        ("x86_64", 0, 56, 157, (60, 231), {"fork": 57, "kill": 62, "socket": 41, "ptrace": 101}),
        ("aarch64", 63, 220, 167, (93, 94), {"kill": 129, "socket": 198, "ptrace": 117}),
    ],
)
def test_calls(
    machine: str, read: int, clone: int, prctl: int, exits: tuple[int, int], refused: dict[str, int]
) -> None:
    """Reading works; a clone is a thread or refused; clone3 seems not to exist; 137 is no exit status."""
    assert decide(machine, read) == ALLOW
    assert decide(machine, clone, 0x003D0F00) == ALLOW  # what glibc's pthread_create asks for
    assert decide(machine, clone, 17) == REFUSE  # fork
    assert decide(machine, clone, 0x4111) == REFUSE  # vfork
    assert decide(machine, 435) == UNKNOWN
    assert [decide(machine, prctl, option) for option in (1, 15)] == [REFUSE, ALLOW]
    for leave in exits:
        assert [decide(machine, leave, status) for status in (0, 1, 137, 137 + 256)] == [
            ALLOW, ALLOW, REFUSE, REFUSE,
        ]  # fmt: skip
    assert {name: decide(machine, number) for name, number in refused.items()} == dict.fromkeys(
        refused, REFUSE
    )


@pytest.mark.parametrize(
    ("machine", "tgkill", "fcntl", "setrlimit", "prlimit"),
    [("x86_64", 234, 72, 160, 302), ("aarch64", 131, 25, 164, 261)],
)
def test_no_program_kills_itself(machine: str, tgkill: int, fcntl: int, setrlimit: int, prlimit: int) -> None:
    """SIGKILL is neither sent nor ordered; other signals, settings and limits are, and limits are told."""
    assert [decide(machine, tgkill, 1, 1, number) for number in (6, 9)] == [ALLOW, REFUSE]
    assert [decide(machine, fcntl, 3, command, 9) for command in (4, 10)] == [ALLOW, REFUSE]
    limits = [(0, REFUSE), (3, ALLOW), (15, REFUSE)]  # CPU time, the stack, real time
    assert [(each, decide(machine, setrlimit, each, 1)) for each, _ in limits] == limits
    for new in (1 << 40, 4096):
        assert [(each, decide(machine, prlimit, 0, each, new, 0)) for each, _ in limits] == limits
    assert {decide(machine, prlimit, 0, each, 0, 4096) for each, _ in limits} == {ALLOW}


def test_other_abis() -> None:
    """A call of another architecture ends the process, and x32 does not exist."""
    assert decide("x86_64", 2, architecture=0x40000003) == KILL
    assert decide("x86_64", 0x40000000 + 57) == UNKNOWN


def test_an_unknown_machine() -> None:
    """No filter, no programs."""
    with pytest.raises(EnvironmentUnfit, match="this machine is riscv64"):
        program_filter("riscv64")
