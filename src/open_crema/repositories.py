"""Repositories of the Hugging Face hub: their files here, and errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from open_crema.errors import WeightsError

ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*\w", re.ASCII)


def snapshot(repository: str, patterns: Sequence[str], *, revision: str | None = None) -> Path:
    """The local folder of a repository's files of these patterns, which are downloaded to the hub's
    cache where they are not there. Raises WeightsError where they cannot be had."""
    from huggingface_hub import snapshot_download

    at = f" at {revision}" if revision else ""
    with named(f"{repository}: is no folder, and cannot be had from the hub{at}"):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


@contextmanager
def named(what: str) -> Iterator[None]:
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
