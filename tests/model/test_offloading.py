"""Models that accelerate keeps on disk, in part or completely: the outputs have the same bits."""

from __future__ import annotations

import pytest
import torch
from small_model import random_images, small_config, wake

from ashnets.model import AshNetsForPreTraining


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
