"""Retrieval between images and texts: embeddings, matching, and the two stages that join them."""
