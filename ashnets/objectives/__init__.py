"""The five objectives, each a pure function: ITC, ITM, MLM, MVM, STUA."""

from ashnets.objectives.itc import itc_loss, same_sample
from ashnets.objectives.itm import hard_negatives, itm_loss
from ashnets.objectives.mlm import mask_tokens, mlm_loss
from ashnets.objectives.mvm import mask_one_label, mvm_loss, spike_labels
from ashnets.objectives.queue import EmbeddingQueue
from ashnets.objectives.stua import stua_loss

NAMES = ("itc", "itm", "mlm", "mvm", "stua")

__all__ = [
    "NAMES",
    "EmbeddingQueue",
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
