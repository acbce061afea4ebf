"""Names of repositories and revisions, by the rules of the Hub and of git; used by publishing and by resolving.

A repository is ``org/name``. A revision is a branch, a tag or a commit; git's rules are those of
https://git-scm.com/docs/git-check-ref-format.
"""

from __future__ import annotations

import re

from ashnets.errors import ConfigurationError

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST = 255  # bytes of a part: the cache keeps a file of that name


def repository_problem(name: str) -> str | None:
    """The problem with a repository id; None for a valid one."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if name.count("/") != 1:
        return "write org/name, with your user or organization"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return str(error)
    return None


def revision_problem(name: str) -> str | None:
    """The problem with the name of a branch or tag by git's rules; None for a valid one. Commits are valid too."""
    if not name:
        return "it is empty"
    if found := _FORBIDDEN.search(name):
        return f"git does not allow {found[0]!r} in a name"
    parts = name.split("/")
    if not all(parts) or name.startswith("-"):
        return "it must not begin or end with '/', nor begin with '-'"
    if name == "@" or name.endswith("."):
        return "git does not allow '@' alone, nor a '.' at the end"
    if any(part.startswith(".") or part.endswith(".lock") for part in parts):
        return "no part of it may begin with '.' or end with '.lock'"
    if any(len(part.encode(errors="surrogatepass")) > _LONGEST for part in parts):
        return f"a part of it is longer than {_LONGEST} bytes"
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "it is not valid Unicode"
    return None


def check_repository(name: str) -> None:
    """Raises ConfigurationError with the reason if ``name`` cannot be a repository."""
    if problem := repository_problem(name):
        raise ConfigurationError(f"repository {name!r}: {problem}")


def check_revision(name: str) -> None:
    """Raises ConfigurationError with the reason if ``name`` cannot be a branch, a tag or a commit."""
    if problem := revision_problem(name):
        raise ConfigurationError(f"revision {name!r}: {problem}; choose another name, such as v1")


def check_tag(name: str) -> None:
    """Raises ConfigurationError with the reason if ``name`` is not a valid revision or has another meaning already."""
    problem = revision_problem(name)
    if name in ("HEAD", "main") or name.startswith("refs/") or _COMMIT.fullmatch(name):
        problem = "this name already means a branch, a reference or a commit"
    if problem:
        raise ConfigurationError(f"tag {name!r}: {problem}; choose another name, such as v1")


def split_repository(text: str) -> tuple[str, str | None] | None:
    """``org/name[@revision]`` in its two parts, or None if it cannot be the name of a repository.

    The revision is not checked: see :func:`check_revision`.
    """
    repository, at, revision = text.partition("@")
    return None if repository_problem(repository) else (repository, revision if at else None)
