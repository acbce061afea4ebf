"""The command line: exit codes, messages, help, JSON. Other tests cover the work of the commands."""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from rich.console import Console

import ashnets
from ashnets import errors
from ashnets.cli import app, completing, main
from ashnets.cli.printing import as_text
from ashnets.data.benchmarks import BENCHMARKS
from ashnets.data.pictograms.tasks import PICTOGRAM_TASKS
from ashnets.export.energy.profiles import TEMPLATE, profile_names
from ashnets.export.exporting import FORMATS
from ashnets.tasks.registry import TASKS
from tests.docs.written import command_lines, documents

ROOT = typer.main.get_command(app)


def leaves(
    command: typer.core.TyperCommand | typer.core.TyperGroup, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The words of every command that does some work."""
    if not isinstance(command, typer.core.TyperGroup):
        yield words
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*words, name))


COMMANDS = sorted(leaves(ROOT))


def run(*arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``ashnets arguments`` in another process, after ``code``."""
    program = (
        f"import sys, time\nfrom ashnets import errors\nfrom ashnets.cli import app, main\n{code}\nsys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_the_commands_are_these() -> None:
    assert COMMANDS == [
        ("app",),
        ("ask",),
        ("compare",),
        ("data", "check"),
        ("data", "gallery"),
        ("data", "pictograms"),
        ("data", "stamps"),
        ("demo",),
        ("describe",),
        ("energy",),
        ("evaluate",),
        ("experiment",),
        ("export",),
        ("finetune",),
        ("index",),
        ("list",),
        ("publish",),
        ("quantize",),
        ("search",),
        ("show",),
        ("train",),
        ("verify",),
    ]


FUNCTIONS = {"export": "export_encoder", "list": "list_models"}  # others have the name of their command
VERBS = sorted(FUNCTIONS.get(words[0], words[0]) for words in COMMANDS if len(words) == 1 and words != ("demo",))


@pytest.mark.parametrize("name", [*VERBS, "config_of", "create", "encode", "from_pretrained", "resolve"])
def test_a_command_is_a_function_with_an_example_that_fits_it(name: str) -> None:
    function = getattr(ashnets, name)
    assert inspect.isfunction(function) and function.__name__ == name
    assert find_spec(f"ashnets.{name}") is None, "once imported, the module would stand in the function's place"
    (line,) = re.findall(rf"^ +(ashnets\.{name}\(.*)$", function.__doc__, re.MULTILINE)
    calls = (node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call))
    call = next(node for node in calls if ast.unparse(node.func) == f"ashnets.{name}")
    inspect.signature(function).bind(*call.args, **{one.arg: one.value for one in call.keywords})


def test_the_face_shows_classes_functions_and_packages() -> None:
    assert {*VERBS, "AshNetsModel", "AshNetsProcessor", "AshNetsError", "export", "zoo"} <= set(dir(ashnets))
    for name in dir(ashnets):
        found = getattr(ashnets, name)
        assert inspect.isclass(found) or inspect.isfunction(found) or hasattr(found, "__path__"), name


def test_training_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    done = run("train", "tiny-pictograms", "--output", str(tmp_path), code="sys.modules['accelerate'] = None")
    assert (done.returncode, 'pip install -e ".[train]"' in done.stderr) == (7, True), done.stderr


def parse(words: list[str]) -> tuple[str, ...]:
    """Parse a command line without running it; returns the words of its command."""
    command, context, named = ROOT, ROOT.make_context("ashnets", list(words)), ()
    while isinstance(command, typer.core.TyperGroup):
        arguments = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, arguments)
        context, named = command.make_context(name, rest, parent=context), (*named, name)
    return named


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_examples_that_parse(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.strip() for line in text.partition("Examples:")[2].splitlines() if line.startswith("    ashnets ")]
    assert examples
    for example in examples:
        assert parse(shlex.split(example)[1:]) == words


def test_what_documents_type_parses(repository: Path) -> None:
    """Command lines of README, docs and the other documents, also inside sentences."""
    lines = [line for page in documents(repository) for line in command_lines(page.read_text(encoding="utf-8"))]
    ours = [line.partition("ashnets ")[2] for line in lines if re.match(r"(torchrun .*-m )?ashnets ", line)]
    assert len(ours) > 60
    for line in ours:
        assert parse(shlex.split(line, comments=True)), line


def test_root_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "ashnets demo" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ashnets 0.")


