"""Load tests with locust, every answer checked: `python -m tests.load --help`.
The package is copied into the image of docker-compose.yml, so it imports only itself, `tests.bench` and `service`."""
