"""Trains and calibrates detectors.

Prepared crops and `TrainSettings` come in. A run folder goes out, with the detector's checkpoint, its
log and its measured results. The benchmark, the server and the command line may import this package,
module by module: all of them load torch, so nothing is exported here.
"""
