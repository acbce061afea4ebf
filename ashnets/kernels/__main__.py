"""``python -m ashnets.kernels``: compile the kernels for this processor before their first use."""

from ashnets.kernels.choosing import kernels_for

print(f"kernels for this processor: {kernels_for('cpu').__name__}")
