"""Models at work on people's own images: an index on disk, search by text, answers to questions."""
