"""The files of a repository on the Hub by their digests, to compare with those that are sent."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ashnets.hub.fetching import digest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Content = Path | bytes  # a local file, or the content itself


def remote_files(api: HfApi, repository: str, revision: str, kind: str = "model") -> dict[str, str]:
    """Path → digest, for every file of a revision; SHA-256 of large files, git's name of others."""
    from huggingface_hub import RepoFile

    tree = api.list_repo_tree(repository, recursive=True, revision=revision, repo_type=kind)
    return {one.path: one.lfs.sha256 if one.lfs else one.blob_id for one in tree if isinstance(one, RepoFile)}


def digests(content: Content) -> tuple[str, str]:
    """SHA-256 and git's name."""
    if isinstance(content, Path):
        return digest(content), digest(content, "git")
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / "content"
        file.write_bytes(content)
        return digests(file)


def size(content: Content) -> int:
    """Bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size
