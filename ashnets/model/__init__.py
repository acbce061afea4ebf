"""The model, one part per file: neuron, tdBN, sampling, two encoders, collector, alignment transformer, heads.

Importing this package registers the classes with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModel

from ashnets.configuration import AshNetsConfig
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.classifiers import AshNetsForVisualEntailment, AshNetsForVisualReasoning, AshNetsForVQA
from ashnets.model.heads import HEADS, AshNetsForPreTraining, AshNetsForRetrieval, head_class

AutoConfig.register(AshNetsConfig.model_type, AshNetsConfig, exist_ok=True)
AutoModel.register(AshNetsConfig, AshNetsModel, exist_ok=True)

__all__ = [
    "HEADS",
    "AshNetsForPreTraining",
    "AshNetsForRetrieval",
    "AshNetsForVQA",
    "AshNetsForVisualEntailment",
    "AshNetsForVisualReasoning",
    "AshNetsModel",
    "head_class",
]
