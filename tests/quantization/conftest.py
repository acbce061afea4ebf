"""Fixtures of training and of tasks: quantization needs checkpoints of both."""

from tests.small_tasks import drawings, small_model
from tests.small_tasks import recipe_data as task_recipe_data
from tests.training.conftest import even_corpus, recipe, recipe_data

__all__ = ["drawings", "even_corpus", "recipe", "recipe_data", "small_model", "task_recipe_data"]
