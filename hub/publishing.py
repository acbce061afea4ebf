"""Publish a trained model on the Hub: check it, send it in one commit, tag the commit, and load it back.

Running it again is safe at any point: files that are uploaded already are not sent again, an unchanged folder makes no
commit, and a tag of the same files stays. A tag of other files is refused before anything is sent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ashnets.digests import weights_digest
from ashnets.errors import AshNetsError, ConfigurationError, UnknownModelError, WeightsError
from ashnets.files import JsonObject, replaced_weights, write_atomically
from ashnets.hub.belonging import own_energy, own_exports, own_results
from ashnets.hub.benchmarks import FILE as BENCHMARK_FILE
from ashnets.hub.benchmarks import benchmark_results, read_benchmark
from ashnets.hub.cards import Subject, bundled_energy, bundled_results, card, eval_results, read_record
from ashnets.hub.checks import Check, check_model, differences, model_folder, warnings_of
from ashnets.hub.emissions import read_emissions
from ashnets.hub.fetching import FILES, digest, fetch
from ashnets.hub.licenses import license_problem
from ashnets.hub.loading import from_pretrained
from ashnets.hub.names import check_repository, check_tag
from ashnets.hub.remote import Content, digests, remote_files, size
from ashnets.hub.resolving import resolve
from ashnets.hub.spaces import refuse_public, send_space, space_files, summary
from ashnets.zoo.names import split
from ashnets.zoo.registry import ROOT, config_of, entry, is_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# The files of a model folder that are uploaded: those that loading needs, and the record of the training.
PUBLISHED = (*FILES, "recipe.yaml", "log.jsonl", "merges.txt", "LICENSE*", "NOTICE*")
DRAFTS = Path("out/publish")
# Folders of the repository that publishing owns: files in them that are not published again are removed.
OWN = ("results/", "exports/", ".eval_results/")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The files of a publication and their checks.

    Attributes:
        folder: of the model.
        repository, tag: the target, and the name of this state there.
        files: path in the repository → a local file, or the content itself.
        left_out: files of the folder that are not uploaded.
        checks: the checks and their results.
        license: of the weights, as given.
    """

    folder: Path
    repository: str
    tag: str | None
    files: dict[str, Content]
    left_out: list[str]
    checks: list[Check]
    license: str

    def to_dict(self) -> JsonObject:
        """For JSON."""
        return {
            "repository": self.repository,
            "tag": self.tag,
            "folder": str(self.folder),
            "files": {path: size(content) for path, content in sorted(self.files.items())},
            "left_out": self.left_out,
            "checks": [check.to_dict() for check in self.checks],
            **warnings_of(self.checks),
        }


def publish(
    source: str | Path,
    repository: str,
    *,
    tag: str | None = None,
    space: str | None = None,
    private: bool = False,
    dry_run: bool = False,
    drafts: Path = DRAFTS,
    token: str | bool | None = None,
    report: Report = lambda line: None,
    **words: Any,
) -> JsonObject:
    """Publish the model of a run, a folder or a registry name.

        ashnets.publish("runs/mine", "me/ashnets-birds", license="cc-by-4.0", dry_run=True)

    Args:
        source: the folder of a finished run, a folder that ``save_pretrained`` wrote, or a registry name with weights.
        repository: ``org/name``; created if it does not exist.
        tag: a name for this state; a tag never moves.
        space: ``org/name`` of a Space that runs the app on what was published; created if it does not exist.
        private: make the repository and the Space private; existing public ones are refused. Of a private model, the
            Space needs the secret HF_TOKEN.
        dry_run: check and plan; nothing is sent. Generated files, such as the card, are written to ``drafts/ORG/NAME``,
            and those of the Space to ``drafts/spaces/ORG/NAME``.
        drafts: the folder for them.
        report: receives a line of text for each step.
        words: see :func:`plan`.

    Returns:
        The plan; and, if something was sent, ``commit``, ``url`` and ``verified``; ``space`` with the Space's own.

    Raises:
        WeightsError: a check failed, or the model that was loaded back differs from the one that was sent.
        ConfigurationError: an invalid name, no license, two files of one name, or a tag that exists with other files.
        AshNetsError: the Hub refused, or the connection was lost.
    """
    if space is not None:
        check_repository(space)
    report("checking")
    planned = plan(source, repository, tag=tag, token=token, **words)
    if failed := [check for check in planned.checks if not check.passed]:
        problems = " · ".join(f"{check.name}: {check.found}" for check in failed)
        raise WeightsError(f"{planned.folder} cannot be published. {problems}")
    # before the model is sent: the files of the Space need Gradio, for whatever commit
    app = {} if space is None else space_files(space, f"{repository}@{tag or 'main'}", planned.license)
    if dry_run:
        written = _write_drafts(planned.files, drafts / repository)
        found: JsonObject = {**planned.to_dict(), "dry_run": True, "drafts": written}
        if space is not None:
            written += _write_drafts(app, drafts / "spaces" / space)
            found["space"] = summary(space, app)
        return found
    from huggingface_hub import HfApi, constants

    api = HfApi(token=token, library_name="ashnets")
    if space is not None and private:
        with _hub_errors(space):
            refuse_public(api, space)
    with _hub_errors(repository):
        commit = _send(api, planned, private, report)
    report("loading it back")
    _load_back(planned, commit, token)
    found = {
        **planned.to_dict(),
        "dry_run": False,
        "commit": commit,
        "url": f"{constants.ENDPOINT}/{repository}",
        "verified": True,
    }
    if space is not None:
        app = space_files(space, f"{repository}@{commit}", planned.license)
        report(f"sending {len(app)} files to the Space {space}")
        with _hub_errors(space):
            sent = send_space(api, space, app, private)
        found["space"] = {**sent, "url": f"{constants.ENDPOINT}/spaces/{space}"}
    return found


