"""The objectives, each a pure function: the paper's ITC, ITM, MLM, MVM and STUA; and distillation."""

from ashnets.objectives.distill import distillation_loss
from ashnets.objectives.itc import itc_loss, same_sample
from ashnets.objectives.itm import hard_negatives, itm_loss
from ashnets.objectives.mlm import mask_tokens, mlm_loss
from ashnets.objectives.mvm import mask_one_label, mvm_loss, spike_labels
from ashnets.objectives.queue import EmbeddingQueue
from ashnets.objectives.stua import stua_loss

NAMES = ("itc", "itm", "mlm", "mvm", "stua", "distill")
OF_THE_SPIKES = ("stua", "distill")  # they train the spiking branch also while it is not gated into the tokens

__all__ = [
    "NAMES",
    "OF_THE_SPIKES",
    "EmbeddingQueue",
    "distillation_loss",
    "hard_negatives",
    "itc_loss",
    "itm_loss",
    "mask_one_label",
    "mask_tokens",
    "mlm_loss",
    "mvm_loss",
    "same_sample",
    "spike_labels",
    "stua_loss",
]
