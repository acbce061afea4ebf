"""Models at work on people's own pictures: an index on disk, search by text, answers to questions."""
