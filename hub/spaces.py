"""A Space of the Hub that runs ``ashnets app`` on a published model.

The Space holds the package itself, since no package index has it, and fetches the model at one commit.
"""

from __future__ import annotations

import sys
from importlib import resources
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ashnets.errors import ConfigurationError, MissingExtraError, WeightsError
from ashnets.files import JsonObject
from ashnets.hub.licenses import license_fields
from ashnets.hub.remote import Content, digests, remote_files, size
from ashnets.words import install

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PACKAGE = "ashnets/"  # in the Space; files in it that are not sent again are removed
LEFT_OUT = ("__pycache__", "checkpoints")  # the model comes from its own repository
PORT = 7860  # where the Hub expects an app
SCRIPT = '''"""The app of ashnets on a published model."""

import ashnets

ashnets.app("{model}", host="0.0.0.0", port={port})
'''
CARD = """---
{metadata}---

# {title}

The model `{model}` in the browser: search images by text and by image, look at the spikes of an image, count its energy
and place it on a chip. The page is `ashnets app`. Uploads are deleted after an hour.
"""


def space_files(space: str, model: str, license: str) -> dict[str, Content]:
    """Path in the Space → a local file, or the content itself.

    Args:
        space: ``org/name``.
        model: the published model, ``org/name@revision``.
        license: of the model; the Space has the same.

    Raises:
        MissingExtraError: Gradio, whose version the Space needs, or this package itself is not installed.
    """
    try:
        gradio, needed = version("gradio"), _requirements()
    except PackageNotFoundError as error:
        raise MissingExtraError(
            f"a Space needs the versions that pip records, and {error.name} is not installed: {install('app')}"
        ) from None
    about = {
        "title": space.rpartition("/")[2],
        "sdk": "gradio",
        "sdk_version": gradio,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "models": [model.partition("@")[0]],
        **license_fields(license),
    }
    text = CARD.format(metadata=yaml.safe_dump(about, sort_keys=False), title=about["title"], model=model)
    script = SCRIPT.format(model=model, port=PORT)
    made = {"README.md": text, "app.py": script, "requirements.txt": "\n".join(needed) + "\n"}
    return {**_package(), **{path: content.encode() for path, content in made.items()}}


def refuse_public(api: HfApi, space: str) -> None:
    """Raises ConfigurationError if a Space exists and is public."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private = api.space_info(space).private
    except RepositoryNotFoundError:
        return
    if not private:
        raise ConfigurationError(
            f"the Space {space} exists and is public, so it cannot be published as --private; choose another name"
        )


def send_space(api: HfApi, space: str, files: dict[str, Content], private: bool) -> JsonObject:
    """Create the Space if it does not exist, send its files in one commit, and compare what is there.

    Returns:
        ``repository``, ``commit``, ``files`` and ``bytes``.

    Raises:
        WeightsError: the Hub has other files than those that were sent.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(space, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
    present = remote_files(api, space, "main", "space")
    stale = [path for path in present if path not in files and path.startswith(PACKAGE)]
    adds = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
    commit = api.create_commit(
        space,
        [*adds, *(CommitOperationDelete(path) for path in stale)],
        commit_message="ashnets app",
        repo_type="space",
    ).oid
    there = remote_files(api, space, commit, "space")
    if wrong := [path for path, content in files.items() if there.get(path) not in digests(content)]:
        raise WeightsError(f"the Space {space} at {commit} has another {wrong[0]} than was sent: publish it again")
    return {"commit": commit, **summary(space, files)}


def summary(space: str, files: dict[str, Content]) -> JsonObject:
    """For JSON."""
    return {"repository": space, "files": len(files), "bytes": sum(map(size, files.values()))}


def _package() -> dict[str, Content]:
    """The files of the package; zoo, export and hub are links in a checkout, which are followed."""
    found: dict[str, Content] = {}
    root = Path(str(resources.files("ashnets")))
    pending = [root]
    while pending:
        for path in pending.pop().iterdir():
            if path.name.startswith(".") or path.name in LEFT_OUT:
                continue
            if path.is_dir():
                pending.append(path)
            else:
                found[PACKAGE + path.relative_to(root).as_posix()] = path
    return found


def _requirements() -> list[str]:
    """What the package and its app require, without the other extras."""
    lines = (line.partition(";") for line in requires("ashnets") or ())
    return [name.strip() for name, _, marker in lines if "extra" not in marker or 'extra == "app"' in marker]
