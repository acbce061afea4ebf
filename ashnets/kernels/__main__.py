"""``python -m ashnets.kernels``: compile the kernels of this processor ahead of their first use."""

from ashnets.kernels.choosing import kernels_for

print(f"kernels for this processor: {kernels_for('cpu').__name__}")
