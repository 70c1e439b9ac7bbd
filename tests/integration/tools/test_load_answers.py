"""The service gives the expected response to every request of the load tests, so that their failures are real."""

from pathlib import Path

import pytest

from tests.load import digit_images
from tests.load.traffic import Traffic
from tests.support.model_versions import write_digit_model
from tests.support.service_process import RunningService


def test_the_service_answers_all_of_it_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DATA", raising=False)
    write_digit_model(tmp_path)
    traffic = Traffic("mnist-lenet5", digit_images.known_digits(20, tmp_path, "mnist-lenet5"))
    requests = [*traffic.singles, *traffic.singles_as_form, *traffic.batches, *traffic.bad, *traffic.partly_bad]
    with RunningService(tmp_path) as service:
        for request in requests:
            reply = service.client.post(
                request.path, content=request.body, headers={"content-type": request.content_type}
            )
            assert request.check_answer(reply.status_code, reply.content) is None, request.name