def test_what_is_offered_is_what_there_is() -> None:
    """The names exist twice, because completion must not load torch."""
    assert set(completing.TASKS) == set(TASKS)
    assert completing.FORMATS == FORMATS
    assert set(completing.BENCHMARKS) == set(BENCHMARKS)
    assert set(completing.PICTOGRAM_TASKS) == set(PICTOGRAM_TASKS)
    assert set(completing.profiles("")) == {*profile_names(every=True), TEMPLATE}


@pytest.mark.parametrize("command", ["app", "energy", "export", "compare", "verify", "publish", "describe", "quantize"])
def test_every_command_that_takes_a_model_offers_their_names(command: str) -> None:
    context = ROOT.commands[command].make_context(command, [], resilient_parsing=True)
    (argument,) = [one for one in context.command.params if isinstance(one, typer.core.TyperArgument)]
    assert "ashnets-tiny-ann" in [one.value for one in argument.shell_complete(context, "ashnets-tiny-a")]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("eval", ["evaluate"]),
        ("data ch", ["check"]),
        ("describe ashnets-tiny-a", ["ashnets-tiny-ann"]),
        ("evaluate ashnets-tiny-a", ["ashnets-tiny-ann"]),
        ("evaluate ashnets-tiny re", ["retrieval"]),
        ("train tiny-ann", ["tiny-ann-pictograms"]),
        ("finetune v", ["vqa", "ve"]),
        ("experiment table-1", ["table-10", "table-11", "table-12", "table-13", "table-14"]),
        ("export ashnets-tiny --to onnx-", ["onnx-sequence", "onnx-unrolled", "onnx-model"]),
        ("energy ashnets-tiny --profile loihi1-with", ["loihi1-with-a100"]),
        ("search hol", ["holidays"]),
        ("evaluate runs/", []),  # from here on the shell offers its files
    ],
)
def test_a_shell_is_offered_what_fits(typed: str, offered: list[str], tmp_path: Path) -> None:
    words = f"ashnets {typed}"
    (tmp_path / "indexes" / "holidays").mkdir(parents=True)
    (tmp_path / "indexes" / "holidays" / "index.json").write_text("{}")
    asked = {
        "_ASHNETS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "ASHNETS_CACHE": str(tmp_path),
    }
    done = run(**asked)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, offered, "")


def test_completion_can_be_installed() -> None:
    # which shell this runs in cannot always be found out, so it is said
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "ashnets", "--show-completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "complete -o default -F" in done.stdout


WITHOUT_TORCH = [
    ["--help"],
    ["--version"],
    ["list"],
    ["list", "--numbers"],
    *([*words, "--help"] for words in COMMANDS),
]


def test_what_needs_no_torch_loads_none() -> None:
    """One process for all commands: a module that one command loads would be loaded for the next."""
    code = "import sys\nfrom ashnets.cli import main\n"
    for words in WITHOUT_TORCH:
        code += f"assert main({words!r}) == 0\nassert not {{'torch', 'transformers'}} & {{*sys.modules}}, {words!r}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["bogus"],
        ["describe"],
        ["list", "--bogus"],
        ["data", "pictograms", "--size", "big"],
        ["evaluate", "ashnets-tiny"],
        ["evaluate", "ashnets-tiny", "retrieval"],
    ],
)
def test_wrong_usage_is_2_and_names_the_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "-h' for help" in err


