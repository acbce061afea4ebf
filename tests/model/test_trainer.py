"""transformers' Trainer on the heads that give a loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_model import random_images, small_config, wake
from transformers import Trainer, TrainingArguments

from ashnets.model import HEADS

ITEMS = 4
RATE = 0.01


def items(task: str) -> list[dict[str, torch.Tensor]]:
    images = random_images(2 * ITEMS)
    numbers = torch.arange(2 * ITEMS)
    targets = torch.rand(ITEMS, 7, generator=torch.Generator().manual_seed(1))
    return [
        {
            "pixel_values": images[2 * i : 2 * i + 2] if task == "nlvr2" else images[i],
            "image_keys": numbers[2 * i : 2 * i + 2] if task == "nlvr2" else numbers[i],
            "input_ids": torch.tensor([2, 7 + i, 9, 3]),
            "attention_mask": torch.ones(4, dtype=torch.int64),
            "labels": targets[i] if task == "vqa" else torch.tensor(i % 2),
        }
        for i in range(ITEMS)
    ]


def head(task: str, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    model = HEADS[task](small_config(**changes))
    wake(model.ashnets.vision.abstract_encoder)
    return model


def trainer(model: torch.nn.Module, folder, data: list, **changes) -> Trainer:
    settings = {
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "save_steps": 1,
        "learning_rate": RATE,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_strategy": "no",
        "seed": 3,
    }
    arguments = TrainingArguments(str(folder), **{**settings, **changes})
    return Trainer(model, arguments, train_dataset=data, eval_dataset=data)


@pytest.mark.parametrize("task", ["vqa", "nlvr2"])
def test_train_evaluate_predict_and_resume(task, tmp_path):
    data, model = items(task), head(task)
    trained = trainer(model, tmp_path, data)
    trained.train()
    batch = {key: torch.stack([item[key] for item in data]) for key in data[0]}
    with torch.no_grad():
        expected = model.eval()(**batch)
        assert not torch.allclose(expected.logits, model(**{**batch, "image_keys": None}).logits, rtol=1e-4, atol=1e-5)
    found = trained.predict(data)
    assert isinstance(found.predictions, np.ndarray), "the logits alone"
    np.testing.assert_allclose(found.predictions, expected.logits.numpy(), rtol=1e-5, atol=1e-6)
    assert np.array_equal(found.label_ids, batch["labels"].numpy())
    assert trained.evaluate()["eval_loss"] == pytest.approx(expected.loss.item(), rel=1e-5)
    resumed = trainer(head(task), tmp_path, data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert all(torch.equal(value, resumed.model.state_dict()[key]) for key, value in model.state_dict().items())


def test_accumulated_gradients_are_the_mean_of_those_of_the_items(tmp_path):
    """One step of plain gradient descent over four batches of one item, against four backward passes."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    data, model, own = items("ve"), head("ve", **still), head("ve", **still).train()
    options = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "save_strategy": "no"}
    trainer(
        model, tmp_path, data, max_steps=1, per_device_train_batch_size=1, gradient_accumulation_steps=ITEMS, **options
    ).train()
    for item in data:
        (own(**{key: value.unsqueeze(0) for key, value in item.items()}).loss / ITEMS).backward()
    for (name, found), parameter in zip(model.named_parameters(), own.parameters(), strict=True):
        expected = parameter - RATE * parameter.grad if parameter.grad is not None else parameter
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_bfloat16(tmp_path):
    model = head("vqa")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert np.isfinite(trainer(model, tmp_path, items("vqa"), bf16=True, save_strategy="no").train().training_loss)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
