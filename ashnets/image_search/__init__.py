"""Search and question your own images: an index on disk, search by text, answers to questions."""
