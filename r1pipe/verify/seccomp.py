"""What a program in the sandbox may not ask of the kernel, as a filter in classic BPF (seccomp(2)).

It lists what is refused, since the namespaces around it already keep almost everything away. Refused is what
would multiply the program (a process is counted by nobody when root starts it), what holds memory that no
limit counts, what reaches other processes, and what has had holes in kernels. Threads work.

Some calls are looked at more closely. `clone` may start threads and nothing else. `prctl` may not undo the
program's death with its parent.

A program that was killed has not been judged, so it must not be able to kill itself. SIGKILL is refused
wherever it can be asked for: as a signal to a thread, as the signal of a file or a timer, and as what the
kernel sends at the end of a limit of CPU time. An exit status of 137 is what a shell's custom makes of
SIGKILL; it is refused too, so that it never comes of a program that only says so.
"""

import platform
import struct
from typing import Final

from r1pipe.errors import EnvironmentUnfit

_X86_64, _AARCH64 = 0, 1
_MACHINES: Final = {"x86_64": (_X86_64, 0xC000003E), "aarch64": (_AARCH64, 0xC00000B7)}
"""By the kernel's name: the column of the numbers below, and the audit architecture (linux/audit.h)."""

_REFUSED: Final[dict[str, tuple[int | None, int | None]]] = {
    # More processes. clone3's flags lie behind a pointer that a filter cannot follow; it is treated below.
    "fork": (57, None),
    "vfork": (58, None),
    # Memory that RLIMIT_AS does not count.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # Other processes. A process in a namespace of its own sees none; with limits alone this is all there is.
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "timer_create": (222, 107),  # its signal lies behind a pointer; Python's timers are other calls
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    # The network. A pair of connected sockets, which event loops need, is another call.
    "socket": (41, 198),
    # Namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # Wide parts of the kernel that no exercise needs.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "modify_ldt": (154, None),
    # The machine itself, where the program is root's.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
}
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_PRCTL: Final = (157, 167)
_TGKILL: Final = (234, 131)
_FCNTL: Final = (72, 25)
_SETRLIMIT: Final = (160, 164)
_PRLIMIT64: Final = (302, 261)
_EXIT: Final = (60, 93)
_EXIT_GROUP: Final = (231, 94)

_CLONE_THREAD: Final = 0x10000
_PR_SET_PDEATHSIG: Final = 1
_F_SETSIG: Final = 10
_SIGKILL: Final = 9
_TIMES: Final = (0, 15)  # RLIMIT_CPU and RLIMIT_RTTIME, whose ends are a SIGKILL
_KILLED: Final = 128 + _SIGKILL
_X32: Final = 0x40000000  # set in the number of a call by x86-64's other ABI, which nothing uses

_EPERM, _ENOSYS = 1, 38
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def program_filter(machine: str | None = None) -> bytes:
    """The filter as `struct sock_filter[]`, for `bwrap --seccomp` and `PR_SET_SECCOMP`.

    Raises:
        EnvironmentUnfit: no filter is known for this kind of machine.
    """
    name = machine or platform.machine()
    if name not in _MACHINES:
        raise EnvironmentUnfit(
            f"Programs can be run safely on {' and '.join(_MACHINES)}, and this machine is {name}. "
            "Judge code on another machine, or choose a task without programs."
        )
    column, architecture = _MACHINES[name]
    refused = [number for numbers in _REFUSED.values() if (number := numbers[column]) is not None]
    return b"".join(
        [
            _step(_LOAD, _ARCHITECTURE),
            _step(_EQUAL, architecture, yes=1),
            _step(_RETURN, _KILL),
            _step(_LOAD, _NUMBER),
            _step(_AT_LEAST, _X32, no=1),
            _step(_RETURN, _ERRNO | _ENOSYS),
            _when(_CLONE3[column], _step(_RETURN, _ERRNO | _ENOSYS)),  # glibc then falls back to clone
            _when(_CLONE[column], *_by_argument(0, _ANY_BIT, _CLONE_THREAD, _ALLOW, _ERRNO | _EPERM)),
            _when(_PRCTL[column], *_argument_is_not(0, _PR_SET_PDEATHSIG)),
            _when(_TGKILL[column], *_argument_is_not(2, _SIGKILL)),
            _when(_FCNTL[column], *_argument_is_not(1, _F_SETSIG)),
            _when(_SETRLIMIT[column], *_argument_is_not(0, *_TIMES)),
            _when(_PRLIMIT64[column], *_no_new_limit(*_TIMES)),
            *(_when(number, *_status_is_not(_KILLED)) for number in (_EXIT[column], _EXIT_GROUP[column])),
            *(_when(number, _step(_RETURN, _ERRNO | _EPERM)) for number in refused),
            _step(_RETURN, _ALLOW),
        ]
    )


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; `yes` and `no` are how many to skip after a comparison."""
    return struct.pack("=HBBI", code, yes, no, value)


def _when(number: int, *steps: bytes) -> bytes:
    """Instructions for one call, which end in a return."""
    return _step(_EQUAL, number, no=len(steps)) + b"".join(steps)


def _by_argument(place: int, test: int, value: int, then: int, otherwise: int) -> list[bytes]:
    """A return by the lower half of an argument; the calls above take no more of it."""
    return [
        _step(_LOAD, _FIRST_ARGUMENT + 8 * place),
        _step(test, value, no=1),
        _step(_RETURN, then),
        _step(_RETURN, otherwise),
    ]


def _argument_is_not(place: int, *values: int) -> list[bytes]:
    each = [_by_argument(place, _EQUAL, value, _ERRNO | _EPERM, _ALLOW) for value in values]
    return [step for steps in each[:-1] for step in steps[:-1]] + each[-1]


def _no_new_limit(*resources: int) -> list[bytes]:
    """prlimit64(pid, resource, new, old), which may tell any limit; `new` is a pointer, in two halves."""
    halves = [_FIRST_ARGUMENT + 8 * 2 + half for half in (0, 4)]
    null = [[_step(_LOAD, half), _step(_EQUAL, 0, yes=1), _step(_RETURN, _ERRNO | _EPERM)] for half in halves]
    return [
        _step(_LOAD, _FIRST_ARGUMENT + 8),
        *(_step(_EQUAL, each, yes=len(resources) - i) for i, each in enumerate(resources)),
        _step(_RETURN, _ALLOW),
        *(step for steps in null for step in steps),
        _step(_RETURN, _ALLOW),
    ]


def _status_is_not(status: int) -> list[bytes]:
    load, *rest = _argument_is_not(0, status)
    return [load, _step(_AND, 0xFF), *rest]
