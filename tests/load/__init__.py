"""Load tests with locust that check every response: `python -m tests.load --help`.

The package is copied into the image of docker-compose.yml, so it imports only its own modules, `tests.bench` and
`service`."""
