"""The registry of models: names, configurations, weights."""

from ashnets.zoo.describing import Description, describe
from ashnets.zoo.registry import Entry, Weights, config_of, create, entry, is_name, list_models, recipe_path

__all__ = [
    "Description",
    "Entry",
    "Weights",
    "config_of",
    "create",
    "describe",
    "entry",
    "is_name",
    "list_models",
    "recipe_path",
]
