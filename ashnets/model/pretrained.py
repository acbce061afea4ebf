"""Saving and loading: strict, safetensors only, in evaluation mode, random weights only on request."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging as library_logging

from ashnets.configuration import AshNetsConfig, dtype_of
from ashnets.errors import AshNetsError, ConfigurationError, WeightsError
from ashnets.files import PICKLES, variants
from ashnets.hub.resolving import resolve
from ashnets.model.collector import SemanticCollector
from ashnets.model.recompute import keep_activations, recompute_activations, recomputes
from ashnets.model.tdbn import TdBN
from ashnets.result_folder import MODEL_MARK, result_folder
from ashnets.zoo.registry import config_of

# Options for finding a name; see ashnets.resolve.
HUB_OPTIONS = ("revision", "namespace", "token", "cache_dir", "local_files_only", "force_download")

# Options of transformers' from_pretrained and Auto classes; any other keyword is a configuration key.
LIBRARY_OPTIONS = {
    "adapter_kwargs",
    "attn_implementation",
    "config",
    "device_map",
    "disable_mmap",
    "dtype",
    "ignore_mismatched_sizes",
    "key_mapping",
    "low_cpu_mem_usage",
    "max_memory",
    "offload_buffers",
    "offload_folder",
    "output_loading_info",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
    "variant",
    "_from_auto",
}
_WITHOUT_EFFECT = {"ignore_mismatched_sizes", "low_cpu_mem_usage", "trust_remote_code", "use_safetensors", "_from_auto"}


class AshNetsPreTrainedModel(PreTrainedModel):
    """Base of every ASH-Nets model: initialization and strict loading."""

    config_class = AshNetsConfig
    base_model_prefix = "ashnets"
    main_input_name = "pixel_values"
    config: AshNetsConfig
    ashnets: Any  # of a head: the AshNetsModel that it reads, or the core of a baseline
    accepts_loss_kwargs = False  # for transformers' Trainer: losses are means over a batch, not over a number of items
    _no_split_modules = [  # noqa: RUF012 - transformers' own form
        "SpikingLayer",  # this and the next run as one kernel
        "IntegerSpikingLayer",
        "SemanticCollector",  # this and the next combine their own tensors with results of their parts
        "SummaryRatio",
        "TokenReading",
        "MaskedVisualHead",
    ]
    _supports_sdpa = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = True

    @property
    def device(self) -> torch.device:
        """The device for inputs: that of the weights, or the one on which ``device_map`` executes them."""
        hooks = (getattr(module, "_hf_hook", None) for module in self.modules())
        used = next((found for hook in hooks if (found := getattr(hook, "execution_device", None)) is not None), None)
        return super().device if used is None else torch.device(used)

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        return recomputes(self)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, every_n_layers: int = 1
    ) -> None:
        """What transformers calls to switch it on and off.

        transformers' own function would update the running statistics of a block twice, and start it a second time from
        the membranes after it. So ``gradient_checkpointing_func`` is not used: :mod:`ashnets.model.recompute`.
        """
        keep_activations(self)
        if enable:
            recompute_activations(self, every_n_layers)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, TdBN):
            super()._init_weights(module)
            init.constant_(module.weight, module.alpha * module.theta)
        elif isinstance(module, SemanticCollector):
            # The distribution of F_CNN's normed tokens, over √M2, so that C·z has unit scale too.
            init.normal_(module.concepts, std=1.0 if module.rate_norm is None else self.config.num_concepts**-0.5)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def asked(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[bool, bool]:
        """Whether a call returns attentions and hidden states: what was given, else what the configuration says."""
        config = self.config
        return (
            bool(config.output_attentions if output_attentions is None else output_attentions),
            bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states),
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | os.PathLike,
        *args: Any,
        weights: str | None = "pretrained",
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model by registry name, folder, or Hub repository.

        Args:
            name: ``ashnets-tiny``, a folder that ``save_pretrained`` wrote, or ``org/repo``.
            weights: ``"pretrained"`` loads trained weights and fails where there are none; ``None`` builds the same
                architecture, of a registry name or a folder, with random ones. Of transformers' options, only
                ``config``, ``attn_implementation`` and ``dtype`` then mean something.
            device: where the model is moved to, such as ``"cuda"``; by default it stays on the CPU.
            kwargs: configuration keys, which override the saved ones; ``revision``, ``namespace``, ``token`` and the
                other options of ``ashnets.resolve``; and options of transformers, such as ``variant`` or ``dtype``,
                which is float32 by default, for checkpoints of any type.

        Returns:
            The model in evaluation mode, with all tensors of the checkpoint and no others. With
            ``output_loading_info=True``, also transformers' report on them.

        Raises:
            UnknownModelError: there is no model of this name.
            ConfigurationError: an unknown key, here or in ``config.json``, or a device that there is not.
            WeightsError: no weights, damaged weights, a pickle, or tensors missing, left over or of another shape.
        """
        if weights not in ("pretrained", None):
            raise ConfigurationError(f"weights={weights!r}: give 'pretrained', or None for random weights")
        if args:
            raise ConfigurationError("from_pretrained takes one positional argument; give the others by name")
        if device is not None and kwargs.get("device_map") is not None:
            raise ConfigurationError(f"device={device!r} and device_map: give only one of them")
        hub = {key: kwargs.pop(key) for key in HUB_OPTIONS if key in kwargs}
        changes = {key: kwargs.pop(key) for key in list(kwargs) if key not in LIBRARY_OPTIONS}
        given = kwargs.pop("config", None)
        if isinstance(given, str | os.PathLike):
            given = config_of(given)
        if weights is None:
            config = _changed(given or config_of(name), changes)
            return _moved(*cls._random(config, kwargs, device))
        source = Path(resolve(name, **hub))
        check_folder(source, kwargs.get("variant"))
        config = _changed(given or config_of(source), changes)
        reported = bool(kwargs.pop("output_loading_info", False))
        for key in ("use_safetensors", "ignore_mismatched_sizes", "trust_remote_code"):
            kwargs.pop(key, None)
        if not {"dtype", "torch_dtype"} & set(kwargs):
            kwargs["dtype"] = torch.float32
        _check_dtype(kwargs.get("dtype", kwargs.get("torch_dtype")))
        try:
            with quiet():
                loaded: Any = super().from_pretrained(
                    source,
                    config=config,
                    use_safetensors=True,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # they are reported, and refused below by name and shape
                    **kwargs,
                )
        except AshNetsError:
            raise
        except SafetensorError as error:
            raise WeightsError(f"{source}: the safetensors file is damaged ({error}); download it again") from error
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise WeightsError(f"{source}: the weights cannot be loaded: {_first_lines(error)}") from error
        model, report = loaded
        _refuse_differences(str(name), cls, report)
        model = _moved(model.eval(), device)
        return (model, report) if reported else model  # type: ignore[return-value]

    @classmethod
    def _random(
        cls, config: AshNetsConfig, options: dict[str, Any], device: str | torch.device | None
    ) -> tuple[Self, str | torch.device | None, torch.dtype | None]:
        """A model with random weights, and where and in what type it belongs."""
        kind = options.pop("dtype", None) or options.pop("torch_dtype", None)
        attention = options.pop("attn_implementation", None)
        options = {key: value for key, value in options.items() if value and key not in _WITHOUT_EFFECT}
        if options:
            raise ConfigurationError(f"{', '.join(options)}: an option of loading, and weights=None loads nothing")
        if attention is not None:
            config = copy.deepcopy(config)  # the caller's own
            config._attn_implementation = attention
        with quiet():
            return cls(config).eval(), device, None if kind in (None, "auto") else dtype_of(kind)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """As in transformers, but written as a :func:`~ashnets.result_folder.result_folder`: never half a model.

        Existing weights of the same variant are replaced, also if they are in another number of files. Everything else
        stays. Only the main process writes and removes files. With ``push_to_hub`` the files are saved here first, then
        uploaded; ``repo_id`` is the folder's name by default.
        """

        def save(folder: str | os.PathLike, **options: Any) -> None:
            own = None if state_dict is None else dict(state_dict)  # transformers empties it
            with quiet():
                super(AshNetsPreTrainedModel, self).save_pretrained(folder, is_main_process, own, **options)

        hub = {key: kwargs.pop(key) for key in ("repo_id", "commit_message", "create_pr") if key in kwargs}
        with result_folder(save_directory, MODEL_MARK, "keep") as aside:
            save(aside, **kwargs)
        if push_to_hub:
            with tempfile.TemporaryDirectory() as copy:  # a failed upload must not remove the saved files
                save(copy, push_to_hub=True, **{"repo_id": Path(save_directory).absolute().name, **hub}, **kwargs)


