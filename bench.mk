# Load tests and benchmarks. LOAD and BENCH contain options: make load LOAD="MixedTraffic --of-peak 0.7 --seconds 60".
.PHONY: mutation load load-ui soak bench bench-overload bench-peers

load: $(DEV) $(SERVE)  ## load a service and check every response; options: LOAD=--help
	.venv-dev/bin/python -m tests.load $(LOAD)

load-ui: $(DEV) $(SERVE)  ## load a service from locust's web page
	.venv-dev/bin/python -m tests.load --ui $(LOAD)

soak: $(DEV) $(SERVE)  ## run half an hour of mixed traffic, update tests/reliability/README.md; options: SOAK=--help
	.venv-dev/bin/python -m tests.reliability soak $(SOAK)

bench: $(DEV) $(SERVE)  ## measure Convoy, update tests/bench/README.md; options: BENCH=--help
	.venv-dev/bin/python -m tests.bench run $(BENCH)

bench-overload: $(DEV) $(SERVE)  ## send more requests than Convoy can serve, update tests/bench/README.md
	.venv-dev/bin/python -m tests.bench overload $(BENCH)

bench-peers: $(DEV) $(SERVE)  ## compare Convoy with other servers, update tests/bench/README.md and peers.svg
	.venv-dev/bin/python -m tests.bench peers $(BENCH)

mutation: .venv-dev/.mutation-installed  ## change the code of queues and registry line by line, and list the changes that no test notices
	.venv-dev/bin/mutmut run --max-children 1
	.venv-dev/bin/mutmut results

.venv-dev/.mutation-installed: requirements/mutation.txt $(DEV)
	.venv-dev/bin/python $(PIP_INSTALL) --require-hashes -r requirements/mutation.txt
	touch $@

gpu-check:  ## test every documented GPU feature on a GPU (tests/gpu/README.md); options: GPU=--help
	$(PYTHON) -m tests.gpu --report tests/bench/gpu.md $(GPU)
