"""Pure functions on rows: what is kept, what is not, and why."""

from r1pipe.curate.filters import Curated, Keep, Step, curate
from r1pipe.curate.harvest import Harvest
from r1pipe.curate.rewrite import Rewrite, make_readable
from r1pipe.curate.traces import Source, TraceRow, trace_row

__all__ = [
    "Curated",
    "Harvest",
    "Keep",
    "Rewrite",
    "Source",
    "Step",
    "TraceRow",
    "curate",
    "make_readable",
    "trace_row",
]
