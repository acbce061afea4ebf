"""Peers: other architectures, trained by the same loop on the same pairs, to set ASH-Nets beside.

============ ==========================================================================================================
peer         what it is
============ ==========================================================================================================
``vilt``     ViLT (Kim, Son and Kim, ICML 2021; transformers' own layers): patches and words in one transformer, trained
             by matching and masked words. It has no embeddings of pictures or texts: it retrieves by matching all pairs
``frozen``   a frozen ResNet-50 with ImageNet's weights; only a projection, a text encoder and a classifier are trained
============ ==========================================================================================================

Both take width, layers, heads, vocabulary, picture size and the text's starting weights from an ASH-Nets architecture.
The recipes ``peer-vilt`` and ``peer-frozen`` train them by `ashnets train`, as their key ``peer`` says;
``python -m ashnets.peers`` trains them and the architecture itself on one budget, and writes the table.
"""
