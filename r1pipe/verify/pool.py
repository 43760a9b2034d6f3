"""Worker processes for questions whose answering may hang, crash or eat the memory.

A worker is this interpreter running one module that ends in `serve(answer)`. It reads a question a line as
JSON from its stdin and writes an answer a line to its stdout: no pickle, nothing inherited, nothing shared.
It is asked one question at a time, and the deadline runs from the moment the question is sent: waiting for a
free worker costs nobody his time. A worker that does not answer is killed, and another takes its place.

Workers live as long as the pool. They end when their stdin does, so none outlives this process, however it
dies; while they compute, the kernel ends those that use more CPU time than the deadline.
"""

import atexit
import contextlib
import os
import queue
import resource
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self

from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit
from r1pipe.machine import cores

START_SECONDS: Final = 120.0
"""For a worker to load its libraries; on a busy machine that has taken a minute."""
START_TRIES: Final = 10
"""For a worker that something kills while it starts."""
_READY: Final = "ready"
_LARGEST_ANSWER: Final = 1 << 20  # bytes; a worker that writes more has gone wild


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question without an answer. It is the infrastructure's fault, and never the answer's."""

    reason: str
    """`timed out` or `worker died`."""


_DIED: Final = Unanswered("worker died")


class Pool:
    """At most `size` workers that run `module`, started when they are first needed.

    It may be used from any thread. `deadline` is in seconds, `memory` in bytes of address space; after
    `recycle` questions a worker is replaced, since caches grow.
    """

    def __init__(
        self, module: str, *, size: int, deadline: float, memory: int = 3 << 30, recycle: int = 10_000
    ) -> None:
        self.size = size
        self._new = partial(_Worker.started, module, deadline, memory)
        self._deadline = deadline
        self._recycle = recycle
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()  # the warmest first; None starts one
        for _ in range(size):
            self._idle.put(None)
        self._workers: set[_Worker] = set()
        self._closed = False
        _pools.add(self)
        atexit.register(self.close)

    def ask(self, question: Any) -> Any:
        """The answer to one question, or `Unanswered`.

        Raises:
            EnvironmentUnfit: no worker can be started.
            ValueError: the pool is closed.

        A worker that dies may have died of something else, so its question is asked once more, of a new one.
        """
        answer = self._ask(question)
        return self._ask(question, fresh=True) if answer == _DIED else answer

    def _ask(self, question: Any, fresh: bool = False) -> Any:
        worker, keep = self._idle.get(), False
        try:
            if self._closed:
                raise ValueError("the pool is closed")
            if worker is not None and fresh:
                self._end(worker)
                worker = None
            if worker is None:
                worker = self._new()
                self._workers.add(worker)
            answer = worker.ask(question, self._deadline)
            keep = not isinstance(answer, Unanswered) and worker.asked < self._recycle
            return answer
        finally:  # after Ctrl-C in the middle of a question, a worker's next answer would be the last one's
            if worker is not None and not keep:
                self._end(worker)
            self._idle.put(worker if keep else None)

    def _end(self, worker: "_Worker") -> None:
        self._workers.discard(worker)
        worker.kill()

    def ask_all(self, questions: Iterable[Any]) -> Iterator[Any]:
        """The answers in the order of the questions, `size` of them in the making at a time."""
        threads = ThreadPoolExecutor(self.size)
        try:
            yield from threads.map(self.ask, questions)
        finally:  # who stops listening does not wait for what has not been asked
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End all workers."""
        self._closed = True
        atexit.unregister(self.close)
        for worker in tuple(self._workers):
            worker.kill()
        self._workers.clear()

    def abandon(self) -> None:
        """Let go of all workers without ending them: in a fork they are the parent's."""
        self._closed = True
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.let_go()
        self._workers.clear()


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()
_lock = threading.Lock()
_shared: dict[str, Pool] = {}


