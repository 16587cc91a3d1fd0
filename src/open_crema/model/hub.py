"""The Hugging Face hub: a repository down to a local folder, a folder up to a repository."""

from __future__ import annotations

from pathlib import Path

from open_crema.errors import WeightsError
from open_crema.repositories import ID, named, snapshot

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


def local(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a saved model or adapter: itself, or the download of a hub repository.

    Raises WeightsError where the repository cannot be had.
    """
    if Path(source).exists() or not isinstance(source, str) or not ID.fullmatch(source):
        if revision is not None:
            raise WeightsError(f"{source}: is a folder; a revision is of a hub repository")
        return Path(source)
    return snapshot(source, KNOWN, revision=revision)


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

    if not ID.fullmatch(repository):
        raise WeightsError(f"{repository!r} is no repository of the hub: write user/name")
    with named(f"{repository}: cannot be pushed"):
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
