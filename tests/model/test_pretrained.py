"""Saving and loading: to the bit, strictly, in evaluation mode."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import random_images, small_config
from transformers import AutoConfig, AutoModel

import ashnets
from ashnets.configuration import AshNetsConfig
from ashnets.errors import ConfigurationError, OutputError, UnknownModelError, WeightsError
from ashnets.model import HEADS, AshNetsForPreTraining, AshNetsForRetrieval, AshNetsForVQA, AshNetsModel
from ashnets.model.pretrained import AshNetsPreTrainedModel
from tests.dying import KILLED_AT


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(
        torch.equal(one[key], two[key]) and one[key].dtype == two[key].dtype for key in one
    )


def own(config: AshNetsConfig) -> dict:
    return {key: getattr(config, key) for key in AshNetsConfig.own_keys()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pre-training model with non-default running statistics, and its folder."""
    model = AshNetsForPreTraining(small_config())
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=generator)
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return model.eval(), folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the folder that a test may change."""
    folder = tmp_path / "model"
    shutil.copytree(saved[1], folder)
    return folder


def test_what_is_written(saved):
    assert sorted(path.name for path in saved[1].iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("changes", [{}, {"summary_ratio": "ann"}, {"collector": False}], ids=str)
def test_round_trip_to_the_bit(task, changes, tmp_path):
    model = HEADS[task](small_config(**changes))
    model.save_pretrained(tmp_path)
    loaded = HEADS[task].from_pretrained(tmp_path)
    assert same(model, loaded)
    assert not any(module.training for module in loaded.modules())
    assert own(loaded.config) == own(model.config)


def test_a_loaded_model_computes_the_same(saved):
    model, folder = saved
    loaded = AshNetsForPreTraining.from_pretrained(folder)
    ids = torch.tensor([[2, 7, 3], [2, 9, 3]])
    with torch.no_grad():
        expected, found = (m(random_images(2), ids, image_keys=[1, 2]) for m in (model, loaded))
    for key in ("image_embeds", "text_embeds", "itm_logits", "mlm_logits", "mvm_logits"):
        assert torch.equal(expected[key], found[key])
    assert loaded.mlm.decoder.weight is loaded.ashnets.transformer.bert.embeddings.word_embeddings.weight


def test_the_class_in_the_configuration_or_the_task_decides(saved):
    model, folder = saved
    assert type(ashnets.from_pretrained(folder)) is AshNetsForPreTraining
    for task, cls in (("base", AshNetsModel), ("retrieval", AshNetsForRetrieval)):
        loaded = ashnets.from_pretrained(folder, task=task)
        assert type(loaded) is cls
        source = model.state_dict()
        prefix = "ashnets." if task == "base" else ""
        assert all(torch.equal(value, source[prefix + key]) for key, value in loaded.state_dict().items())
    with pytest.raises(ConfigurationError, match="task='caption'"):
        ashnets.from_pretrained(folder, task="caption")


def test_auto_classes(saved, tmp_path):
    model, folder = saved
    assert same(AutoModel.from_pretrained(folder), model.ashnets)
    assert own(AutoConfig.from_pretrained(folder)) == own(model.config)
    assert AutoModel.from_pretrained(folder, time_steps=7).config.time_steps == 7


def test_half_precision_is_stored_and_read_as_float32(tmp_path):
    model = AshNetsModel(small_config()).half()
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["vision.collector.concepts"].dtype == torch.float16
    loaded = AshNetsModel.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert same(loaded, model.float())
    kept = AshNetsModel.from_pretrained(tmp_path, dtype=torch.float16)
    assert {p.dtype for p in kept.parameters()} == {torch.float16}


def test_device_and_type_while_loading(saved):
    """With trained and with random weights; ``meta`` is a device that every machine has."""
    _, folder = saved
    ids = torch.tensor([[2, 7, 3], [2, 9, 3]])
    for dtype, options in (("bfloat16", {}), (torch.bfloat16, {"weights": None, "task": "pretraining"})):
        moved = ashnets.from_pretrained(folder, device="meta", **options)
        assert {value.device.type for value in moved.state_dict().values()} == {"meta"}
        half = ashnets.from_pretrained(folder, dtype=dtype, device=torch.device("cpu"), **options)
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
        with torch.no_grad():
            out = half(pixel_values=random_images(2), input_ids=ids)
        assert out.logits_per_image.dtype == torch.float32 and out.logits_per_image.isfinite().all()
        for device in ("gpu", "cuda:99"):
            with pytest.raises(ConfigurationError, match=f"device='{device}' cannot be used"):
                ashnets.from_pretrained(folder, device=device, **options)
        with pytest.raises(ConfigurationError, match="give only one of them"):
            ashnets.from_pretrained(folder, device="cpu", device_map="auto", **options)
    with pytest.raises(ConfigurationError, match="dtype='int8' is not a floating-point type"):
        ashnets.from_pretrained(folder, weights=None, dtype="int8")
    with pytest.raises(
        ConfigurationError, match=r"dtype='fp16' is not .* give 'float32', 'bfloat16', 'float16'.* or 'auto'"
    ):
        ashnets.from_pretrained(folder, dtype="fp16")


def test_configuration_keys_can_be_changed_while_loading(saved):
    loaded = AshNetsForPreTraining.from_pretrained(saved[1], time_steps=9, readout="per_image")
    assert (loaded.config.time_steps, loaded.ashnets.vision.config.readout) == (9, "per_image")


def test_the_attention_that_is_asked_for_is_the_one_that_runs(saved):
    """The transformer has its own configuration, which must change too."""
    for kind in ("eager", "sdpa"):
        loaded = AshNetsForPreTraining.from_pretrained(saved[1], attn_implementation=kind)
        assert loaded.ashnets.transformer.bert.config._attn_implementation == kind
    assert AshNetsModel(small_config()).transformer.bert.config._attn_implementation == "sdpa"


def test_weights_none_builds_random_ones(saved):
    model, folder = saved
    fresh = AshNetsForPreTraining.from_pretrained(folder, weights=None, num_concepts=11)
    assert not fresh.training
    assert fresh.config.num_concepts == 11
    fresh = ashnets.from_pretrained(folder, task="pretraining", weights=None)
    concepts = "ashnets.vision.collector.concepts"
    assert not torch.equal(fresh.state_dict()[concepts], model.state_dict()[concepts])
    assert AshNetsForVQA.from_pretrained("ashnets-tiny-t5", weights=None).config.time_steps == 5


def test_options_of_transformers_are_obeyed_or_refused(saved):
    _, folder = saved
    other = small_config(num_concepts=33)
    fresh = AshNetsForPreTraining.from_pretrained(folder, weights=None, config=other, attn_implementation="eager")
    assert fresh.config.num_concepts == 33
    assert fresh.ashnets.transformer.bert.config._attn_implementation == "eager" != other._attn_implementation
    for option in ({"device_map": "meta"}, {"output_loading_info": True}, {"variant": "fp16"}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(option))}: an option of loading, and weights=None"):
            AshNetsForPreTraining.from_pretrained(folder, weights=None, use_safetensors=True, **option)
    assert AshNetsForPreTraining.from_pretrained(folder, config=folder, time_steps=4).config.time_steps == 4
    loaded, report = AshNetsForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert isinstance(loaded, AshNetsForPreTraining) and not report["missing_keys"] and not report["mismatched_keys"]


def test_a_class_of_ones_own_loads_too(saved):
    class Mine(AshNetsForRetrieval):
        pass

    stored = load_file(saved[1] / "model.safetensors")
    loaded = Mine.from_pretrained(saved[1]).state_dict()
    assert "itm.weight" in loaded and all(torch.equal(tensor, stored[key]) for key, tensor in loaded.items())


def test_an_untrained_name_says_so():
    for load in (AshNetsModel.from_pretrained, ashnets.from_pretrained):
        with pytest.raises(WeightsError, match=r"ashnets-r101-l3: no trained weights.*weights=None"):
            load("ashnets-r101-l3")


@pytest.mark.parametrize("load", [AshNetsModel.from_pretrained, ashnets.from_pretrained])
def test_unknown_names_and_keys(load, saved):
    with pytest.raises(UnknownModelError, match="did you mean ashnets-r101"):
        load("ashnet-r101")
    with pytest.raises(ConfigurationError, match="'tiem_steps'"):
        load(saved[1], tiem_steps=3)
    with pytest.raises(ConfigurationError, match="weights='best'"):
        load(saved[1], weights="best")


# Damaged folders ------------------------------------------------------------------------------------------------------


def refuses(folder, error: type[Exception], message: str, cls: type[AshNetsPreTrainedModel] = AshNetsForPreTraining):
    for load in (cls.from_pretrained, ashnets.from_pretrained):
        with pytest.raises(error, match=message):
            load(folder)


def test_missing_configuration(copy):
    (copy / "config.json").unlink()
    refuses(copy, WeightsError, r"has no config\.json")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_configuration_that_is_not_json(copy, content):
    (copy / "config.json").write_bytes(content)
    refuses(copy, WeightsError, r"config\.json is not valid JSON")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiem_steps": 3}, "unknown configuration key 'tiem_steps'"),
        ({"time_steps": "three"}, "'time_steps' expected int"),
        ({"threshold": -1.0}, r"threshold=-1\.0 must be positive"),
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"dtype": "x"}, "dtype='x' is not a floating-point type"),
        ({"dtype": "nn"}, "dtype='nn' is not a floating-point type"),
        ({"dtype": "int8"}, "dtype='int8' is not a floating-point type"),
        ({"dtype": None, "torch_dtype": ["x"]}, r"dtype=\['x'\] is not a floating-point type"),
        ({"hidden_act": "x"}, "hidden_act='x' is not one of"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be at least 1"),
        ({"backbone_widths": [-4, 8]}, r"backbone_widths=\[-4, 8\] must be at least 1"),
        ({"hidden_dropout_prob": 2.0}, r"hidden_dropout_prob=2\.0 must be in \[0, 1\]"),
        ({"layer_norm_eps": -1.0}, r"layer_norm_eps=-1\.0 must be positive"),
        ({"pad_token_id": 40}, "pad_token_id=40 must be None or below vocab_size=40"),
        ({"image_mean": [math.nan] * 3}, r"image_mean=\[nan, nan, nan\] .*three finite numbers"),
        ({"image_std": [1.0, math.nan, 1.0]}, "three finite numbers"),
        ({"initializer_range": -0.02}, r"initializer_range=-0\.02 must be finite and not negative"),
        ({"id2label": ["yes"]}, "'id2label' with value"),
        ({"id2label": {"yes": "no"}}, "id2label has the key 'yes'"),
        ({"architectures": 3}, "'architectures' with value 3"),
    ],
)
def test_unusable_configuration(copy, change, message):
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    refuses(copy, ConfigurationError, message)


@pytest.mark.parametrize("content", ["[]", "null", '"ashnets"'])
def test_configuration_that_is_no_mapping(copy, content):
    (copy / "config.json").write_text(content)
    refuses(copy, ConfigurationError, r"config\.json has model_type None")


def test_missing_weights(copy):
    (copy / "model.safetensors").unlink()
    refuses(copy, WeightsError, r"no model\.safetensors and no index of shards")


def test_a_pickle_where_safetensors_belong(copy, saved):
    (copy / "model.safetensors").unlink()
    torch.save(saved[0].state_dict(), copy / "pytorch_model.bin")
    refuses(copy, WeightsError, r"pytorch_model\.bin but no \.safetensors")
    (copy / "model.safetensors").write_bytes((copy / "pytorch_model.bin").read_bytes())  # a pickle in disguise
    refuses(copy, WeightsError, "damaged")


@pytest.mark.parametrize("keep", [0, 6, 200, 0.5, -1])
def test_truncated_weights(copy, keep):
    file = copy / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refuses(copy, WeightsError, "damaged")


def edited(folder, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


CONCEPTS = "ashnets.vision.collector.concepts"


def test_missing_tensor(copy):
    edited(copy, lambda tensors: tensors.pop(CONCEPTS))
    refuses(copy, WeightsError, f"missing keys: {CONCEPTS}")


def test_missing_running_statistics(copy):
    name = "ashnets.vision.abstract_encoder.layers.conv1.norm.running_var"
    edited(copy, lambda tensors: tensors.pop(name))
    refuses(copy, WeightsError, f"missing keys: {name}")


def test_extra_tensor(copy):
    edited(copy, lambda tensors: tensors.update(surplus=torch.zeros(2)))
    refuses(copy, WeightsError, "unexpected keys: surplus")


def test_extra_tensor_for_the_bare_model_and_retrieval(copy):
    edited(copy, lambda tensors: tensors.update(surplus=torch.zeros(2)))
    for cls in (AshNetsModel, AshNetsForRetrieval):
        with pytest.raises(WeightsError, match="unexpected keys: surplus"):
            cls.from_pretrained(copy)


def test_tensor_of_another_shape(copy):
    edited(copy, lambda tensors: tensors.update({CONCEPTS: torch.zeros(16, 9)}))
    refuses(copy, WeightsError, rf"{CONCEPTS} \(16, 9\) instead of \(16, 10\)")


def test_weights_of_another_class(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"missing keys: classifier.*another class than AshNetsForVQA"):
        AshNetsForVQA.from_pretrained(saved[1])


@pytest.mark.parametrize(
    ("task", "name", "remedy"),
    [
        ("vqa", "AshNetsForVQA", "ashnets finetune vqa"),
        ("nlvr2", "AshNetsForVisualReasoning", "ashnets finetune nlvr2"),
        ("ve", "AshNetsForVisualEntailment", "ashnets finetune ve"),
    ],
)
def test_a_task_without_weights_is_explained(task, name, remedy):
    """As ``ashnets ask`` does, by the name that the caller gave."""
    said = rf"the weights of ashnets-tiny lack the task '{task}': they were saved from AshNetsForPreTraining.*{remedy}"
    with pytest.raises(WeightsError, match=rf"{said}.*saved from {name}.*weights=None"):
        ashnets.from_pretrained("ashnets-tiny", task=task)


def test_a_head_alone_lacks_the_others(tmp_path):
    HEADS["ve"](small_config()).save_pretrained(tmp_path)
    assert type(ashnets.from_pretrained(tmp_path, task="base")) is AshNetsModel
    with pytest.raises(WeightsError, match=r"lack the task 'retrieval'.*ashnets finetune retrieval"):
        ashnets.from_pretrained(tmp_path, task="retrieval")
    with pytest.raises(WeightsError, match=r"lack the task 'pretraining'.*ashnets train"):
        ashnets.from_pretrained(tmp_path, task="pretraining")


def test_an_unknown_class_in_the_configuration(copy):
    file = copy / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": ["BertModel"]}))
    with pytest.raises(WeightsError, match="'BertModel', which ashnets does not have"):
        ashnets.from_pretrained(copy)
    assert type(ashnets.from_pretrained(copy, task="pretraining")) is AshNetsForPreTraining


@pytest.mark.parametrize("sizes", [("50GB", "10KB"), ("10KB", "50GB"), ("10KB", "20KB")])
def test_a_save_replaces_the_weights_of_another_save_in_any_number_of_files(tmp_path, sizes):
    config = small_config()
    for size in sizes:
        model = AshNetsModel(config)
        model.save_pretrained(tmp_path, max_shard_size=size)
    assert same(AshNetsModel.from_pretrained(tmp_path), model)
    alone = tmp_path / "alone"
    model.save_pretrained(alone, max_shard_size=sizes[-1])
    assert {p.name for p in alone.iterdir()} == {p.name for p in tmp_path.iterdir()} - {"alone"}


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_save_removes_weights_of_its_own_variant_alone(copy):
    """With transformers' file names; other files in the folder stay."""
    model = AshNetsForPreTraining.from_pretrained(copy)
    for name in ("model.safetensors.sha256", "model-notes.safetensors", "models.safetensors", "README.md"):
        (copy / name).write_text("somebody else's")
    before = contents(copy)
    model.save_pretrained(copy, is_main_process=False)
    assert contents(copy) == before
    model.save_pretrained(copy, variant="fp16", max_shard_size="40KB")
    shards = set(contents(copy)) - set(before)
    assert "model.safetensors.index.fp16.json" in shards and "model.fp16-00001-of-00002.safetensors" in shards
    assert before.items() <= contents(copy).items()
    model.save_pretrained(copy, variant="fp16")
    assert contents(copy).keys() == before.keys() | {"model.fp16.safetensors"}


