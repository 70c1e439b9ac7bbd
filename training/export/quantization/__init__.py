"""Adds int8 and float16 graphs to a published version: calibration, conversion, acceptance and latency measurement.

The float32 export is in training/export. The service chooses a precision when it loads a version."""
