"""Whether a folder is a checkpoint that `from_pretrained` will open: every piece is there, and whole.

Nothing is loaded: the sizes in a safetensors file's header say whether the file is complete.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.errors import UsageError

_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("tekken.json",),
)
_LFS_POINTER = b"version https://git-lfs"
_DOWNLOAD_AGAIN = "Copy or download the checkpoint again."


def checkpoint_problems(folder: Path) -> list[str]:
    """Return what keeps the folder from being opened; each problem is a sentence or two with the way out."""
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        return ["It is a LoRA adapter without its model. Merge it first: peft's `merge_and_unload()`."]
    if hint := _hint_of_other_folders(folder):
        return [hint]
    return [*_config_problems(folder), *_weight_problems(folder), *_tokenizer_problems(folder)]


def weight_files(folder: Path) -> list[str]:
    """Return the names of the safetensors files that a load reads; the index counts, when there is one."""
    if (folder / _WEIGHTS).exists() or not (folder / _INDEX).exists():
        return [_WEIGHTS]
    weight_map = _read_index(folder / _INDEX)
    return sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []


def parameters(folder: Path) -> int:
    """How many parameters a checkpoint has, read off its weights' headers: tied ones count once.

    Raises `UsageError` where a file of them is not whole.
    """
    total = 0
    for name in weight_files(folder):
        header = _safetensors_header(folder / name)
        if isinstance(header, str):
            raise UsageError(f"'{folder}' cannot be used as a checkpoint. {header}")
        total += sum(math.prod(entry["shape"]) for entry in header.values())
    return total


def _hint_of_other_folders(folder: Path) -> str | None:
    """Recognise a folder that holds checkpoints instead of being one."""
    if (folder / "config.json").exists():
        return None
    inner = sorted(each.name for each in folder.iterdir() if (each / "config.json").exists())
    if not inner:
        return None
    return f"It holds checkpoints but is none itself. Give one of them: {', '.join(inner[-3:])}."


def _config_problems(folder: Path) -> list[str]:
    path = folder / "config.json"
    config = _read_json(path)
    if isinstance(config, str):
        return [config]
    if not isinstance(config, dict) or "model_type" not in config:
        return ["Its config.json names no model_type, so it is no transformers config. " + _DOWNLOAD_AGAIN]
    return []


def _weight_problems(folder: Path) -> list[str]:
    if (folder / _WEIGHTS).exists():
        header = _safetensors_header(folder / _WEIGHTS)
        return [header] if isinstance(header, str) else []
    if (folder / _INDEX).exists():
        return _shard_problems(folder)
    if sorted(folder.glob("pytorch_model*.bin")):
        return [
            "Its weights are pickled (pytorch_model.bin); only safetensors are read. Convert it once: load "
            "it with transformers and call `save_pretrained`."
        ]
    return [f"It has no weights: neither {_WEIGHTS} nor {_INDEX} is there. {_DOWNLOAD_AGAIN}"]


def _shard_problems(folder: Path) -> list[str]:
    weight_map = _read_index(folder / _INDEX)
    if isinstance(weight_map, str):
        return [weight_map]
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if not (folder / shard).exists()]
    if missing:
        return [
            f"{len(missing)} of its {len(shards)} shards are missing: {_some(missing)}. {_DOWNLOAD_AGAIN}"
        ]
    problems, tensors = [], set()
    for shard in shards:
        header = _safetensors_header(folder / shard)
        if isinstance(header, str):
            problems.append(header)
        else:
            tensors |= {(name, shard) for name in header}
    if absent := [] if problems else sorted(set(weight_map.items()) - tensors):
        problems.append(
            f"Its shards lack {len(absent)} tensors of the index, e.g. {absent[0][0]}. {_DOWNLOAD_AGAIN}"
        )
    return problems


def _tokenizer_problems(folder: Path) -> list[str]:
    for names in _TOKENIZERS:
        if all((folder / name).exists() for name in names):
            found = [_read_json(folder / name) for name in names if name.endswith(".json")]
            return [each for each in found if isinstance(each, str)]
    return [
        "It has no tokenizer (tokenizer.json). Copy the tokenizer files of the model it was made from into "
        "the folder."
    ]


def _read_index(path: Path) -> dict[str, str] | str:
    index = _read_json(path)
    if isinstance(index, str):
        return index
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        return f"Its {path.name} has no weight_map. {_DOWNLOAD_AGAIN}"
    outside = [
        shard for shard in weight_map.values() if not isinstance(shard, str) or Path(shard).name != shard
    ]
    if outside:
        return f"Its {path.name} names a file outside the folder: {outside[0]!r}. {_DOWNLOAD_AGAIN}"
    return weight_map


def _read_json(path: Path) -> Any:
    """Return the file's JSON, never a bare str; a str is the reason why there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        link = " is a link to nowhere" if path.is_symlink() else " is missing"
        return f"Its {path.name}{link}. {_DOWNLOAD_AGAIN}"
    except OSError as error:
        return f"Its {path.name} cannot be read: {error.strerror}."
    if text.startswith(_LFS_POINTER):
        return _lfs(path)
    try:
        found = jsonl.loads(text)
    except ValueError:
        return f"Its {path.name} is cut short or damaged (no JSON). {_DOWNLOAD_AGAIN}"
    return None if isinstance(found, str) else found


def _safetensors_header(path: Path) -> dict[str, Any] | str:
    """Return {tensor: its entry}, or the reason why the file is not whole.

    The layout: 8 bytes with the header's length N, little-endian; N bytes of JSON; the tensors' bytes, whose
    offsets the header gives relative to 8 + N.
    """
    if not path.exists():  # the name is there, as a link
        return f"Its {path.name} is a link to nowhere. {_DOWNLOAD_AGAIN}"
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            return _lfs(path)
        length = struct.unpack("<Q", start[:8])[0] if size >= 8 else size
        if 8 + length > size:
            return _cut(path, size, 8 + length)
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            return f"Its {path.name} has a damaged header. {_DOWNLOAD_AGAIN}"
    return tensors if size == end else _cut(path, size, end)


def _cut(path: Path, size: int, expected: int) -> str:
    what = "is cut short" if size < expected else "is damaged"
    return (
        f"Its {path.name} {what}: it has {size:,} bytes, its header speaks of {expected:,}. {_DOWNLOAD_AGAIN}"
    )


def _lfs(path: Path) -> str:
    return f"Its {path.name} is a git-lfs pointer, not the file. Run `git lfs pull` in that folder."


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
