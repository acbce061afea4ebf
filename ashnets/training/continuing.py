"""Pre-training that starts from trained weights: their architecture, their vocabulary with what the captions add."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from ashnets.configuration import AshNetsConfig
from ashnets.data.vocabulary import row_indices
from ashnets.errors import WeightsError
from ashnets.hub.loading import from_pretrained
from ashnets.model.alignment_transformer import AlignmentTransformer
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.heads import AshNetsForPreTraining
from ashnets.model.initialization import load_transformer
from ashnets.processor import AshNetsProcessor
from ashnets.training.recipe import Recipe
from ashnets.training.setup import vocabulary_of
from ashnets.words import without_place

WORDS = "ashnets.transformer.bert.embeddings.word_embeddings.weight"
_OF_WORDS = (WORDS, "mlm.decoder.weight")  # tied
_BIAS = "mlm.decoder.bias"
_BODY = "ashnets."
_NAMED = 8  # added pieces that a sentence names


def continued_model(
    recipe: Recipe, captions: Iterable[str]
) -> tuple[AshNetsConfig, AshNetsProcessor, AshNetsForPreTraining, list[str]]:
    """Configuration, processor and starting model, and a sentence for each source of its weights.

    The model has the architecture of the trained one, with the recipe's ``changes``, which may remove a part. Heads
    that the trained model lacks, as after fine-tuning, are random. Old words keep their ids.

    Args:
        recipe: ``model`` names the trained weights.
        captions: of the training data. Pieces that they need and the vocabulary lacks are added to it.

    Raises:
        UnknownModelError, WeightsError, ConfigurationError: as ``from_pretrained``; or the weights do not fit the
            changes or the text checkpoint.
    """
    torch.manual_seed(recipe.seed)
    trained = from_pretrained(recipe.model)
    ids = AshNetsProcessor.from_pretrained(recipe.model).tokenizer.get_vocab()
    kept = sorted(ids, key=ids.__getitem__)
    text_weights, wanted = vocabulary_of(recipe, captions)
    added = [piece for piece in wanted if piece not in ids]
    changes = {**recipe.changes, "vocab_size": len(kept) + len(added)}
    config = AshNetsConfig(**{**trained.config.to_dict(), **changes})
    tensors = trained.state_dict()
    if isinstance(trained, AshNetsModel):
        tensors = {f"{_BODY}{name}": tensor for name, tensor in tensors.items()}
    if added:
        rows = _rows_of(recipe, config, text_weights, added)  # (added, M1)
        tensors |= {name: torch.cat([tensors[name], rows]) for name in _OF_WORDS if name in tensors}
        if _BIAS in tensors:
            tensors[_BIAS] = torch.cat([tensors[_BIAS], torch.zeros(len(added))])
    model = AshNetsForPreTraining(config)
    fresh = [name for name in model.state_dict() if name not in tensors and not name.startswith(_BODY)]
    left = take_over(tensors, model, recipe, fresh)
    said = [f"all tensors: trained weights of {without_place(recipe.model)}", _about_words(len(kept), added, recipe)]
    if fresh:
        heads = dict.fromkeys(name.partition(".")[0] for name in fresh)
        said[0] = f"all but {', '.join(heads)}: trained weights of {without_place(recipe.model)}; these: random"
    said += [f"left out: {len(left)} tensors that the variant has no place for, such as {left[0]}"] if left else []
    return config, AshNetsProcessor.from_config(config, [*kept, *added]), model, said


def take_over(
    tensors: dict[str, torch.Tensor], model: nn.Module, recipe: Recipe, fresh: Iterable[str] = ()
) -> list[str]:
    """Copy trained tensors to ``model``, which may lack parts; returns the names of those that it has no place for.

    Args:
        fresh: names of tensors of ``model`` that keep their values.

    Raises:
        WeightsError: other tensors of ``model`` are missing or have another shape.
    """
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name not in set(fresh)}
    unfit = [name for name, tensor in wanted.items() if name not in tensors or tensors[name].shape != tensor.shape]
    if unfit:
        raise WeightsError(
            f"{recipe.model} has no weights for {len(unfit)} tensors that the recipe's changes ask for, such as "
            f"{unfit[0]}; to keep its architecture, --set 'changes={{}}'"
        )
    model.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
    return [name for name in tensors if name not in wanted]


def _rows_of(recipe: Recipe, config: AshNetsConfig, folder: Path, added: list[str]) -> torch.Tensor:
    """Word embeddings of the added pieces, (added, M1), from the recipe's text checkpoint."""
    small = {"vocab_size": len(added), "num_hidden_layers": 1}
    only_words = AlignmentTransformer(AshNetsConfig(**{**config.to_dict(), **small}))
    try:
        load_transformer(only_words, folder, rows=row_indices(folder / "vocab.txt", added))
    except WeightsError as error:
        raise WeightsError(
            f"{len(added)} pieces of the captions are not in the vocabulary of {recipe.model}, and their embeddings "
            f"cannot come from transformer_weights={recipe.transformer_weights}: {error}; set transformer_weights to "
            "the text checkpoint that this model began with"
        ) from error
    return only_words.bert.embeddings.word_embeddings.weight.detach()  # (added, M1)


def _about_words(kept: int, added: list[str], recipe: Recipe) -> str:
    if not added:
        return f"vocabulary: its {kept:,} pieces, none is missing"
    shown = ", ".join(added[:_NAMED]) + (", …" if len(added) > _NAMED else "")
    return f"vocabulary: its {kept:,} pieces and {len(added):,} new ones from {recipe.transformer_weights}: {shown}"
