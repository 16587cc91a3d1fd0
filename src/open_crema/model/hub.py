"""The Hugging Face hub: a repository down to a local folder, a folder up to a repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from open_crema.errors import WeightsError

# The files of a model and of an adapter; nothing else goes up or comes down.
KNOWN = (
    "README.md",
    "config.json",
    "run.yaml",
    "qformer.safetensors",
    "fusion.safetensors",
    "adapter.safetensors",
    "adapters/*/adapter.safetensors",
    "adapters/*/config.json",
)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w", re.ASCII)


def local(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a saved model or adapter: itself, or the download of a hub repository.

    Raises WeightsError where the repository cannot be had.
    """
    if Path(source).exists() or not isinstance(source, str) or not _ID.fullmatch(source):
        if revision is not None:
            raise WeightsError(f"{source}: is a folder; a revision is of a hub repository")
        return Path(source)
    from huggingface_hub import snapshot_download

    at = f" at {revision}" if revision else ""
    with _named(f"{source}: is no folder, and cannot be had from the hub{at}"):
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(KNOWN)))


def upload(
    folder: Path,
    repository: str,
    *,
    private: bool,
    revision: str | None,
    message: str,
    token: str | None,
) -> str:
    """Puts the known files of a folder into a repository, which is made where it is missing;
    known files that the folder does not have go. Returns the commit's address."""
    from huggingface_hub import HfApi

    if not _ID.fullmatch(repository):
        raise WeightsError(f"{repository!r} is no repository of the hub: write user/name")
    with _named(f"{repository}: cannot be pushed"):
        api = HfApi(token=token, library_name="open-crema")
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=list(KNOWN),
            delete_patterns=[k for k in KNOWN if k != "README.md"],
        )
        return str(done.commit_url)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever the client raises becomes one line of ours that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError, RuntimeError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        first = " ".join(str(error).split()) or type(error).__name__
        causes = [error, error.__cause__, error.__context__]
        gated = any(isinstance(c, errors.GatedRepoError) for c in causes)
        codes = [getattr(getattr(c, "response", None), "status_code", None) for c in causes]
        if isinstance(error, errors.RevisionNotFoundError):
            said = "it has no such revision"
        elif gated or 401 in codes or 403 in codes:
            said = "no access; log in with `hf auth login`, or give a token that may"
        elif isinstance(error, errors.RepositoryNotFoundError):
            said = "no such repository, or a private one: check the name, or `hf auth login`"
        elif any(isinstance(c, errors.OfflineModeIsEnabled) for c in causes):
            said = "the hub is switched off (HF_HUB_OFFLINE) and it is not in the cache"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            said = f"the hub cannot be reached and it is not in the cache ({first[:200]})"
        elif isinstance(error, errors.HTTPError) and codes[0] is None:  # type: ignore[attr-defined]
            said = f"the hub cannot be reached ({first[:200]}); check the network"
        else:
            said = first[:300]
        raise WeightsError(f"{what}: {said}") from None
