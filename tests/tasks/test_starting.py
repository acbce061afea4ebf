"""The initial model of fine-tuning: trained tensors, and the message about the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import ashnets
from ashnets.tasks.starting import starting_model
from ashnets.training.reading import load_recipe
from ashnets.zoo import recipe_path


@pytest.mark.parametrize("changes", ["{}", "{summary_ratio: ann}"])
def test_a_variant_leaves_out_the_tensors_of_removed_parts(changes: str, tmp_path: Path) -> None:
    trained = ashnets.from_pretrained("ashnets-tiny", task="retrieval").state_dict()
    text = recipe_path("finetune-pictogram-retrieval").read_text(encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(re.sub(r"^changes: .*$", f"changes: {changes}", text, flags=re.MULTILINE), encoding="utf-8")
    _, _, model, said = starting_model(load_recipe(recipe), (), {})
    own = model.state_dict()
    assert own and all(torch.equal(tensor, trained[name]) for name, tensor in own.items())
    missing = [name for name in trained if name not in own]
    assert said[0] == "all tensors: trained weights of ashnets-tiny"
    assert bool(missing) == (changes != "{}") == (len(said) == 2)
    if missing:
        assert f"left out: {len(missing)} tensors" in said[1] and missing[0] in said[1]
