"""Files compressed by zstandard, where the extra `zstd` is installed."""

import io
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final

from r1pipe.errors import EnvironmentUnfit

LEVEL: Final = 3
"""The library's own choice: at higher ones text takes a tenth less room and several times as long."""
_BLOCK: Final = 1 << 17  # compressed bytes read at a time


def reading(path: Path) -> IO[bytes]:
    """Open a compressed file; what is read raises `OSError` where the file is cut short or damaged."""
    return io.BufferedReader(_Frames(path, _library()), _BLOCK)


def writing(file: IO[bytes]) -> Any:
    """What compresses into an open file, to be used in a `with`; the file stays open."""
    compressor = _library().ZstdCompressor(level=LEVEL, write_checksum=True)
    return io.BufferedWriter(compressor.stream_writer(file, closefd=False), _BLOCK)


def _library() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise EnvironmentUnfit(
            "Files that end in .zst need the package 'zstandard'. Install it with "
            "`pip install 'r1pipe[zstd]'`, or use files that are not compressed."
        ) from error
    return zstandard


class _Frames(io.RawIOBase):
    """The bytes of all frames of a file; the library's own reader takes one that is cut short for whole."""

    def __init__(self, path: Path, library: ModuleType) -> None:
        self._library = library
        self._file = open(path, "rb")  # noqa: SIM115
        self._new = library.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._made = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there is something; 0 at the end."""
        while not self._made and (block := self._file.read(_BLOCK)):
            self._made = self._read(block)
        if not self._made and self._frame is not None:
            raise OSError("the compressed file is cut short")
        size = min(len(buffer), len(self._made))
        buffer[:size], self._made = self._made[:size], self._made[size:]
        return size

    def _read(self, block: bytes) -> bytes:
        made = b""
        try:
            while block:
                self._frame = self._frame or self._new()
                made += self._frame.decompress(block)
                block = self._frame.unused_data
                if self._frame.eof:
                    self._frame = None
        except self._library.ZstdError as error:
            raise OSError(f"the compressed file is damaged: {error}") from error
        return made

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
