# Tests of real containers and monitoring. IMAGE and MONITORING contain options:
# make image-test IMAGE="cpu --base BASE". IMAGE="--report docs/docker.md" and
# MONITORING="--report docs/operations.md" update the documentation.
.PHONY: image-test monitoring-test

image-test: $(DEV)  ## build the images and test each (needs root, buildah, debootstrap, runc)
	.venv-dev/bin/python -m tests.image $(IMAGE)

monitoring-test: $(DEV)  ## run Prometheus with the shipped configuration against a real service (needs prometheus)
	.venv-dev/bin/python -m tests.monitoring $(MONITORING)
