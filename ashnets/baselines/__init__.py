"""Baselines: other architectures, trained in the same loop on the same pairs, for comparison with ASH-Nets.

============ ==========================================================================================================
baseline     description
============ ==========================================================================================================
``vilt``     ViLT (Kim, Son and Kim, ICML 2021; layers of transformers): patches and words in one transformer, trained
             with ITM and MLM. It has no embeddings of images or texts, so retrieval needs ITM on all pairs
``frozen``   a frozen ResNet-50 with ImageNet weights; only a projection, a text encoder and a classifier are trained
============ ==========================================================================================================

Width, layers, heads, vocabulary, image size and the initial weights of the text encoder are those of an ASH-Nets
architecture. `ashnets train` trains them with the recipes ``baseline-vilt`` and ``baseline-frozen``, which have a key
``baseline``. ``python -m ashnets.baselines`` trains them and ASH-Nets with the same budget and writes the table.
"""