def _check_dtype(kind: object) -> None:
    """Raise ConfigurationError for a name that is neither a type nor ``auto``, the type of the checkpoint."""
    if isinstance(kind, str) and kind != "auto":
        try:
            dtype_of(kind)
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}, or 'auto' for that of the checkpoint") from None


def _moved(model: Any, device: str | torch.device | None, dtype: torch.dtype | None = None) -> Any:
    """The model on another device or in another type. Raises ConfigurationError if there is no such device."""
    if device is None and dtype is None:
        return model
    try:
        return model.to(device=device, dtype=dtype)
    except (RuntimeError, AssertionError) as error:  # torch raises both
        raise ConfigurationError(f"device={str(device)!r} cannot be used: {_first_lines(error)}") from None


_one_at_a_time = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off progress bars and logs of transformers, which our errors replace; one thread at a time.

    These are settings of the process. So are those that transformers changes while it builds or loads a model: torch's
    default type, the initialization functions, and the function that ties weights.
    """
    with _one_at_a_time:
        level, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
        library_logging.set_verbosity_error()
        library_logging.disable_progress_bar()
        try:
            yield
        finally:
            library_logging.set_verbosity(level)
            if bars:
                library_logging.enable_progress_bar()


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Check that a folder has a configuration and the safetensors of the variant.

    Raises:
        WeightsError: one is missing, or there is a pickle instead.
    """
    config = folder / MODEL_MARK
    if not config.is_file():
        raise WeightsError(f"{folder} has no config.json: it is not a model that save_pretrained wrote")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{config} is not valid JSON ({error}); download it again") from error
    names = sorted(path.name for path in folder.iterdir())
    found = variants(names)
    if (variant or "") in found:
        return
    if found:
        asked = f"of the variant {variant!r}" if variant else "without a variant"
        remedy = " or ".join(f"give variant={one!r}" if one else "leave variant out" for one in sorted(found))
        raise WeightsError(f"{folder} has no weights {asked}; {remedy}")
    if pickles := [name for name in names if Path(name).suffix in PICKLES]:
        raise WeightsError(
            f"{folder} has {', '.join(pickles)} but no .safetensors: pickled weights can run code and are never "
            "loaded; use a copy in safetensors"
        )
    raise WeightsError(
        f"{folder} has no model.safetensors and no index of shards: this model has no weights; weights=None builds "
        "it with random ones"
    )


