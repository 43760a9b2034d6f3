"""`r1pipe` and `python -m r1pipe`."""

import os

# Said before anything is imported that would report on its use: TRL and vLLM do by default.
os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"})

from r1pipe.cli import app


def main() -> None:
    """Run the command line."""
    app(prog_name="r1pipe")


if __name__ == "__main__":
    main()
