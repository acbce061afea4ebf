"""Count parameters and multiply-accumulates of a configuration, part by part, without allocating weights."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ashnets.configuration import AshNetsConfig
from ashnets.files import write_json
from ashnets.model import HEADS, AshNetsModel
from ashnets.zoo.macs import count_macs
from ashnets.zoo.registry import config_of, list_models
from ashnets.zoo.sizes import SIZES, STEP, Sizes, counted

IMAGENET_CLASSES = 1000


def count_sizes(config: AshNetsConfig) -> Sizes:
    """Count on the meta device; MACs as in :mod:`ashnets.zoo.macs`.

    Spiking layers are counted dense, as if every input were a spike.
    """
    with torch.device("meta"):
        model = AshNetsModel(config).eval()
        heads = {task: _parameters(cls(config)) for task, cls in HEADS.items() if cls is not AshNetsModel}
    # The counter does not see products inside fused kernels.
    model.set_attn_implementation("eager")
    vision, transformer = model.vision, model.transformer
    bert = transformer.bert
    words = bert.embeddings.word_embeddings
    parameters = {}
    if config.has_concrete_branch:
        parameters["backbone"] = _parameters(vision.concrete_encoder.backbone)
        parameters["projection"] = _parameters(vision.concrete_encoder) - parameters["backbone"]
    if config.has_spiking_branch:
        parameters["abstract encoder"] = _parameters(vision.abstract_encoder)
        parameters["collector"] = _parameters(vision.collector)
    parameters["summary ratio"] = _parameters(vision.summary_ratio)
    parameters["word embeddings"] = _parameters(words)
    parameters["other embeddings"] = _parameters(transformer) - _parameters(words) - _parameters(bert.encoder)
    parameters["transformer layers"] = _parameters(bert.encoder)

    backbone_with_classifier = None
    if config.has_concrete_branch and config.backbone != "resnet-tiny":
        features = vision.concrete_encoder.projection.in_channels
        backbone_with_classifier = parameters["backbone"] + (features + 1) * IMAGENET_CLASSES
    macs = _macs(model, config)
    return Sizes(parameters, backbone_with_classifier, _parameters(model), heads, macs, config.time_steps)


def write_sizes() -> Path:
    """Count every model of the registry, without allocating weights, and write the file."""
    models = tqdm(list_models(), desc="counting", unit="model", disable=None)
    write_json(SIZES, {name: asdict(count_sizes(config_of(name))) for name in models})
    counted.cache_clear()
    return SIZES


def _macs(model: AshNetsModel, config: AshNetsConfig) -> dict[str, int]:
    vision = model.vision
    side, tokens, length = config.image_size, config.num_visual_tokens, config.max_text_length
    image = torch.empty(1, 3, side, side, device="meta")
    visual = torch.empty(1, tokens, config.hidden_size, device="meta")
    macs = {}
    if config.has_concrete_branch:
        macs["concrete encoder"] = count_macs(lambda: vision.concrete_encoder(image))
    if config.has_spiking_branch:
        response = torch.empty(1, tokens, config.response_size, device="meta")
        macs[STEP] = count_macs(lambda: vision.abstract_encoder.run(image.unsqueeze(0)))
        macs["collector"] = count_macs(lambda: vision.collector(response, config.time_steps))
        macs["summary ratio"] = count_macs(lambda: vision.summary_ratio(visual, visual))
    for label, sequence in (("text alone", length), ("pair", length + tokens)):
        hidden = torch.empty(1, sequence, config.hidden_size, device="meta")
        macs[f"transformer, {label}"] = count_macs(partial(model.transformer.bert.encoder, hidden))
    return macs


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
