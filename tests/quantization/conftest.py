"""Fixtures of training and of tasks: quantization takes checkpoints of both."""

from tests.tasks.conftest import drawings, small_model
from tests.tasks.conftest import recipe_data as task_recipe_data
from tests.training.conftest import even_corpus, recipe, recipe_data

__all__ = ["drawings", "even_corpus", "recipe", "recipe_data", "small_model", "task_recipe_data"]