def _refuse_differences(name: str, cls: type, report: Mapping[str, list]) -> None:
    problems = []
    for kind, remedy in (
        ("missing_keys", f"the checkpoint belongs to another class than {cls.__name__} or is incomplete"),
        ("unexpected_keys", f"{cls.__name__} has no such tensors"),
        ("mismatched_keys", "the configuration and the weights belong to different models"),
    ):
        keys = sorted(_named(key) for key in report.get(kind) or ())
        if keys:
            shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
            problems.append(f"{kind.replace('_', ' ')}: {shown} ({remedy})")
    if report.get("error_msgs"):
        problems.append("; ".join(str(m) for m in report["error_msgs"])[:500])
    if problems:
        raise WeightsError(f"{name}: the weights do not fit. " + " · ".join(problems))


def _named(key: str | tuple) -> str:
    """A key of transformers' report: a name, or a name with the two shapes."""
    if isinstance(key, str):
        return key
    name, stored, expected = key
    return f"{name} {tuple(stored)} instead of {tuple(expected)}"


def _changed(config: AshNetsConfig, changes: Mapping[str, object]) -> AshNetsConfig:
    """The configuration with changed keys, checked again."""
    return AshNetsConfig(**{**config.to_dict(), **changes}) if changes else config


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:600] or type(error).__name__
