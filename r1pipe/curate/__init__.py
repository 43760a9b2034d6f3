"""Pure functions on rows: what is kept, what is not, and why."""

from r1pipe.curate.filters import Curated, CurationStep, Keep, curate
from r1pipe.curate.harvest import Harvest
from r1pipe.curate.rewrite import Rewrite, make_readable
from r1pipe.curate.traces import Drawn, PassRates, Source, TraceRow, trace_row

__all__ = [
    "Curated",
    "CurationStep",
    "Drawn",
    "Harvest",
    "Keep",
    "PassRates",
    "Rewrite",
    "Source",
    "TraceRow",
    "curate",
    "make_readable",
    "trace_row",
]
