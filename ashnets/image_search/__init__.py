"""Search and question your own images: vectors, an index on disk, search by text, answers to questions."""
