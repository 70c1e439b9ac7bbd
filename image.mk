# Containers and monitoring, for real. Options go into IMAGE: make image-test IMAGE="cpu --base docker.io/library/python:3.11.14-slim-bookworm"
.PHONY: image-test monitoring-test

image-test: $(DEV)  ## build the images and use each (needs root, buildah, debootstrap, runc)
	.venv-dev/bin/python -m tests.image $(IMAGE)

monitoring-test: $(DEV)  ## Prometheus with the shipped configuration against a real service (needs prometheus)
	.venv-dev/bin/python -m tests.monitoring
