"""Where fine-tuning starts: which tensors are the trained ones, and what is said of the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import ashnets
from ashnets.tasks.starting import starting_model
from ashnets.training.recipe import TaskRecipe, load_recipe
from ashnets.zoo import recipe_path


def recipe(path: Path, **changes: str) -> TaskRecipe:
    """Retrieval's, with other changes of the configuration."""
    lines = "\n".join(f"  {key}: {value}" for key, value in changes.items())
    text = recipe_path("finetune-pictogram-retrieval").read_text(encoding="utf-8")
    path.write_text(re.sub(r"^changes: .*$", f"changes:\n{lines}", text, flags=re.MULTILINE), encoding="utf-8")
    return load_recipe(path)


@pytest.mark.parametrize("matching", ["cls", "product"])
def test_a_matching_layer_that_reads_something_else_starts_anew(matching: str, tmp_path: Path) -> None:
    trained = ashnets.from_pretrained("ashnets-tiny", task="retrieval")
    assert trained.config.matching == "cls"
    config, _, model, said = starting_model(recipe(tmp_path / "r.yaml", matching=matching), (), {})
    assert config.matching == model.config.matching == matching
    own = model.state_dict()
    other = {name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, own[name])}
    if matching == "cls":
        assert not other and said == ["all tensors: trained weights of ashnets-tiny"]
    else:
        assert other == {"itm.weight", "itm.bias"}
        assert said == ["all but ITM's layer: trained weights of ashnets-tiny; ITM's layer: random"]


def test_a_variant_leaves_out_what_it_has_no_place_for(tmp_path: Path) -> None:
    trained = ashnets.from_pretrained("ashnets-tiny", task="retrieval").state_dict()
    _, _, model, said = starting_model(recipe(tmp_path / "r.yaml", summary_ratio="ann"), (), {})
    own = model.state_dict()
    assert own and all(torch.equal(own[name], trained[name]) for name in own if not name.startswith("itm."))
    missing = [name for name in trained if name not in own]
    assert f"left out: {len(missing)} tensors" in said[-1] and missing[0] in said[-1]
