"""Evaluation: retrieval, classification, prediction, text-only baselines, and tables of results."""
