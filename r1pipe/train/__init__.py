"""The glue to TRL: its trainers run as they are, extended by subclass and callback.

Importing this package is cheap; `grpo`, `sft`, `callbacks`, `checkpoints` and `models` import torch.
"""
