"""Multi-step kernels of the spiking branch: LIF neurons behind a normalisation, forward and backward.

``reference`` defines them in torch, ``cpu`` compiles them by numba; ``operators`` picks. ``python -m ashnets.kernels``
compiles them ahead of their first use.
"""