def plan(
    source: str | Path,
    repository: str,
    *,
    tag: str | None = None,
    license: str | None = None,
    training_data: str | None = None,
    dataset: str | None = None,
    benchmark: str | None = None,
    results: Sequence[Path] = (),
    energy: Path | None = None,
    exports: Path | None = None,
    token: str | bool | None = None,
) -> Plan:
    """Check a model and plan its repository; nothing is sent.

    Args:
        license: of the weights, as the Hub names it, such as ``apache-2.0``, or ``other:NAME``; the registry has the
            license of its own models.
        training_data: a sentence for the card; the registry has one for its own models.
        dataset: the Hub's id of the corpus of training and results, ``org/name``; the card names it.
        benchmark: the Hub's id of a benchmark that ``results`` were measured on; they are then
            also written to ``.eval_results``. Its tasks are read from the Hub.
        results: CSV files that ``ashnets evaluate --output`` wrote; their rows about these weights go into the card.
        energy: the ``energy.json`` that ``ashnets energy --output`` wrote about these weights.
        exports: a folder of exported graphs of these weights, uploaded as ``exports/``.
    """
    check_repository(repository)
    _refuse_equal_names([*results, *([energy] if energy else [])])
    if tag is not None:
        check_tag(tag)
    folder, run = model_folder(Path(resolve(source if isinstance(source, str) else str(source))))
    weights = entry(split(str(source)).model).weights if is_name(source) else None
    if weights and split(str(source)).tag:
        weights = entry(str(source)).weights
    license = license or (weights.license if weights else None)
    record = read_record(folder) or {}
    architecture = split(str(record.get("model", ""))).model
    architecture = architecture if is_name(architecture) else ""
    own = weights_digest(folder)
    rows = [row for file in results for row in own_results(file, folder, own)]
    files, left_out = _of_folder(folder)
    files.update({f"results/{file.name}": file for file in results})
    if weights and not results:
        rows = bundled_results(weights)
        files[f"results/{weights.results.name}"] = weights.results
    joules = own_energy(energy, folder, own) if energy else bundled_energy(architecture, weights) if weights else []
    if energy:
        files[f"results/{energy.name}"] = energy
    if exports is not None:
        files.update(own_exports(exports, folder, own))
    problem = license_problem(license, folder, pinned=_is_pinned(source, folder))
    checks = [*check_model(folder), Check("license", problem is None, problem or str(license))]
    if all(check.passed for check in checks):
        subject = Subject(
            title=repository.rpartition("/")[2],
            source=repository if tag is None else f"{repository}@{tag}",
            config=config_of(folder),
            architecture=architecture or None,
            license=license or "",
            training_data=training_data or (weights.training_data if weights else None),
            record=record or None,
            results=rows,
            energy=joules,
            emissions=read_emissions(run, folder),
            dataset=dataset,
            benchmark=read_benchmark(benchmark, token) if benchmark else None,
            files=sorted(files),
        )
        files["README.md"] = card(subject).encode()
        if subject.benchmark:
            files[BENCHMARK_FILE] = benchmark_results(subject.benchmark, eval_results(subject, chief=True)).encode()
    return Plan(folder, repository, tag, files, left_out, checks, license or "")


def _is_pinned(source: str | Path, folder: Path) -> bool:
    """Whether the files of a folder are pinned: those of the package and of the Hub."""
    return is_name(source) or not Path(source).is_dir() or folder.resolve().is_relative_to(ROOT)


def _refuse_equal_names(files: Iterable[Path]) -> None:
    """Refuse files that would become one file of ``results/``."""
    known: dict[str, Path] = {}
    for file in files:
        if file.name in known:
            raise ConfigurationError(
                f"{known[file.name]} and {file} would both become results/{file.name}: rename one of them"
            )
        known[file.name] = file


