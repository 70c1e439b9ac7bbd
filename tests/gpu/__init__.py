"""`make gpu-check`: what is promised of GPUs, tried and measured on one; needs the checkout, Python and wheels."""
