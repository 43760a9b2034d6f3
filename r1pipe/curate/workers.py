"""Work that is cut into pieces, done by processes side by side or, by one, right here."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final, TypeVar

from r1pipe import machine
from r1pipe.errors import RunFailed

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Making = Callable[[Any], Callable[[Any], Any]]
"""Makes, of what all pieces have in common, what does one piece; a function at the top of its module."""

_WAIT_SECONDS: Final = 0.5
_worker: Callable[[Any], Any] | None = None


def each(
    make: Callable[[Any], Callable[[Piece], Result]],
    common: Any,
    pieces: Iterable[Piece],
    processes: int,
    pause_point: Callable[[], None],
) -> Iterator[tuple[Piece, Result]]:
    """Yield each piece with what came of it, as they are done.

    `pause_point` is called again and again, and may raise to stop; what is being done then is finished.

    Raises:
        RunFailed: a process died.
    """
    do = make(common)  # also where others do the work: what is wrong with `common` is raised here, as it is
    if processes == 1:
        for piece in pieces:
            pause_point()
            yield piece, do(piece)
        return
    del do
    # A fresh interpreter: a fork would copy a parent that may hold torch, with its memory and its threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(make, common))
    try:
        yield from _as_done(pool, pieces, pause_point, 2 * processes)
    except BrokenProcessPool as error:
        raise RunFailed(
            "A worker process died, as the system does to one when memory is out. What was finished is kept: "
            "run the same command again, with fewer `workers` if it was the memory."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _as_done(
    pool: ProcessPoolExecutor, pieces: Iterable[Piece], pause_point: Callable[[], None], ahead: int
) -> Iterator[tuple[Piece, Any]]:
    """Hand out the pieces in order, never many ahead of what is done."""
    waiting, running = iter(pieces), dict[Future[Any], Piece]()
    while True:
        pause_point()
        while len(running) < ahead and (piece := next(waiting, None)) is not None:
            running[pool.submit(_do, piece)] = piece
        if not running:
            return
        done, _ = wait(running, timeout=_WAIT_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future.result()


def _begin(make: Making, common: Any) -> None:
    """Make a process ready."""
    global _worker
    machine.die_with_the_parent()
    _worker = make(common)
    # What a piece leaves behind grows while it is done: looking for cycles in it again and again takes an
    # eighth of the time and finds none, so that it is done between two pieces.
    gc.freeze()
    gc.disable()


def _do(piece: Any) -> Any:
    assert _worker is not None
    result = _worker(piece)
    gc.collect()
    return result
