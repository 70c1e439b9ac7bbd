"""The images, built and run for real without a Docker daemon: `make image-test`."""
