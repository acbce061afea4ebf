"""Tables on narrow terminals: nothing is cut."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashnets.terminal import table

HEAD = ["model", "split", "R@1", "synaptic operations", "chance R@10"]
NUMBERS = [False, False, True, True, True]
ROWS = [["ashnets-tiny", "valid", "0.4508", "15,779,862", "0.0069"], ["mine", "valid", "0.5", "7", "0.0069"]]

WIDE = """\
model         split     R@1  synaptic operations  chance R@10
ashnets-tiny  valid  0.4508           15,779,862       0.0069
mine          valid     0.5                    7       0.0069"""
FOLDED = """\
                               synaptic  chance
model         split     R@1  operations    R@10
ashnets-tiny  valid  0.4508  15,779,862  0.0069
mine          valid     0.5           7  0.0069"""
SHARED = """\
split: valid; chance R@10: 0.0069
model            R@1  synaptic operations
ashnets-tiny  0.4508           15,779,862
mine             0.5                    7"""
BLOCKS = """\
split: valid; chance
  R@10: 0.0069
model: ashnets-tiny
  R@1: 0.4508
  synaptic operations:
    15,779,862
model: mine
  R@1: 0.5
  synaptic operations: 7"""


@pytest.mark.parametrize(
    ("width", "expected"), [(None, WIDE), (61, WIDE), (60, FOLDED), (47, FOLDED), (46, SHARED), (24, BLOCKS)]
)
def test_a_table_takes_the_form_that_fits(width, expected):
    assert table(HEAD, ROWS, NUMBERS, width) == expected


def test_words_at_the_end_may_go_on_in_the_next_line():
    path = "/a/very/long/path/to/a/image/of/a/boat.png"
    text = table(["rank", "score", "image"], [["1", "0.9", path]], [True, True, False], 40)
    assert text == f"rank  score  image\n   1    0.9  {path}"


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=4, max_size=4), min_size=1, max_size=5), st.integers(21, 90))
def test_every_number_stands_whole_and_every_line_fits(values, width):
    rows = [[f"{value:,}" for value in row] for row in values]
    text = table(["a", "b c", "some words", "d"], rows, [True] * 4, width)
    assert {cell for row in rows for cell in row} <= set(text.replace(";", "").split())
    assert max(map(len, text.splitlines())) <= width


def test_a_list_on_a_terminal_of_80_columns():
    """On a real terminal; a pipe gets Markdown."""
    command = [sys.executable, "-m", "ashnets", "list", "ashnets-tiny*", "--numbers"]
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment) as process:
        os.close(follower)
        text = b""
        try:
            while part := os.read(leader, 65536):
                text += part
        except OSError:  # how Linux tells that the other end is closed
            pass
    os.close(leader)
    lines = text.decode().splitlines()
    assert process.returncode == 0 and max(map(len, lines)) <= 80
    assert "|" not in text.decode() and any(re.search(r"spikes an image: \d+,\d{3}", line) for line in lines)
    assert subprocess.run(command, capture_output=True, text=True).stdout.startswith("| model | weights |")
