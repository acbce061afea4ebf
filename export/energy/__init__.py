"""Energy of the spiking encoder: hardware profiles, estimates, and the report."""
