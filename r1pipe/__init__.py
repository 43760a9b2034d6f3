"""r1pipe: the DeepSeek-R1 recipe, end to end."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("r1pipe")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0+source"
