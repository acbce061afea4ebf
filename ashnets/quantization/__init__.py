"""Quantization: from a float model to one whose spiking branch computes in integers."""
