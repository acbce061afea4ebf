"""Downstream tasks: visual question answering, retrieval, NLVR2 and visual entailment.

One file for each task defines its items, targets and metrics. `finetuning` trains all of them in the loop of
pre-training; `ashnets.evaluation` evaluates them.
"""
