"""Items on one time axis: single by default, otherwise with similar ones. The two images of a pair never share one."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import yaml
from accelerate import Accelerator
from torch.nn import functional

from ashnets.data.batches import Share
from ashnets.errors import ConfigurationError, WeightsError
from ashnets.model.sampling import image_key
from ashnets.runs import finetune
from ashnets.tasks import training_items
from ashnets.tasks.data import open_task_data
from ashnets.tasks.finetuning import TaskLearner
from ashnets.tasks.items import ItemBatches, answer
from ashnets.tasks.registry import CLASSIFICATIONS
from ashnets.tasks.training_items import Items
from ashnets.training.reading import load_recipe


@pytest.fixture
def items_of(benchmarks, small_model, write_recipe, tmp_path):
    """A function: task, data set → items in similar groups of four, and the model that they are compared by."""

    def make(task: str, name: str) -> tuple[Items, torch.nn.Module]:
        data = open_task_data(name, benchmarks[name])
        records = data.records("train")
        model, processor = small_model("retrieval")
        model.save_pretrained(tmp_path / "start")
        processor.save_pretrained(tmp_path / "start")
        phase = {"name": "all", "epochs": 1, "concrete_only": False, "grouping": "similar", "objectives": {task: 1.0}}
        path = write_recipe(task, name, weights="pretrained", model=str(tmp_path / "start"), changes={}, phases=[phase])
        kind = CLASSIFICATIONS[task].of_training(records, 1)
        return Items(load_recipe(path), model.config, kind, data, records, processor), model

    return make


def similar(items: Items, model: torch.nn.Module, epoch: int = 0):
    return items.similar_groups(model, epoch, items.recipe.phases[0], torch.autocast("cpu", enabled=False), False)


def test_questions_about_one_image_are_a_group(items_of):
    """Sixteen questions about four images: equal images have equal embeddings."""
    items, model = items_of("vqa", "vqa-v2")
    groups, figures = similar(items, model)
    assert sorted(i for group in groups for i in group.tolist()) == list(range(16))
    assert all(len({items.records[i].image for i in group}) == 1 for group in groups)
    assert figures["group_similarity"] == pytest.approx(1.0, abs=1e-3)
    assert figures["random_group_similarity"] <= figures["group_similarity"]
    again = similar(items, model, epoch=1)[0]
    assert {tuple(sorted(group)) for group in again} == {tuple(sorted(group)) for group in groups}
    assert [group.tolist() for group in again] != [group.tolist() for group in groups], "another order each epoch"


def test_a_pair_is_compared_by_the_mean_of_its_images(items_of):
    items, model = items_of("nlvr2", "nlvr2")
    similar(items, model)
    record = items.records[5]
    pixels = items.processor.image_processor.preprocess([items.data.open_image(n) for n in record.images], [0, 0])
    keys = [image_key(name) for name in record.images]
    own = model.encode_image(pixels["pixel_values"], image_keys=keys)[0]
    expected = functional.normalize(own.mean(0), dim=0).detach()
    torch.testing.assert_close(torch.from_numpy(items._embeds[False][5]), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("readout", ["shared", "per_image"])
def test_the_two_images_of_a_pair_are_on_two_axes(benchmarks, small_model, readout):
    """Four pairs in groups of two, against each sequence encoded by itself."""
    head, processor = small_model("nlvr2", readout=readout)
    data = open_task_data("nlvr2", benchmarks["nlvr2"])
    kind = CLASSIFICATIONS["nlvr2"].of_config(head.config)
    batches = ItemBatches(kind, data, data.records("train")[:4], [Share(range(4), 2)], processor, 48, learn=True)
    batch = batches.read(0)
    with torch.inference_mode():
        found = answer(head, batch)
        logits = []
        for first in (0, 2):
            texts = {"input_ids": batch.input_ids[first : first + 2]}
            texts["attention_mask"] = batch.attention_mask[first : first + 2]
            sides = [
                head.ashnets(
                    batch.pixel_values[first : first + 2, side],
                    image_keys=batch.image_keys[first : first + 2, side],
                    group_size=2,
                    **texts,
                ).pooler_output
                for side in (0, 1)
            ]
            logits.append(head.classifier(torch.cat(sides, 1)))
    torch.testing.assert_close(found.logits, torch.cat(logits), atol=1e-5, rtol=1e-4)
    assert float(found.loss) == pytest.approx(
        float(functional.cross_entropy(torch.cat(logits), batch.labels)), rel=1e-4
    )
    response = found.visual.response  # (8, N, M2): left, left, right, right of the first group, then of the second
    assert torch.equal(response[0], response[1]) == (readout == "shared")
    assert not torch.equal(response[0], response[2]), "left and right can be told apart"
    pixels, keys, group = batch.shown()
    assert group == 2 and keys.tolist() == batch.image_keys.unflatten(0, (2, 2)).transpose(1, 2).flatten().tolist()
    assert torch.equal(pixels[2], batch.pixel_values[0, 1])


def test_single_items_stay_alone_in_the_smallest_epoch(items_of, monkeypatch):
    items, _ = items_of("vqa", "vqa-v2")
    items.group = 1
    items.records = items.records[:3]
    items.recipe = dataclasses.replace(items.recipe, batch_size=4)
    monkeypatch.setattr(training_items, "world_size", lambda: 2)
    planned = items.plan(items.random_groups(0))
    assert [share.group_size for shares in planned for share in shares] == [1, 1]


def test_a_run_in_similar_groups(items_of, benchmarks, tmp_path):
    items, _ = items_of("vqa", "vqa-v2")
    recipe = tmp_path / "vqa.yaml"
    options = {"data": benchmarks["vqa-v2"], "progress": False}
    split = ["train=[train]", "valid=val"]
    finetune("vqa", recipe, output=tmp_path / "run", overrides=split, **options)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[0]["group_similarity"] == pytest.approx(1.0, abs=1e-3) and log[0]["pairs_seen"] == len(items)
    again = [*split, f"model={tmp_path / 'run' / 'model'}"]
    with pytest.raises(WeightsError, match=r"image_projection.*set grouping to single"):
        finetune("vqa", recipe, output=tmp_path / "again", overrides=again, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "initial"}, "compares the ITC embeddings of a pre-trained model"),
        ({"baseline": "frozen"}, "baseline to null"),
        ({"phases": ["similar", "single"]}, "single in all phases or in none"),
    ],
)
def test_groups_that_cannot_be_are_refused(write_recipe, changes, message):
    path = write_recipe()
    data = yaml.safe_load(path.read_text())
    (phase,) = data["phases"]
    kinds = changes.pop("phases", ["similar"])
    phases = [{**phase, "name": f"p{i}", "grouping": grouping} for i, grouping in enumerate(kinds)]
    path.write_text(yaml.safe_dump({**data, "weights": "pretrained", "phases": phases, **changes}))
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(path)


def test_concepts_start_from_both_images_of_pairs(benchmarks, small_model, write_recipe):
    """Before a spiking phase: each column of C is a token of one of the images, divided by √M2."""
    data = open_task_data("nlvr2", benchmarks["nlvr2"])
    records = data.records("train")[:4]
    model, processor = small_model("nlvr2", abstract_scale="normalized")
    task = CLASSIFICATIONS["nlvr2"].of_training(records, 1)
    shares = [Share(torch.arange(4).numpy(), 1)]
    batch = ItemBatches(task, data, records, shares, processor, model.config.max_text_length, learn=True).read(0)
    phases = [{"name": "all", "epochs": 1, "concrete_only": False, "grouping": "single", "objectives": {"nlvr2": 1.0}}]
    recipe = load_recipe(write_recipe("nlvr2", "nlvr2", weights="initial", phases=phases))
    found = TaskLearner(recipe, model, 4, Accelerator(cpu=True)).concrete_concepts([batch])  # (M1, M2)
    with torch.no_grad():
        tokens = model.eval().ashnets.vision.concrete_encoder(batch.pixel_values.flatten(0, 1)).flatten(0, 1)  # (n, M1)
    expected = tokens / model.config.num_concepts**0.5
    nearest = (found.T.unsqueeze(1) - expected).abs().amax(2).min(1)
    assert nearest.values.max() < 1e-5
    second = tokens.shape[0] // 8  # tokens of an image
    assert {int(i) // second % 2 for i in nearest.indices} == {0, 1}, "from first and second images"
