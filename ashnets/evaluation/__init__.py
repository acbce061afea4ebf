"""Evaluation: retrieval, classification, prediction, baselines that read the text alone, and the tables of results."""
