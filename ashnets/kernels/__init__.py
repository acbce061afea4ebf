"""Multi-step kernels of the spiking branch: LIF neurons behind a normalization, forward and backward; LIF in integers.

``reference`` and ``integer_reference`` define them in torch, ``cpu`` and ``integer_cpu`` compile them by numba, ``gpu``
the float ones by Triton; ``operators`` and ``integer_operators`` pick. ``python -m ashnets.kernels`` compiles all ahead
of their first use.
"""
