"""Shows locust's web page for a running service: `python -m tests.load.remote URL`. docker-compose.yml starts it.

The expected predictions are computed with the model, so --models must contain the same models as the service's folder.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from service.settings import Settings
from tests.bench.errors import CannotMeasure
from tests.load import digit_images
from tests.load.load_profile import LoadProfile
from tests.load.run_locust import locust_command

DIGITS = 200


def main() -> int:
    args = _arguments()
    with TemporaryDirectory(prefix="convoy-load-") as folder:
        digits = Path(folder, "digits.json")
        try:
            digit_images.save_digits(digit_images.known_digits(DIGITS, args.models, args.model), digits)
        except CannotMeasure as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        profile = LoadProfile(args.model, digits, Path(folder, "figures.json"), args.users, seconds=0)
        options = [f"--users={args.users}", "--spawn-rate=1", f"--web-port={args.web_port}", "--class-picker"]
        return subprocess.run(**locust_command(args.url, profile, options, shaped=False)).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.load.remote", description=__doc__)
    add = parser.add_argument
    add("url", help="the service, such as http://127.0.0.1:8000")
    add("--users", type=int, default=8, help="initial number of users on the page (default: %(default)s)")
    add("--web-port", type=int, default=8089, help="port of locust's page (default: %(default)s)")
    add("--models", type=Path, default=Path(Settings().models), help="folder of models (default: %(default)s)")
    add("--model", default="mnist-lenet5", help="a model for digits (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
