"""The spiking graph for SANA-FE, a simulator of neuromorphic chips, which runs in a process of its own."""
