"""The service answers everything that the load tests send as they expect it: what they call a failure is one."""

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
    asks = [*traffic.singles, *traffic.singles_as_form, *traffic.batches, *traffic.bad, *traffic.partly_bad]
    with RunningService(tmp_path) as service:
        for ask in asks:
            reply = service.client.post(ask.path, content=ask.body, headers={"content-type": ask.content_type})
            assert ask.problem_with(reply.status_code, reply.content) is None, ask.name
