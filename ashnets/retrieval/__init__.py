"""Retrieval between pictures and texts: embeddings, matching, and the two stages that join them."""