def test_an_unknown_model_is_6_and_names_the_nearest() -> None:
    done = run("describe", "ashnets-tyni")
    assert done.returncode == 6
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "ashnets-tiny" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "named"),
    [
        (["train", "no-such-recipe", "--output", "run"], 2, "no-such-recipe"),
        (["evaluate", "ashnets-tiny", "retrieval", "no-such-corpus", "--split", "test"], 4, "no-such-corpus"),
        (["evaluate", "ashnets-tiny", "retrieval", "no-such-corpus"], 4, "no-such-corpus"),
        (["evaluate", "ashnets-tiny", "no-such-task", "no-such-corpus"], 2, "no-such-task"),
        (["evaluate", "ashnets-tiny", "vqa", "no-such-folder"], 2, "--dataset"),
        (["finetune", "vqa", "no-such-recipe", "--data", ".", "--output", "run"], 2, "no-such-recipe"),
        (["data", "gallery", "--corpus", "no-such-corpus", "--output", "gallery"], 4, "no-such-corpus"),
    ],
)
def test_what_is_missing_is_named(
    words: list[str],
    exit_code: int,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == exit_code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert named in err
    assert list(tmp_path.iterdir()) == []


def error_classes(base: type[errors.AshNetsError] = errors.AshNetsError) -> Iterator[type[errors.AshNetsError]]:
    yield base
    for below in base.__subclasses__():
        yield from error_classes(below)


def test_each_error_has_an_exit_code_of_its_own() -> None:
    codes = [one.exit_code for one in error_classes()]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes


RAISE = """
@app.command("fail")
def fail(name: str) -> None:
    raise getattr(errors, name)("the message")
"""


@pytest.mark.parametrize("kind", ["WeightsError", "MissingExtraError"])
def test_errors_print_their_message_alone(kind: str) -> None:
    done = run("fail", kind, code=RAISE)
    assert (done.returncode, done.stdout, done.stderr) == (getattr(errors, kind).exit_code, "", "error: the message\n")


def test_debug_shows_where_an_error_arose() -> None:
    done = run("fail", "WeightsError", code=RAISE, ASHNETS_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "WeightsError: the message" in done.stderr


def test_the_operating_systems_errors_are_one_line(tmp_path: Path) -> None:
    code = f'@app.command("fail")\ndef fail() -> None:\n    open({str(tmp_path / "none")!r})\n'
    done = run("fail", code=code)
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'none'}: No such file or directory\n")


def test_a_bug_is_not_hidden() -> None:
    done = run("fail", code='@app.command("fail")\ndef fail() -> None:\n    raise RuntimeError("bug")\n')
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_interrupt_is_130_and_says_how_to_go_on() -> None:
    code = (
        "from ashnets.cli import app, main\nimport sys, time\n"
        # short sleeps: a signal between the last bytecode and the sleep's system call would be noticed only behind it
        '@app.command("wait")\ndef wait() -> None:\n    print("ready", flush=True)\n'
        "    for _ in range(6000):\n        time.sleep(0.01)\n"
        'sys.exit(main(["wait"]))'
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "\ninterrupted; the same command starts again\n")


def test_a_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "ashnets", "list"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""


def test_list_prints_names_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert "ashnets-tiny" in names
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == names
    assert main(["list", "*tiny*"]) == 0
    assert capsys.readouterr().out.splitlines() == [name for name in names if "tiny" in name]


def test_a_list_without_a_match_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "no-such-*"]) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert "no model matches" in err


def test_describe_names_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "ashnets-tiny"]) == 0
    assert "ashnets-tiny" in capsys.readouterr().out
    assert main(["describe", "ashnets-tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "ashnets-tiny.pictograms", "with the tag of its weights"


def test_results_read_as_a_table() -> None:
    result = {"model": "a", "splits": {"test": {"n": 3, "text_to_image": {"R@1": 1 / 3, "R@10": 1.0}}}, "seeds": [1, 2]}
    result["notes"] = ["one sentence", "word"]
    result |= {"parts": [{"name": "a", "cores_of_a": 10}, {"name": "bc", "cores_of_a": 5}], "found": {}}
    assert as_text(result).splitlines() == [
        "model: a",
        "splits:",
        "  test:",
        "    n: 3",
        "    text_to_image: R@1 0.3333, R@10 1",
        "seeds: 1 2",
        "notes:",
        "  one sentence",
        "  word",
        "parts:",
        "  name  cores of a",
        "  a             10",
        "  bc             5",
        "found: –",
    ]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_every_terminal_takes_what_is_printed(encoding, monkeypatch, tmp_path):
    """Characters that an encoding lacks are replaced; JSON remains JSON."""
    written = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in written.items():
        monkeypatch.setattr(sys, name, stream)
    folder = tmp_path / os.fsdecode(b"\xe9\xc3\xa9\xe2\x86\x92")
    assert main(["describe", "ashnets-tiny"]) == 0
    assert main(["describe", "ashnets-tiny", "--json"]) == 0
    assert main(["data", "check", str(folder)]) == 4
    Console(highlight=False, width=80).print("1 → 2 … φ")
    for stream in written.values():
        stream.flush()
    out, err = (written[name].buffer.getvalue() for name in ("stdout", "stderr"))
    assert b"groups of" in out and str(folder.parent).encode() in err
    expected = {"utf-8": "1 → 2 … φ\n".encode(), "cp1252": b"1 -> 2 \x85 \\u03c6\n"}
    assert out.endswith(expected.get(encoding, b"1 -> 2 ... \\u03c6\n"))
