"""Turns trained Keras networks into published model versions: conversion, parity, samples, manifest, card.

Training itself is in training/fit. Networks in ONNX files from other tools are imported by training/onnx_import."""
