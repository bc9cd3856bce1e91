"""A folder of files up to the Hub, or to what answers at HF_ENDPOINT like it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from scratchpad_rag.errors import UserError

# The base of all errors of the HTTP library that huggingface_hub uses, whichever that is.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]


class Destination(NamedTuple):
    """A repository of the Hub; `private` is asked of a new one and required of an old one."""

    repo_id: str
    private: bool


def require_destination(destination: Destination) -> None:
    """Refuse a name that no repository can have, and a push without a token."""
    try:
        validate_repo_id(destination.repo_id)
    except HFValidationError as error:
        raise UserError(f"--push_to_hub {destination.repo_id}: {_line(error)}") from error
    if get_token() is None:
        raise UserError("--push_to_hub needs a token; set HF_TOKEN, or run: hf auth login")


def push(folder: Path, destination: Destination) -> str:
    """Upload every file of a folder in one commit; returns the repository's address.

    Raises UserError where the Hub refuses or cannot be reached.
    """
    api = HfApi()
    try:
        repo = api.create_repo(
            destination.repo_id, private=destination.private or None, exist_ok=True
        )
        # One that was there before keeps what it was.
        if destination.private and not api.repo_info(repo.repo_id).private:
            raise UserError(f"{repo.repo_id} is public, and --private was asked for")
        api.upload_folder(
            repo_id=repo.repo_id,
            folder_path=folder,
            commit_message="Upload a reader exported by scratchpad-rag",
        )
    except (_HTTP_ERROR, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot upload to {destination.repo_id}: {_line(error)}") from error
    return str(repo)


def _line(error: Exception) -> str:
    """One line of what the Hub says; the cause where the library only says that it failed."""
    told = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    return " ".join(str(told).split())[:300]