def _write_drafts(files: dict[str, Content], folder: Path) -> list[str]:
    """Write the generated files to ``folder``; returns their paths."""
    made = {path: content for path, content in files.items() if isinstance(content, bytes)}
    return [str(write_atomically(folder / path, content)) for path, content in sorted(made.items())]


def _of_folder(folder: Path) -> tuple[dict[str, Content], list[str]]:
    files: dict[str, Content] = {}
    left_out = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(path.match(pattern) for pattern in PUBLISHED):
            files[path.name] = path
        else:
            left_out.append(path.name)
    return files, left_out


def _send(api: HfApi, planned: Plan, private: bool, report: Report) -> str:
    """Create repository, commit and tag; returns the commit's id."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repository = planned.repository
    api.create_repo(repository, private=private or None, exist_ok=True)
    if private and not api.model_info(repository).private:
        raise ConfigurationError(
            f"{repository} exists and is public, so it cannot be published as --private; choose another name"
        )
    tagged = _tagged(api, planned)
    head = next(ref.target_commit for ref in api.list_repo_refs(repository).branches if ref.name == "main")
    present = remote_files(api, repository, head)
    stale = [path for path in present if path not in planned.files and path.startswith(OWN)]
    stale += replaced_weights(present, planned.files)
    report(f"sending {len(planned.files)} files to {repository}")
    adds = [CommitOperationAdd(path, content) for path, content in sorted(planned.files.items())]
    commit = api.create_commit(
        repository,
        [*adds, *(CommitOperationDelete(path) for path in stale)],
        commit_message=f"ashnets {planned.tag}" if planned.tag else "ashnets",
        parent_commit=head,
    ).oid
    if planned.tag is not None and tagged is None:
        api.create_tag(repository, tag=planned.tag, revision=commit)
    return commit


def _tagged(api: HfApi, planned: Plan) -> str | None:
    """The commit of an existing tag with the same files; None if there is no such tag."""
    if planned.tag is None:
        return None
    refs = api.list_repo_refs(planned.repository)
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    inside = [other for other in tags if other.startswith(f"{planned.tag}/") or planned.tag.startswith(f"{other}/")]
    if taken := inside + [ref.name for ref in refs.branches if ref.name == planned.tag]:
        raise ConfigurationError(
            f"{planned.repository} already has {taken[0]!r}, so git does not allow a tag {planned.tag!r}: "
            "choose another one"
        )
    commit = tags.get(planned.tag)
    if commit is not None:
        there = remote_files(api, planned.repository, commit)
        for path, content in planned.files.items():
            if there.get(path) not in digests(content):
                raise ConfigurationError(
                    f"{planned.repository} has a tag {planned.tag!r} with another {path}; tags do not move: choose "
                    "another name, or delete the tag on the Hub"
                )
    return commit


def _load_back(planned: Plan, commit: str, token: str | bool | None) -> None:
    """Fetch the commit into a fresh cache and compare: files by SHA-256, tensors and outputs to the bit."""
    pins = {
        path: digest(content)
        for path, content in planned.files.items()
        if isinstance(content, Path) and "/" not in path and any(content.match(pattern) for pattern in FILES)
    }
    with tempfile.TemporaryDirectory(prefix="ashnets-verify-") as cache:
        try:
            folder = fetch(planned.repository, commit, pins=pins, token=token, cache_dir=cache)
        except UnknownModelError as error:
            raise AshNetsError(
                f"{planned.repository} was published as {commit}, but could not be loaded back ({error}); "
                "run the same command again to check it"
            ) from None
        different = differences(from_pretrained(planned.folder), from_pretrained(folder))
    if different:
        raise WeightsError(f"{planned.repository} at {commit} differs from what was sent: {'; '.join(different)}")


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    from huggingface_hub import errors

    again = "run the same command again: files that were sent are not sent twice"
    try:
        yield
    except AshNetsError:
        raise
    except errors.RepositoryNotFoundError:
        raise AshNetsError(f"{repository} cannot be written: log in with `hf auth login`, or set HF_TOKEN") from None
    except errors.OfflineModeIsEnabled:
        raise AshNetsError(f"{repository} cannot be published offline: unset HF_HUB_OFFLINE") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise AshNetsError(
                f"{repository} cannot be written ({status}): the token has no write access to it; "
                "create one with write access in the settings of the Hub"
            ) from None
        if status == 412:
            raise AshNetsError(f"{repository} was changed by somebody else at the same time; {again}") from None
        raise AshNetsError(f"{repository}: the Hub failed ({_line(error)}); {again}") from error
    except Exception as error:  # of httpx, of a thread, of the system, or a card that is refused
        raise AshNetsError(f"{repository}: publishing stopped ({_line(error.__cause__ or error)}); {again}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
