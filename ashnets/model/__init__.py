"""The model, one part per file: neuron, tdBN, sampling, two encoders, collector, alignment transformer, heads.

Importing this package registers the classes with transformers' Auto classes.
"""

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForZeroShotImageClassification
from transformers.models.auto import modeling_auto

from ashnets.configuration import AshNetsConfig
from ashnets.model.ashnets import AshNetsModel
from ashnets.model.classifiers import AshNetsForVisualEntailment, AshNetsForVisualReasoning, AshNetsForVQA
from ashnets.model.heads import HEADS, AshNetsForPreTraining, AshNetsForRetrieval, head_class

AutoConfig.register(AshNetsConfig.model_type, AshNetsConfig, exist_ok=True)
AutoModel.register(AshNetsConfig, AshNetsModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(AshNetsConfig, AshNetsForRetrieval, exist_ok=True)
# The pipeline reads these names, not what is registered, and reports a class that is missing as unsupported.
_NAMES: dict[str, Any] = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
_NAMES[AshNetsConfig.model_type] = (AshNetsForRetrieval.__name__, AshNetsForPreTraining.__name__)

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
