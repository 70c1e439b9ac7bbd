# Containers and monitoring, for real. Options go into IMAGE and MONITORING: make image-test IMAGE="cpu --base BASE";
# IMAGE="--report docs/docker.md" and MONITORING="--report docs/operations.md" renew what the documentation shows.
.PHONY: image-test monitoring-test

image-test: $(DEV)  ## build the images and use each (needs root, buildah, debootstrap, runc)
	.venv-dev/bin/python -m tests.image $(IMAGE)

monitoring-test: $(DEV)  ## Prometheus with the shipped configuration against a real service (needs prometheus)
	.venv-dev/bin/python -m tests.monitoring $(MONITORING)