def test_a_variant_alone_is_loaded_by_its_name(copy, saved):
    for size in ("50GB", "40KB"):
        for path in copy.glob("model*"):
            path.unlink()
        saved[0].save_pretrained(copy, variant="fp16", max_shard_size=size)
        refuses(copy, WeightsError, "no weights without a variant; give variant='fp16'")
        for load in (AshNetsForPreTraining.from_pretrained, ashnets.from_pretrained):
            assert same(load(copy, variant="fp16"), saved[0])
            with pytest.raises(WeightsError, match="no weights of the variant 'fp8'; give variant='fp16'"):
                load(copy, variant="fp8")
    saved[0].save_pretrained(copy)
    with pytest.raises(WeightsError, match="no weights of the variant 'fp8'; leave variant out or give variant='fp16'"):
        AshNetsForPreTraining.from_pretrained(copy, variant="fp8")
    assert same(AutoModel.from_pretrained(copy, variant="fp16"), saved[0].ashnets)


def test_a_failed_save_leaves_what_was_there(saved, tmp_path, monkeypatch):
    model, _ = saved
    model.save_pretrained(tmp_path)
    before = contents(tmp_path)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        model.save_pretrained(tmp_path)
    assert contents(tmp_path) == before


KILLED = (
    KILLED_AT
    + """
import sys
import torch
from safetensors.torch import load_file
from ashnets import AshNetsModel

torch.set_num_threads(1)  # a forked process has no other threads

def tensors(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}

def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)

old, new, place = map(Path, sys.argv[1:])
model = AshNetsModel.from_pretrained(new)
wanted, seen = [tensors(old), tensors(new)], []
for moves in range(100):
    folder = place / str(moves)
    AshNetsModel.from_pretrained(old).save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    died = killed_at(moves, lambda: model.save_pretrained(folder, max_shard_size="10KB"))
    whole = (folder / "config.json").is_file()
    if whole:
        assert any(same(tensors(folder), one) for one in wanted), "a mixture of two models under config.json"
    found = dict(AshNetsModel.from_pretrained(folder).state_dict())
    seen.append([same(found, one) for one in wanted].index(True))
    assert (folder / "notes.txt").read_text() == "mine"
    assert not [name for name in os.listdir(folder) if name.endswith((".whole", ".last"))]
    if not died:
        break
assert seen == sorted(seen) and set(seen) == {0, 1} and len(seen) > 6, seen
"""
)


def test_a_save_that_is_killed_between_two_files_is_completed_by_the_next_load(tmp_path):
    """Killed before each move of a file: what is loaded is all old or all new, and other files stay."""
    for name in ("old", "new"):
        AshNetsModel(small_config()).save_pretrained(tmp_path / name)
    command = [sys.executable, "-c", KILLED, *(str(tmp_path / name) for name in ("old", "new", "place"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
