"""Multi-step kernels of the spiking branch: LIF neurons after a normalization, forward and backward; LIF in integers.

``reference`` and ``integer_reference`` define them in torch. ``cpu`` and ``integer_cpu`` compile them with numba, and
``gpu`` compiles the float ones with Triton. ``operators`` and ``integer_operators`` choose among them.
``python -m ashnets.kernels`` compiles all kernels before their first use.
"""
