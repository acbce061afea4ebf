"""Taking the spiking branch away: one neutral graph, the formats written from it, its operations and their energy."""

from ashnets.export.count import Counts, LayerCounts, count, dense_macs
from ashnets.export.energy import Estimate, Profile, estimate, load_profile, profile_names
from ashnets.export.graph import InputEncoding, SpikingGraph, SpikingLayer, from_model
from ashnets.export.onnx_step import Comparison, compare, run_onnx, write_onnx_step

__all__ = [
    "Comparison",
    "Counts",
    "Estimate",
    "InputEncoding",
    "LayerCounts",
    "Profile",
    "SpikingGraph",
    "SpikingLayer",
    "compare",
    "count",
    "dense_macs",
    "estimate",
    "from_model",
    "load_profile",
    "profile_names",
    "run_onnx",
    "write_onnx_step",
]
