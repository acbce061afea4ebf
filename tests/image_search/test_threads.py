"""Threads that share a model get the same answers as one thread, and a call has no lasting effects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from spikingjelly.activation_based.base import MemoryModule
from transformers.utils import logging as library_logging

import ashnets
from ashnets.data.vocabulary import tokenize
from ashnets.zoo import create

THREADS = 8
TEXTS = ["a red car", "fox", "two dogs on a hill", "a house", "sun", "a very long street", "cat and dog", "no"]


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Threads switch after a few instructions, and torch starts no threads of its own."""
    interval, threads = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-5)
    torch.set_num_threads(1)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def loaded(model) -> tuple[Any, Any]:
    """A retrieval model and its processor."""
    return ashnets.from_pretrained(model), ashnets.AshNetsProcessor.from_pretrained(model)


@pytest.fixture(scope="module")
def inputs(loaded) -> list[Any]:
    """Pairs of an image and a text; the texts differ in length."""
    pixels = torch.rand(THREADS, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    return [
        loaded[1](images=(image * 255).byte().permute(1, 2, 0).numpy(), text=text)
        for image, text in zip(pixels, TEXTS, strict=True)
    ]


def at_once(call: Callable[[Any], Any], arguments: Sequence[Any], rounds: int = 4) -> list[list[Any]]:
    """The results of several threads that start together, one for each argument."""
    together = Barrier(len(arguments))

    def work(argument: Any) -> list[Any]:
        together.wait()
        return [call(argument) for _ in range(rounds)]

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(work, arguments))


def check(call: Callable[[Any], Any], arguments: Sequence[Any], rounds: int = 4) -> None:
    """Each thread's results equal those of a single thread, and differ from each other."""
    expected = [call(argument) for argument in arguments]
    assert any(repr(one) != repr(expected[0]) for one in expected)
    for found, one in zip(at_once(call, arguments, rounds), expected, strict=True):
        for again in found:
            torch.testing.assert_close(again, one, rtol=1e-4, atol=1e-5)


def test_one_model_on_many_images(loaded, inputs):
    def answer(number: int) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode():
            out = loaded[0](**inputs[number], output_attentions=number % 4 == 0)
        assert len(out.attentions or ()) == (1 if number % 4 == 0 else 0)
        visual = out.visual
        return out.itm_logits, out.image_embeds, visual.response, *visual.state, *(out.attentions or ())

    check(answer, range(THREADS), rounds=8)


def test_a_forward_pass_changes_nothing_on_any_module(loaded, inputs):
    def everything() -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        for name, module in loaded[0].named_modules():
            own = {key: value for key, value in vars(module).items() if key != "_modules"}
            kept = {key: list(value.items()) if isinstance(value, dict) else value for key, value in own.items()}
            found.append((name, repr(kept)))
            if isinstance(module, MemoryModule):
                assert not any(torch.is_tensor(value) for value in module._memories.values())
            if hasattr(module, "config"):
                found.append((name, module.config._attn_implementation))
        return found

    before = everything()
    with torch.no_grad():
        loaded[0](**inputs[0], output_attentions=True)
        loaded[0](**inputs[1])
    assert everything() == before


def test_questions(vqa_model, images):
    ask = ashnets.ImageQuestions(vqa_model)
    paths = sorted((images / "a").glob("[0-9]*.png"))[:THREADS]

    def best(number: int) -> dict[str, float]:
        return {one["answer"]: one["score"] for one in ask(paths[number], TEXTS[number])}

    check(best, range(THREADS), rounds=8)


def test_search_with_the_matching_head(model, images):
    search = ashnets.ImageSearch(images, model, progress=False)

    def hits(number: int) -> dict[str, tuple[float, float]]:
        candidates = number % 4 + 1
        found = search(TEXTS[number], top=candidates, rerank=candidates)
        return {hit["image"]: (hit["score"], hit["matching"]) for hit in found}

    check(hits, range(THREADS), rounds=8)


def test_one_tokenizer_that_cuts_and_pads_differently(loaded):
    processor = loaded[1]

    def ids(number: int) -> list[list[int]]:
        texts = TEXTS[: number + 1]
        if number % 2:
            return tokenize(processor.tokenizer, texts, 4 + number)["input_ids"].tolist()
        return processor(text=texts)["input_ids"].tolist()

    check(ids, range(THREADS), rounds=20)


def test_loading_and_creating(model):
    """Complete models with correct weights; the settings of transformers are unchanged."""
    library_logging.set_verbosity_info()
    try:

        def make(number: int) -> dict[str, torch.Tensor]:
            if number % 2:
                made = create("ashnets-tiny", task="pretraining", seed=number)
                words = made.ashnets.transformer.bert.embeddings.word_embeddings.weight
                assert made.mlm.decoder.weight is words
                return {"words": words.detach()}
            return ashnets.from_pretrained("ashnets-tiny" if number == 2 else model).state_dict()

        check(make, range(4), rounds=1)
        assert library_logging.get_verbosity() == library_logging.INFO
        assert library_logging.is_progress_bar_enabled()
    finally:
        library_logging.set_verbosity_warning()


def test_auto_classes_that_several_threads_ask_for_first():
    """No thread gets an error about an unknown type of model while another thread registers it."""
    code = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import ashnets, transformers
sys.setswitchinterval(1e-5)
together = threading.Barrier(4)
def find(_):
    together.wait()
    return transformers.AutoConfig.for_model("ashnets").model_type
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(find, range(4))) == ["ashnets"] * 4
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
