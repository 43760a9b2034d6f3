"""Verdicts on answers: what they may be, and how each kind of answer is judged."""
