"""Numbers about completions: how often they are right, how they think, and in which language."""
