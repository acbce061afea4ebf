"""docs/library.md: its programs run one after another, and print what their comments say."""

from __future__ import annotations

import re
import subprocess
import sys


def test_the_programs_run(repository):
    text = (repository / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```") / 2, "all blocks are programs"
    code = "\n".join(blocks) + CHECKS
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    shapes = ("torch.Size([2, 3])", "torch.Size([2, 256]) torch.Size([3, 256])", "torch.Size([2, 36, 384])", "(3, 8)")
    for shape in (*shapes, "tensor(True)", "torch.Size([1, 36, 384])"):
        assert shape in printed, shape


CHECKS = """
assert outputs.logits_per_image.argmax(1).tolist() == [0, 1] and (vectors @ words.T).argmax(1).tolist() == [0, 1]
assert classify(images[0], candidate_labels=["pineapple", "camel"])[0]["label"] == "pineapple"
assert all(p.grad is not None for p in model.image_projection.parameters())
"""
