"""Models that accelerate keeps on disk, in part or completely: the outputs have the same bits."""

from __future__ import annotations

import pytest
import torch
from accelerate import infer_auto_device_map
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from small_model import random_images, small_config, wake
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ashnets.model import AshNetsForPreTraining, alignment_transformer
from ashnets.model.alignment_transformer import AlignmentTransformer
from ashnets.model.outputs import VisualOutput


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # about parameters of the model itself
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded")
@pytest.mark.parametrize("precision", ["float", "int8"])
def test_weights_on_disk_give_the_same_outputs(precision, tmp_path):
    model = AshNetsForPreTraining(small_config(precision=precision)).eval()
    wake(model.ashnets.vision.abstract_encoder)
    model.save_pretrained(tmp_path)
    inputs = {"pixel_values": random_images(2), "input_ids": torch.tensor([[2, 7, 3], [2, 9, 3]]), "image_keys": [1, 2]}
    with torch.no_grad():
        expected = model(**inputs, output_attentions=True)
    assert expected.visual.concept_counts.any()
    for where in ({"device_map": {"": "disk"}}, {"device_map": "auto", "max_memory": {"cpu": 20_000}}):
        loaded = AshNetsForPreTraining.from_pretrained(tmp_path, offload_folder=tmp_path / "offload", **where)
        assert "disk" in loaded.hf_device_map.values()
        assert loaded.device == torch.device("cpu"), "where inputs are moved to"
        with torch.no_grad():
            found = loaded(**inputs, output_attentions=True)
        for key in ("image_embeds", "text_embeds", "itm_logits", "mlm_logits", "spiking_embeds", "mvm_logits"):
            assert torch.equal(found[key], expected[key]), key
        assert all(map(torch.equal, found.attentions, expected.attentions))
    loaded.save_pretrained(tmp_path / "again")
    again = AshNetsForPreTraining.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def on_devices(model: nn.Module, where: dict[str, str]) -> None:
    """Place parts of a model as accelerate does; inside `FakeTensorMode` no device is needed."""
    for name, device in where.items():
        for module in model.get_submodule(name).modules():
            for tensors in (module._parameters, module._buffers):
                for key, tensor in tensors.items():
                    if tensor is not None:
                        moved = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                        own = tensors is module._parameters
                        tensors[key] = nn.Parameter(moved, requires_grad=False) if own else moved
            add_hook_to_module(module, AlignDevicesHook(execution_device=device))


def test_parts_on_two_gpus(monkeypatch):
    """A placement of device_map="auto": torch's own check of devices judges, on tensors without data."""
    where = {
        "bert.embeddings": "cuda:0",
        "visual_positions": "cuda:1",
        "visual_norm": "cuda:1",
        "dropout": "cuda:1",
    }
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # the values of ids are not there to check
    monkeypatch.setattr(alignment_transformer, "create_bidirectional_mask", lambda attention_mask, **_: None)
    with FakeTensorMode(), torch.no_grad():
        model = AlignmentTransformer(small_config()).eval()
        on_devices(model, where)
        ids, visual = torch.zeros(2, 3, dtype=torch.long, device="cuda:0"), torch.empty(2, 4, 16, device="cuda:0")
        assert model.embed_visual(visual).device == torch.device("cuda:1")
        model.bert.encoder.layer = nn.ModuleList()  # whose kernels this build of torch may lack
        hidden, _ = model(ids, None, visual)
        assert hidden.shape == (2, 7, 16) and hidden.device == torch.device("cuda:0"), "where the text is"


def test_heads_on_two_gpus(monkeypatch):
    """Summary ratio, collector, both projections and τ, each on another device than the one before."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with FakeTensorMode(), torch.no_grad():
        model = AshNetsForPreTraining(small_config(token_reading="positions")).eval()
        vision = model.ashnets.vision
        on_devices(model, {"ashnets": "cuda:0", "stua": "cuda:1", "mvm": "cuda:1"})
        on_devices(model, {"ashnets.vision.summary_ratio": "cuda:1", "image_projection": "cuda:0"})
        on_devices(model, {"text_projection": "cuda:1", "temperature": "cuda:0"})
        concrete = torch.empty(2, 4, 16, device="cuda:0")
        abstract = vision.collector(torch.empty(2, 4, 10, device="cuda:0"), 3)
        output, ratio = vision.summary_ratio(concrete, abstract)
        visual = VisualOutput(output=output, concrete=concrete, abstract=abstract, summary_ratio=ratio)
        assert (ratio.device.index, abstract.device.index) == (1, 0)
        assert model.project_spiking(visual).shape == (2, 8)
        assert model.mvm(concrete, vision.collector.concepts).device == torch.device("cuda:1")
        monkeypatch.setattr(vision, "forward", lambda *_, **__: visual)
        text = BaseModelOutputWithPooling(pooler_output=model.text_projection(torch.empty(3, 16, device="cuda:0")))
        monkeypatch.setattr(model, "get_text_features", lambda *_, **__: text)
        found = model(torch.empty(2, 3, 16, 16), torch.zeros(3, 4, dtype=torch.long))
        assert found.logits_per_text.shape == (3, 2)
        assert found.logits_per_text.device == found.text_embeds.device == torch.device("cuda:1")


def test_no_placement_divides_what_combines_its_parts():
    """accelerate's own placement; the first device grows by less than the smallest of these parts, φ's 68 bytes."""
    model = AshNetsForPreTraining(small_config(token_reading="positions"))
    whole = "summary_ratio", "collector", "image_projection", "mvm", "stua.spiking"
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    for room in range(size // 2, size, 64):
        placed = infer_auto_device_map(
            model, {"cpu": room, "disk": 10**9}, no_split_module_classes=model._no_split_modules
        )
        for name in whole:
            assert not [key for key in placed if f".{name}." in f".{key}"], (room, name)
