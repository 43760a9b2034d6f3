"""The glue to TRL: its trainers run as they are, extended by subclass and callback.

Importing this package is cheap, and so are `determinism`, `examples`, `options`, `supervised` and `text`; the
other modules import torch.
"""

import os

# Before transformers or TRL is imported: nothing is reported to anybody, and no warning that TRL's
# `rollout_func`, which is how our engines are called, may change (the version is pinned).
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
