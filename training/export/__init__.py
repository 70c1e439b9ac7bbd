"""Turns trained Keras networks into published model versions: conversion, parity, samples, manifest, card.

Training itself is in training/fit; networks that arrive as ONNX files are in training/onnx_import."""
