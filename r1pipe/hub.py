"""Models named by their id on the Hugging Face hub."""

import re
from pathlib import Path

from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.fingerprint import sha256_of

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # no pickled weights, no code


def is_hub_id(value: str) -> bool:
    """Whether `value` reads as `org/name[@revision]`.

    A path that exists always comes first, and in a folder that exists, such as `runs`, `runs/bse` is a path
    that does not. With a revision it can only be an id.
    """
    if _ID.fullmatch(value) is None or Path(value).exists():
        return False
    return "@" in value or not Path(value).parent.is_dir()


def hub_fingerprint(value: str) -> str:
    """Return a fingerprint of the id and its revision, as written: planning asks no network.

    A branch such as `main` may move; what was used is the commit that the manifest records.
    """
    name, _, revision = value.partition("@")
    return sha256_of(["hub", name, revision or "main"])


def fetch_model(value: str) -> Path:
    """Download `org/name[@revision]`, or find it among what was downloaded before; return its folder.

    The folder's name is the commit. Raises `UsageError` when there is no such model or revision, and
    `EnvironmentUnfit` when the hub cannot be reached and the model is not on this machine.
    """
    from huggingface_hub import errors, snapshot_download

    name, _, revision = value.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=_FILES))
    except errors.HFValidationError as error:
        raise UsageError(f"{name!r} is no id of the Hugging Face hub: {error}") from error
    except errors.GatedRepoError as error:
        raise UsageError(
            f"The model {name} is gated. Accept its terms at https://huggingface.co/{name}, "
            "then log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"There is no model {name!r} on the Hugging Face hub, or it is private. Check the spelling; "
            f"log in with `hf auth login` for a private one; write './{name}' for a folder."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"The model {name} has no revision {revision!r}. Give a branch, a tag or a commit."
        ) from error
    except OSError as error:
        raise EnvironmentUnfit(
            f"The model {value} is not on this machine, and the Hugging Face hub cannot be reached. Check "
            f"the network and HF_HUB_OFFLINE, or get it by hand (`hf download {name}`) and give its folder."
        ) from error
