"""Downstream tasks: fine-tuning and evaluation on question answering, retrieval, NLVR2 and visual entailment.

One file for each task says what its items, targets and metrics are; `finetuning` trains all of them, by the loop of
pre-training, and `evaluating` measures them.
"""
