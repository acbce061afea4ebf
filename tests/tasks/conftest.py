"""Fixtures of tasks."""

from tests.small_tasks import benchmarks, drawings, recipe_data, saved_models, small_model, write_recipe

__all__ = ["benchmarks", "drawings", "recipe_data", "saved_models", "small_model", "write_recipe"]
