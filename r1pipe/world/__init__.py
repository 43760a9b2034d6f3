"""The tiny world: a language, a corpus and a model small enough to see R1 happen on a laptop's CPU."""
