"""Images and text to the input tensors of the models.

    processor = AshNetsProcessor.from_pretrained("ashnets-tiny")
    model(**processor(images="cat.png", text="a cat"))

Importing this module registers the two classes with transformers' AutoProcessor and AutoImageProcessor.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from ashnets.configuration import AshNetsConfig
from ashnets.data.images import ImageSource, load_image
from ashnets.data.vocabulary import encode, read_vocabulary, tokenizer_from_vocabulary
from ashnets.errors import AshNetsError, ConfigurationError, InputError
from ashnets.files import JsonObject
from ashnets.hub.resolving import resolve
from ashnets.model.pretrained import HUB_OPTIONS
from ashnets.model.sampling import content_key, image_key
from ashnets.result_folder import result_folder

FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")
PADDING = (True, False, "longest", "max_length", "do_not_pad")
TRUNCATION = (True, False, "longest_first", "do_not_truncate")


class AshNetsImageProcessor(BaseImageProcessor):
    """Images to intensities: RGB, the whole image scaled to a square (bicubic), float32 in [0, 1].

    The result is not normalized: the spiking branch samples plain intensities, the concrete encoder normalizes them.
    """

    model_input_names = ["pixel_values", "image_keys"]  # noqa: RUF012

    def __init__(self, image_size: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(image_size, int) or image_size < 1:
            raise ConfigurationError(f"image_size={image_size!r} must be a positive number of pixels")
        self.image_size = image_size

    def preprocess(
        self,
        images: ImageSource | torch.Tensor | Sequence,
        image_ids: Sequence[int | str] | torch.Tensor | int | str | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Images to ``pixel_values`` (B, 3, S, S) and ``image_keys`` (B,); pairs to (B, 2, 3, S, S) and (B, 2).

        See :meth:`AshNetsProcessor.__call__`.
        """
        sources, paired = _images(images)
        pixels = torch.stack([self._pixels(source, i, len(sources)) for i, source in enumerate(sources)])
        if image_ids is None:
            keys = [content_key(image) for image in pixels]
        else:
            keys = _image_keys(image_ids)
            if len(keys) != len(sources):
                raise InputError(f"{len(keys)} image ids for {len(sources)} images: give one id for each image")
        data = {"pixel_values": pixels, "image_keys": torch.tensor(keys, dtype=torch.int64)}
        if paired:
            data = {key: value.unflatten(0, (-1, 2)) for key, value in data.items()}
        return BatchFeature(_in_type(data, return_tensors))

    def _pixels(self, source: ImageSource | torch.Tensor, index: int, count: int) -> torch.Tensor:
        try:
            image = load_image(_array(source) if isinstance(source, torch.Tensor) else source)
        except InputError as error:
            raise InputError(f"images[{index}]: {error}" if count > 1 else str(error)) from None
        side = (self.image_size, self.image_size)
        if image.size != side:
            image = image.resize(side, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255)


