"""The README.md of a dataset's folder."""

from pathlib import Path

from r1pipe import jsonl
from r1pipe.manifest import Manifest


def dataset_card(folder: Path, manifest: Manifest) -> str:
    """Return the README.md of a dataset's folder.

    Its header makes `datasets.load_dataset(folder)` read the parts and nothing else: by default the library
    would take every .jsonl and .json of the folder, rejects and manifest included.
    """
    rows = sum(1 for _ in jsonl.iter_rows(folder))
    made_from = (
        "".join(f"- {parent.role}: {parent.name}\n" for parent in manifest.parents) or "- nothing else\n"
    )
    others = sorted(path.name for path in folder.glob("*.jsonl") if not path.name.startswith("part-"))
    beside = f"\nBeside the rows, not loaded with them: {', '.join(others)}.\n" if others else ""
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: part-*.jsonl
---
# {manifest.stage}

{rows:,} rows, made by stage `{manifest.stage}` (`{manifest.verb}`) of r1pipe {manifest.code_version}.
Fingerprint `{manifest.fingerprint}`, seed {manifest.seed}.

```python
datasets.load_dataset("path/of/this/folder", split="train")
```

Made from:

{made_from}{beside}"""
