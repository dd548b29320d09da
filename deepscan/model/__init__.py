"""The detector: CLIP's tower, the query aggregation on top, their files. torch lives here (and in training)."""
