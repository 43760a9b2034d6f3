"""Pure functions on rows: what is kept, what is not, and why."""

from r1pipe.curate.filters import Curated, Keep, Step, curate

__all__ = ["Curated", "Keep", "Step", "curate"]
