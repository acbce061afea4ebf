"""Where the spiking encoder sits on a chip: cores, memory, messages, hops, network energy and latency."""
