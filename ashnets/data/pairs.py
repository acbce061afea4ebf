"""Image–caption pairs of one or more splits; images are read and decoded on demand.

Captions and ids are in memory, as Arrow; images stay in their files. So each worker of a DataLoader decodes only its
own batches, and sending the pairs to a worker costs only the size of the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image

from ashnets.data.augment import on_background
from ashnets.data.images import load_image, load_rgba
from ashnets.data.packed import PackedImages, pack
from ashnets.data.sources.opening import Source
from ashnets.errors import DataError, InputError


class Pairs:
    """Images and captions by index; picklable, and safe to read from many processes.

    Args:
        source: from `open_source`.
        splits: names of splits, concatenated.
        side: of the decoded images, in pixels.

    Raises:
        DataError: a split that does not exist; a parquet file whose images cannot be read.

    Attributes:
        samples: (n,), int64; equal where two images show the same concept.
    """

    def __init__(self, source: Source, splits: Iterable[str], side: int) -> None:
        tables = [source.split(split) for split in dict.fromkeys(splits)]
        if not tables:
            raise DataError(f"{source.path}: no split is given; there are {', '.join(source.splits)}.")
        rows = pa.concat_tables(tables).combine_chunks()
        self.side = side
        self._folder = source.folder
        self._ids, self._names, self._captions, self._files = (
            rows[key].combine_chunks() for key in ("image_id", "name", "captions", "file")
        )
        self._rows = rows["row"].to_numpy()
        self.samples = torch.from_numpy(_numbers(rows["concept"].to_pylist()))
        self._packed: dict[str, PackedImages] = {}
        for file in rows.filter(pc.greater_equal(rows["row"], 0))["file"].unique().to_pylist():
            pack(self._folder / file)  # now, so that damage and full disks show before the first batch

    def __len__(self) -> int:
        return len(self._ids)

    def __getstate__(self) -> dict[str, object]:
        """Without open files and cached lists."""
        left_out = {"image_ids", "names", "_places"}
        return {**{key: value for key, value in self.__dict__.items() if key not in left_out}, "_packed": {}}

    @cached_property
    def image_ids(self) -> list[str]:
        """Names of the images, unique."""
        return self._ids.to_pylist()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.image_ids)}

    @cached_property
    def names(self) -> list[str]:
        """The name of each image's concept, or else its first caption."""
        return self._names.to_pylist()

    def captions_of(self, index: int) -> list[str]:
        """All captions of an image, its name first if the data has one."""
        return self._captions[int(index)].as_py()

    def decode(self, index: int) -> torch.Tensor:
        """One image as RGBA, scaled to the square: (4, side, side), uint8. Raises DataError if it cannot be."""
        resized = np.asarray(self.open(index).resize((self.side, self.side), Image.Resampling.BICUBIC))
        return torch.from_numpy(resized.transpose(2, 0, 1).copy())

    def open(self, index: int) -> Image.Image:
        """One image as RGBA, in its own size. Raises DataError if it cannot be read."""
        index = int(index)
        file, row = self._files[index].as_py(), int(self._rows[index])
        try:
            return load_rgba(self._folder / file if row < 0 else self._encoded(file, row))
        except InputError as error:
            raise DataError(f"{self._place(index)}: {error} Replace it or remove its row.") from None

    def shown(self, name: str) -> Image.Image:
        """One image by its name, in RGB on white and in its own size. Raises DataError if it cannot be read."""
        return load_image(self.open(self._places[name]))

    def rgba(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """(B, 4, side, side) in [0, 1]."""
        return torch.stack([self.decode(i) for i in indices]).float() / 255

    def on_white(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """(B, 3, side, side) in [0, 1]: as the processor gives for the same image."""
        return on_background(self.rgba(indices), torch.ones(1, 3, 1, 1))

    def _encoded(self, file: str, row: int) -> memoryview:
        if file not in self._packed:
            self._packed[file] = PackedImages(self._folder / file)
        data = self._packed[file][row]
        if data is None:
            raise InputError("The row contains no image.")
        return memoryview(data)

    def _place(self, index: int) -> str:
        file, row = self._files[index].as_py(), int(self._rows[index])
        where = "" if row < 0 else f" ({self._folder / file}, row {row})"
        return f"image {self._ids[index].as_py()!r}{where}"


def _numbers(concepts: list[str | None]) -> np.ndarray:
    """Equal numbers for equal concepts; a unique number for each image without a concept."""
    order = {concept: i for i, concept in enumerate(sorted({c for c in concepts if c is not None}))}
    own = iter(range(len(order), len(order) + len(concepts)))
    return np.array([next(own) if concept is None else order[concept] for concept in concepts], dtype=np.int64)