def shared(module: str, deadline: float) -> Pool:
    """The pool of this process that single questions to `module` share, with a worker for each core at most.

    A fork of this process begins with none: it must not read its parent's answers.
    """
    with _lock:
        if module not in _shared:
            _shared[module] = Pool(module, size=cores(), deadline=deadline)
        return _shared[module]


def _after_fork() -> None:
    """A fork that held the workers' pipes open would keep them alive when the parent has died."""
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    _shared.clear()
    for pool in tuple(_pools):
        pool.abandon()


os.register_at_fork(after_in_child=_after_fork)

_INHERITED: Final = (
    "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV",
)  # fmt: skip


def _environment() -> dict[str, str]:
    """What a worker needs to start, and no secret of anybody's; sets have the same order in every worker."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Some processors' older numerical libraries are told by these what to leave alone.
    inherited |= {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(eq=False)
class _Worker:
    """A process and how often it was asked."""

    process: "subprocess.Popen[bytes]"
    asked: int = 0
    _read: bytearray = field(default_factory=bytearray)

    @classmethod
    def _spawned(cls, module: str, deadline: float, memory: int) -> Self:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"import {module} as worker; worker.main()",
                str(deadline),
                str(memory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers itself
            env=_environment(),
        )
        return cls(process)

    @classmethod
    def started(cls, module: str, deadline: float, memory: int) -> Self:
        """A worker that is ready; a start that somebody kills is tried again."""
        for _ in range(START_TRIES):
            worker = cls._spawned(module, deadline, memory)
            try:
                said = worker._answer(time.monotonic() + START_SECONDS)
            except BaseException:  # Ctrl-C, while it loads its libraries
                worker.kill()
                raise
            if said == _READY:
                return worker
            ended = worker._exit_code() if said == _DIED else 0
            worker.kill()
            if ended >= 0:
                break
        raise EnvironmentUnfit(
            f"A worker process ({module}) did not start within {START_SECONDS:.0f} s, or does not judge "
            f"as it should. Try it by hand: {sys.executable} -c 'import {module}'"
        )

    def ask(self, question: Any, deadline: float) -> Any:
        self.asked += 1
        ends = time.monotonic() + deadline
        try:
            self._write(jsonl.dumps(question) + b"\n")
        except OSError:
            return _DIED
        return self._answer(ends)

    def _exit_code(self) -> int:
        """Of a worker that has closed its end; below 0 when a signal ended it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout=5)
        return 0

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        left = memoryview(line)
        while left:  # unbuffered, so a pipe that is full takes a part only
            left = left[self.process.stdin.write(left) :]

    def _answer(self, ends: float) -> Any:
        assert self.process.stdout is not None
        stream = self.process.stdout.fileno()
        while b"\n" not in self._read:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                return Unanswered("timed out")
            piece = os.read(stream, 65_536)
            if not piece or len(self._read) > _LARGEST_ANSWER:
                return _DIED
            self._read += piece
        line, _, rest = self._read.partition(b"\n")
        self._read = bytearray(rest)
        return jsonl.loads(bytes(line))

    def let_go(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.returncode = 0  # nobody here waits for it

    def kill(self) -> None:
        self.process.kill()
        with contextlib.suppress(OSError):
            self.process.stdin.close() if self.process.stdin else None
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


# --- The worker's side


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer questions until there are no more; the body of a worker, in its main thread.

    Called once everything is loaded and known to work. `sys.argv` holds the deadline and the memory.
    """
    deadline, memory = float(sys.argv[1]), int(sys.argv[2])
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CORE, 0)
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    questions: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    os.write(out, jsonl.dumps(_READY) + b"\n")
    try:
        while True:
            question = jsonl.loads(questions.get())
            _limit(resource.RLIMIT_CPU, int(time.process_time() + deadline) + 2)
            os.write(out, jsonl.dumps(answer(question)) + b"\n")
    finally:
        os._exit(1)  # at once: the interpreter would wait for the thread that listens


def _listen(questions: "queue.Queue[bytes]") -> None:
    for line in sys.stdin.buffer:
        questions.put(line)
    os._exit(0)  # whoever asks is gone; nothing here is worth waiting for


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
