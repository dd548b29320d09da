"""Trains detectors with an evidence map and judges them on sources they did not learn from.

`pack` gathers the material in one archive; `plan` runs experiments on it, by `train`, `model` and `views`.
What came out is in docs/training-log.md; lora-60.safetensors is the last candidate, not read by deepscan yet.
"""
