"""Images and texts: reading them, building corpora from openly licensed drawings."""
