"""Read images and texts; build corpora from openly licensed drawings."""
