"""The detector: CLIP's tower, the query aggregation on top of it, and their files."""