class AshNetsProcessor(ProcessorMixin):
    """Images and text to tensors.

    Args:
        image_processor: processes the images.
        tokenizer: WordPiece tokenizer of BERT; it cuts texts to ``model_max_length`` tokens.
    """

    def __init__(self, image_processor: AshNetsImageProcessor, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(image_processor, tokenizer)
        tokenizer.split_special_tokens = True  # "[SEP]" in a text is plain text, not a special token
        self._told_unknown = False

    @classmethod
    def from_config(cls, config: AshNetsConfig, vocabulary: Sequence[str] | str | os.PathLike) -> AshNetsProcessor:
        """The processor of an architecture.

        Args:
            config: for the side of the images and the maximum text length.
            vocabulary: path of a ``vocab.txt``, or its pieces in order.

        Raises:
            DataError: the vocabulary is unusable.
            ConfigurationError: the number of pieces is not ``config.vocab_size``.
        """
        pieces = read_vocabulary(vocabulary) if isinstance(vocabulary, str | os.PathLike) else list(vocabulary)
        if len(pieces) != config.vocab_size:
            raise ConfigurationError(
                f"the vocabulary has {len(pieces)} pieces, but vocab_size={config.vocab_size}: they must be equal"
            )
        return cls(AshNetsImageProcessor(config.image_size), tokenizer_from_vocabulary(pieces, config.max_text_length))

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | os.PathLike, **kwargs: Any
    ) -> AshNetsProcessor:
        """Load a processor by registry name, folder, or Hub repository.

        Raises:
            UnknownModelError: there is no model of this name.
            ConfigurationError: files of the processor are missing or damaged.
        """
        found = {key: kwargs.pop(key) for key in HUB_OPTIONS if kwargs.get(key) is not None}
        folder = resolve(name, **found)
        kwargs = {key: value for key, value in kwargs.items() if key not in HUB_OPTIONS}
        for file in FILES:  # without tokenizer.json the library would return an empty vocabulary
            if not (Path(folder) / file).is_file():
                raise ConfigurationError(
                    f"{name}: {folder} has no {file}; save the processor there with save_pretrained"
                )
        try:
            return super().from_pretrained(folder, **kwargs)
        except AshNetsError:
            raise
        except Exception as error:  # json, tokenizers and transformers raise different errors
            raise ConfigurationError(
                f"{name}: the processor cannot be loaded from {', '.join(FILES)} of {folder} "
                f"({' '.join(str(error).split())[:300]}); download them again"
            ) from error

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As in transformers, but never half-written; see ``AshNetsModel.save_pretrained``."""
        with result_folder(save_directory, FILES[0], "keep") as aside:
            super().save_pretrained(str(aside))
        if push_to_hub:
            with tempfile.TemporaryDirectory() as copy:
                super().save_pretrained(copy, True, **{"repo_id": Path(save_directory).absolute().name, **kwargs})

    @property
    def max_text_length(self) -> int:
        """Maximum number of tokens of a text, [CLS] and [SEP] included; longer texts are cut."""
        return self.tokenizer.model_max_length

    @property
    def model_input_names(self) -> list[str]:
        """The keys that a call may return."""
        return ["pixel_values", "image_keys", "input_ids", "attention_mask"]

    def __call__(
        self,
        images: ImageSource | torch.Tensor | Sequence | None = None,
        text: str | Sequence[str] | None = None,
        image_ids: Sequence[int | str] | torch.Tensor | int | str | None = None,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        truncation: bool | str = True,
        max_length: int | None = None,
    ) -> BatchFeature:
        """Make one batch of images, texts, or both; their numbers may differ, as in retrieval.

        Args:
            images: an image or a list of images: PIL image, path, encoded bytes, binary file, or array or tensor
                (H, W, channels) or (channels, H, W), of uint8 or of float in [0, 1]; or several in an array or tensor
                of four dimensions. A list of pairs (lists or tuples of two images) is a batch for NLVR2.
            text: a text or a list of texts, in which names of special tokens such as ``[SEP]`` are plain characters. A
                warning, only once, names words that are not in the vocabulary, such as emoji.
            image_ids: a number or name for each image, which determines its spikes; by default the content of the image
                does. For pairs, give them nested in the same way or flat.
            return_tensors: ``"pt"``, ``"np"``, or ``None`` for lists.
            padding: True or ``"longest"``, to the longest text; ``"max_length"``; False or ``"do_not_pad"``.
            truncation: True or ``"longest_first"`` cuts texts to ``max_length`` tokens, and a ``UserWarning`` gives
                their number; False or ``"do_not_truncate"`` leaves them whole.
            max_length: tokens of a text, [CLS] and [SEP] included; ``max_text_length`` by default.

        Returns:
            ``pixel_values`` (B, 3, S, S) float32 in [0, 1] and ``image_keys`` (B,) int64, for pairs (B, 2, 3, S, S)
            and (B, 2); ``input_ids`` and ``attention_mask`` (B, L) int64.

        Raises:
            InputError: neither images nor text were given, a list is empty, an image is unusable, a text is empty or no
                string, or texts without padding differ in length and do not make a tensor.
        """
        if images is None and text is None:
            raise InputError("nothing to process: give images, text, or both")
        if images is None and image_ids is not None:
            raise InputError("image_ids were given without images: give the images too")
        data: JsonObject = {}
        if images is not None:
            data.update(self.image_processor(images, image_ids, return_tensors))
        if text is not None:
            data.update(self._tokenize(text, return_tensors, padding, truncation, max_length))
        return BatchFeature(data)

    def _tokenize(
        self,
        text: str | Sequence[str],
        return_tensors: str | None,
        padding: bool | str,
        truncation: bool | str,
        max_length: int | None,
    ) -> JsonObject:
        length = self.max_text_length if max_length is None else max_length
        _one_of("padding", padding, PADDING)
        _one_of("truncation", truncation, TRUNCATION)
        if not isinstance(length, int) or length < 3:
            raise InputError(f"max_length={length!r}: give at least 3, for [CLS], one token and [SEP]")
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list | tuple):
            raise InputError(f"text is of type {type(text).__name__}: give a string or a list of strings")
        if not texts:
            raise InputError("text is an empty list: give at least one text")
        for i, one in enumerate(texts):
            if not isinstance(one, str):
                raise InputError(f"text[{i}] is of type {type(one).__name__}: give a string, not {str(one)[:60]!r}")
            if not one.strip():
                raise InputError(f"{_place(text, i)} is empty ({one[:60]!r}): give at least one word")
        try:
            batch = encode(self.tokenizer, list(texts), length, padding=padding, truncation=truncation)
        except (TypeError, UnicodeError):  # lone surrogates
            raise InputError("text contains lone surrogates, which are not Unicode text: remove them") from None
        for i, mask in enumerate(batch["attention_mask"]):
            if sum(mask) <= 2:
                raise InputError(
                    f"{_place(text, i)} has no visible character ({texts[i][:60]!r}): give at least one word"
                )
        encodings = batch.encodings or []
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts are longer than {length} tokens and were cut",
                UserWarning,
                stacklevel=3,
            )
        if not self._told_unknown and (unknown := self._unknown_words(texts, encodings)):
            self._told_unknown = True
            warnings.warn(
                f"this model's vocabulary has no piece for {', '.join(map(repr, unknown[:10]))}"
                f"{f' and {len(unknown) - 10} more' if len(unknown) > 10 else ''}: each is read as [UNK], an unknown "
                "word (this warning is given once)",
                UserWarning,
                stacklevel=3,
            )
        names = ("input_ids", "attention_mask")
        if return_tensors is None:
            return {key: batch[key] for key in names}
        if len(lengths := sorted({len(ids) for ids in batch["input_ids"]})) > 1:
            raise InputError(
                f"texts of {lengths[0]} to {lengths[-1]} tokens do not make a tensor: give padding=True, or "
                "return_tensors=None for lists"
            )
        return _in_type({key: torch.tensor(batch[key], dtype=torch.int64) for key in names}, return_tensors)

    def _unknown_words(self, texts: Sequence[str], encodings: Sequence[Any]) -> list[str]:
        unknown = self.tokenizer.unk_token_id
        spans = (
            text[slice(*span)]
            for text, encoding in zip(texts, encodings, strict=True)
            for piece, span in zip(encoding.ids, encoding.offsets, strict=True)
            if piece == unknown
        )
        return list(dict.fromkeys(spans))


def _place(text: object, index: int) -> str:
    return "text" if isinstance(text, str) else f"text[{index}]"


def _images(images: object) -> tuple[list, bool]:
    """All images in one list, and whether they were given in pairs."""
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, list | tuple):
        return [images], False
    if not images:
        raise InputError("images is an empty list: give at least one image")
    nested = [isinstance(item, list | tuple) for item in images]
    if not any(nested):
        return list(images), False
    if not all(nested):
        raise InputError("images contains both images and pairs of images: give either images or pairs")
    for i, pair in enumerate(images):
        if len(pair) != 2:
            raise InputError(f"images[{i}] has {len(pair)} images: give two, a pair for NLVR2")
    return [image for pair in images for image in pair], True


def _array(image: torch.Tensor) -> np.ndarray:
    image = image.detach().cpu()
    return (image.float() if image.is_floating_point() else image).numpy()  # numpy has no bfloat16


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


def _image_keys(image_ids: object) -> list[int]:
    if isinstance(image_ids, torch.Tensor | np.ndarray):
        image_ids = image_ids.tolist()
    if not isinstance(image_ids, list | tuple):
        image_ids = [image_ids]
    keys = []
    for item in image_ids:
        if isinstance(item, list | tuple):
            keys.extend(_image_keys(item))
        elif isinstance(item, str):
            keys.append(image_key(item))
        elif isinstance(item, Integral) and not isinstance(item, bool):
            keys.append(image_key(int(item)))
        else:
            raise InputError(f"image id {item!r} is of type {type(item).__name__}: give integers or names")
    return keys


def _in_type(data: dict[str, torch.Tensor], return_tensors: str | None) -> JsonObject:
    if return_tensors == "pt":
        return data
    if return_tensors == "np":
        return {key: value.numpy() for key, value in data.items()}
    if return_tensors is None:
        return {key: value.tolist() for key, value in data.items()}
    raise InputError(f"return_tensors={return_tensors!r}: give 'pt', 'np' or None")


AutoImageProcessor.register(AshNetsConfig, image_processor_classes={"pil": AshNetsImageProcessor}, exist_ok=True)
AutoProcessor.register(AshNetsConfig, AshNetsProcessor, exist_ok=True)
