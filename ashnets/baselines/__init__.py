"""Baselines: other architectures, trained by the same loop on the same pairs, to set ASH-Nets beside.

============ ==========================================================================================================
baseline         what it is
============ ==========================================================================================================
``vilt``     ViLT (Kim, Son and Kim, ICML 2021; transformers' own layers): patches and words in one transformer, trained
             by matching and masked words. It has no embeddings of images or texts: it retrieves by matching all pairs
``frozen``   a frozen ResNet-50 with ImageNet's weights; only a projection, a text encoder and a classifier are trained
============ ==========================================================================================================

Both take width, layers, heads, vocabulary, image size and the text's starting weights from an ASH-Nets architecture.
The recipes ``baseline-vilt`` and ``baseline-frozen`` train them by `ashnets train`, as their key ``baseline`` says;
``python -m ashnets.baselines`` trains them and the architecture itself on one budget, and writes the table.
"""
