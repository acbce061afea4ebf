"""Export of the spiking branch: a neutral graph, the formats written from it, its operations and their energy."""

from ashnets.export.counting import Counts, LayerCounts, count
from ashnets.export.energy.estimating import Estimate, Profile, estimate, load_profile, profile_names
from ashnets.export.exporting import FORMATS, export_model
from ashnets.export.graph import GraphLayer, InputEncoding, SpikingGraph, from_model, quantized
from ashnets.export.lava import read_lava, write_lava
from ashnets.export.nir_graph import compare_nir, read_nir, write_nir
from ashnets.export.onnx.model import run_onnx_model, write_onnx_model
from ashnets.export.onnx.reading import read_spikes, write_onnx_reading
from ashnets.export.onnx.running import Comparison, compare_with_reference, run_onnx
from ashnets.export.onnx.sequence import write_onnx_sequence
from ashnets.export.onnx.step import write_onnx_step
from ashnets.export.placement.chips import Chip, load_chip
from ashnets.export.placement.placed import Placement
from ashnets.export.placement.placing import place
from ashnets.zoo.macs import dense_macs

__all__ = [
    "FORMATS",
    "Chip",
    "Comparison",
    "Counts",
    "Estimate",
    "GraphLayer",
    "InputEncoding",
    "LayerCounts",
    "Placement",
    "Profile",
    "SpikingGraph",
    "compare_nir",
    "compare_with_reference",
    "count",
    "dense_macs",
    "estimate",
    "export_model",
    "from_model",
    "load_chip",
    "load_profile",
    "place",
    "profile_names",
    "quantized",
    "read_lava",
    "read_nir",
    "read_spikes",
    "run_onnx",
    "run_onnx_model",
    "write_lava",
    "write_nir",
    "write_onnx_model",
    "write_onnx_reading",
    "write_onnx_sequence",
    "write_onnx_step",
]
