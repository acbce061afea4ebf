"""Energy of the spiking encoder: profiles of hardware, estimates, and the report."""
