"""``fluxvae power probe``, on made-up Macs: none of this ran on a Mac."""

import re
from collections.abc import Sequence

import pytest

from fluxvae.device.host import Answer, Host
from tests.cli.run import run
from tests.power_recordings import mac, printed, sample

GOOD = Answer(0, printed([sample(0.1, cpu=120, gpu=10)] * 20), "")
NO_RIGHTS = Answer(1, "", "sudo: a password is required")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    def put(host: Host) -> None:
        monkeypatch.setattr("fluxvae.device.host.this_host", lambda: host)

    return put


def test_mac_that_can_says_so_and_shows_idle_power(on, capsys) -> None:
    on(mac(lambda command: GOOD))
    result = run(capsys, "power", "probe")
    assert result.code == 0
    assert "Idle, over 2.0 s: cpu 120 mW, gpu 10 mW, ane 0 mW" in result.out
    assert "relative only" in result.out
    told = run(capsys, "power", "probe", "--json").json
    assert told["can"] is True
    assert told["idle_mw"] == pytest.approx({"cpu": 120.0, "gpu": 10.0, "ane": 0.0})
    assert [check["met"] for check in told["checks"]] == [True] * 7


def test_reasons_are_shown_and_powermetrics_is_left_alone(on, capsys) -> None:
    def never(command: Sequence[str]) -> Answer | None:
        raise AssertionError(command)

    on(mac(never, **{"pmset -g batt": "Now drawing from 'Battery Power'"}))
    result = run(capsys, "power", "probe")
    assert result.code == 1
    assert re.search(r"refused +mains +power comes from 'Battery Power'\n +-> plug the Mac in",
                     result.out)  # fmt: skip
    assert result.out.rstrip().endswith("Energy cannot be measured here and now: mains.")
    assert result.widest <= 100


def test_password_is_asked_for_plainly_and_only_when_allowed(on, capsys) -> None:
    asked: list[str] = []

    def sudo(command: Sequence[str]) -> Answer | None:
        asked.append(" ".join(command))
        return GOOD if "-k" in command else NO_RIGHTS

    on(mac(sudo))
    refused = run(capsys, "power", "probe", "--no-ask")
    assert refused.code == 1
    assert len(asked) == 1
    assert "NOPASSWD: /usr/bin/powermetrics" in refused.out.replace("\n", " ")
    given = run(capsys, "power", "probe", "--ask")
    assert given.code == 0
    assert len(asked) == 3
    assert "sudo asks for your password now, for this one command" in given.err
    assert asked[-1].partition(": ")[2] in given.err  # the command itself is shown
    assert all("/usr/bin/powermetrics --samplers" in line for line in asked)


def test_missing_channel_is_a_reason_and_asks_nothing(on, capsys) -> None:
    calls: list[Sequence[str]] = []

    def sudo(command: Sequence[str]) -> Answer | None:
        calls.append(command)
        return Answer(0, printed([sample(0.1, drop=["ane"])] * 20), "")

    on(mac(sudo))
    result = run(capsys, "power", "probe", "--ask", "--json")
    assert result.code == 1
    assert "no ANE channel" in result.json["checks"][-1]["what"]
    assert len(calls) == 1
