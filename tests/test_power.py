"""Energy, rehearsed on made-up Macs with made-up recordings: none of this ran on a Mac."""

import itertools
import plistlib
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fluxvae.device.host import Answer, Host, this_host
from fluxvae.device.power import Window, command, energy, measure_energy, record, wait_for_quiet
from fluxvae.device.power_plist import ENGINES, Recording, Sample, parse_recording
from fluxvae.device.powermetrics import check_host, require_host
from fluxvae.errors import PowerError, UsageError
from fluxvae.experiments.steps import cell_energy
from tests.power_recordings import QUIET, mac, printed, sample

NO_RIGHTS = Answer(1, "", "sudo: a password is required")


def test_samples_are_read_with_their_own_lengths() -> None:
    recording = parse_recording(
        printed([sample(0.1, cpu=100, gpu=10, ane=0), sample(0.3, cpu=500, gpu=10, ane=40)])
    )
    assert [round(s.seconds, 9) for s in recording.samples] == [0.1, 0.3]
    # 0.1 s of 100 mW and 0.3 s of 500 mW: 160 mJ in 0.4 s.
    assert recording.mean_mw() == pytest.approx({"cpu": 400.0, "gpu": 10.0, "ane": 30.0})
    assert recording.notes == ()


def test_trailing_nul_and_a_leading_one_are_no_samples() -> None:
    text = printed([sample(0.1, cpu=1)])
    assert parse_recording(f"\0{text}\n\0\n") == parse_recording(text)


def test_energies_stand_in_for_powers_that_are_not_told() -> None:
    old = sample(0.5, cpu=200, gpu=40, ane=600)
    for engine in ENGINES:
        del old["processor"][f"{engine}_power"]
    assert parse_recording(printed([old])).mean_mw() == {"cpu": 200.0, "gpu": 40.0, "ane": 600.0}


def test_gpu_is_read_where_newer_systems_tell_it() -> None:
    new = sample(0.1, cpu=1)  # processor.gpu_power stays 0
    new["gpu"]["gpu_energy"] = 7
    assert parse_recording(printed([new])).mean_mw()["gpu"] == pytest.approx(70.0)
    del new["processor"]["gpu_power"], new["processor"]["gpu_energy"]
    assert parse_recording(printed([new])).mean_mw()["gpu"] == pytest.approx(70.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_missing_channel_is_refused_by_name(engine: str) -> None:
    text = printed([sample(0.1, cpu=1), sample(0.1, drop=[engine], cpu=1)])
    with pytest.raises(PowerError, match=f"sample 2 of 2.*no {engine.upper()} channel"):
        parse_recording(text)


@pytest.mark.parametrize("value", ["12", True, -1, float("nan"), float("inf")])
def test_channel_that_is_no_power_counts_as_missing(value: object) -> None:
    odd = sample(0.1, cpu=1)
    odd["processor"] |= {"ane_power": value, "ane_energy": value}
    with pytest.raises(PowerError, match="no ANE channel"):
        parse_recording(printed([odd]))


def test_cut_last_sample_is_left_out_with_a_note() -> None:
    whole = [sample(0.1, cpu=1), sample(0.1, cpu=2)]
    text = printed([*whole, sample(0.1, cpu=3)])[:-40]
    recording = parse_recording(text)
    assert recording.samples == parse_recording(printed(whole)).samples
    assert recording.notes == ("the last sample was cut off and is left out",)


def test_only_sample_cut_off_is_refused() -> None:
    with pytest.raises(PowerError, match=r"sample 1 of 1 .* cut off or damaged"):
        parse_recording(printed([sample(0.1, cpu=1)])[:-40])


def test_damage_before_the_last_sample_is_refused() -> None:
    first, second, third = (printed([sample(0.1, cpu=n)]) for n in (1, 2, 3))
    with pytest.raises(PowerError, match="sample 2 of 3"):
        parse_recording("\0".join([first, second[:200], third]))


def test_recording_cut_anywhere_gives_whole_samples_or_a_refusal() -> None:
    samples = [sample(0.1, cpu=n) for n in (1, 2, 3)]
    text, whole = printed(samples), parse_recording(printed(samples)).samples
    counts = set()
    for end in range(len(text)):
        try:
            kept = parse_recording(text[:end]).samples
        except PowerError:
            counts.add(0)
        else:
            assert kept == whole[: len(kept)]
            counts.add(len(kept))
    # The third counts as whole once its closing tag is there, a line end before the end.
    assert counts == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no sample"),
        ("\0\0", "no sample"),
        ("Machine model: Mac16,10", "cut off or damaged"),
        (plistlib.dumps([1]).decode(), "not a dictionary"),
        (plistlib.dumps({"processor": {}}).decode(), "no elapsed_ns"),
        (plistlib.dumps({"elapsed_ns": 5, "processor": []}).decode(), "no CPU channel"),
    ],
)
def test_what_is_no_recording_is_refused(text: str, words: str) -> None:
    with pytest.raises(PowerError, match=words):
        parse_recording(text)


def recording(*rows: tuple[float, float, float, float]) -> Recording:
    return Recording(tuple(Sample(s, {"cpu": c, "gpu": g, "ane": a}) for s, c, g, a in rows))


def test_energy_of_a_case_computed_by_hand() -> None:
    # Idle: cpu (0.1 s * 100 + 0.1 s * 140) / 0.2 s = 120 mW; gpu 10; ane 0.
    idle = recording((0.1, 100, 10, 0), (0.1, 140, 10, 0))
    # Decoding: cpu (0.1 * 600 + 0.3 * 640) / 0.4 = 630 mW; gpu 8; ane (0 + 0.3 * 1200) / 0.4 = 900.
    active = recording((0.1, 600, 8, 0), (0.3, 640, 8, 1200))
    # 20 decodes in 4 s: 0.2 s each. cpu 510 mW * 0.2 s = 102 mJ; gpu -2 * 0.2; ane 900 * 0.2.
    found = energy(idle, active, 20, 4.0)
    assert found.engines_mj == pytest.approx({"cpu": 102.0, "gpu": -0.4, "ane": 180.0})
    assert found.idle_mw == pytest.approx({"cpu": 120.0, "gpu": 10.0, "ane": 0.0})
    assert (found.decodes, found.seconds) == (20, 4.0)
    assert found.note.startswith("relative only")
    assert "Neural Engine" not in found.note


def test_silent_neural_engine_is_said() -> None:
    quiet = recording((0.1, 100, 10, 0))
    assert "Neural Engine's channel stayed at 0" in energy(quiet, quiet, 1, 1.0).note


def test_nothing_decoded_is_refused() -> None:
    quiet = recording((0.1, 100, 10, 0))
    with pytest.raises(PowerError, match="0 decodes"):
        energy(quiet, quiet, 0, 1.0)


def test_quiet_mac_passes_every_check() -> None:
    checks = check_host(mac())
    assert [check.name for check in checks if not check.met] == []
    assert len(checks) == 6
    require_host(mac())


@pytest.mark.parametrize(
    ("command", "out", "words"),
    [
        ("pmset -g batt", "Now drawing from 'Battery Power'\n -Int", "'Battery Power'.*plug"),
        ("pmset -g batt", None, "pmset -g batt` gave no answer"),
        ("pmset -g", " lowpowermode         1", "low-power mode is on"),
        ("pmset -g", " powermode            1", "low-power mode is on"),
        ("pmset -g therm", "CPU_Scheduler_Limit = 100\n\tCPU_Speed_Limit \t= 46", "Speed_Limit 46"),
        ("pmset -g therm", "Thermal warning level has been recorded", "throttled"),
        ("pmset -g therm", "something new", "gave 'something new'"),
        ("sysctl -n vm.loadavg", "{ 2.01 1.00 1.00 }", "load average 2.01, at most 2"),
        ("sysctl -n vm.loadavg", "{ 12,50 1,00 1,00 }", "load average 12.5"),
        ("sysctl -n vm.loadavg", "", "vm.loadavg` gave no answer"),
        ("sysctl -n sysctl.proc_translated", "1", "Rosetta"),
    ],
)
def test_unfit_host_is_refused_with_what_to_do(command: str, out: str | None, words: str) -> None:
    with pytest.raises(PowerError, match=words) as caught:
        require_host(mac(**{command: out}))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("pmset -g", " lowpowermode         0"),
        ("pmset -g", " powermode            2"),  # high power
        ("pmset -g", " sleep                1"),  # a Mac without such modes
        ("pmset -g batt", "Now drawing from 'AC Power'"),  # a Mac without a battery
        ("pmset -g therm", "CPU_Scheduler_Limit = 100\n\tCPU_Speed_Limit \t= 100"),
        ("sysctl -n vm.loadavg", "{ 2.00 5.00 5.00 }"),
    ],
)
def test_fit_host_is_not_refused(command: str, out: str) -> None:
    require_host(mac(**{command: out}))


def test_all_reasons_come_in_one_line() -> None:
    busy = mac(**{"pmset -g batt": "drawing from 'Battery Power'", "pmset -g": "lowpowermode 1"})
    with pytest.raises(PowerError, match=r"Battery Power.*; low-power mode is on"):
        require_host(busy)


def test_machines_without_apple_silicon_are_refused() -> None:
    with pytest.raises(PowerError, match="this is Linux"):
        require_host(replace(mac(), system="Linux"))
    with pytest.raises(PowerError, match="Apple silicon only"):
        require_host(replace(mac(**{"sysctl -n sysctl.proc_translated": None}), arch="x86_64"))


def test_rights_serve_powermetrics_and_nothing_else() -> None:
    tail = "/usr/bin/powermetrics --samplers cpu_power,gpu_power,ane_power -f plist -i 100 -n 40"
    assert " ".join(command(Window())) == f"/usr/bin/sudo -n {tail}"
    asking = command(Window(), ask=True)
    assert asking[:3] == ["/usr/bin/sudo", "-k", "-p"]  # neither uses nor keeps cached rights
    assert " ".join(asking[4:]) == tail


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NO_RIGHTS, "needs administrator rights: run `sudo -v` first"),
        (Answer(1, "", "powermetrics must be invoked as the superuser"), "administrator rights"),
        (Answer(64, "", "powermetrics: unrecognized sampler: ane_power"), "failed: .*ane_power"),
        (Answer(2, "", ""), "exit code 2"),
        (Answer(0, "", ""), "no sample"),
        (None, "gave no answer"),
        (Answer(0, printed([sample(0.1)] * 4), ""), "4 samples of 10"),
    ],
)
def test_recording_that_cannot_be_had_is_refused(answer: Answer | None, words: str) -> None:
    with pytest.raises(PowerError, match=words):
        record(mac(lambda command: answer), Window(samples=10))


@pytest.mark.parametrize(("samples", "interval"), [(0, 100), (1, 0), (501, 100)])
def test_window_that_cannot_be_recorded_is_refused(samples: int, interval: int) -> None:
    with pytest.raises(UsageError, match="not possible"):
        Window(samples, interval)


class Rehearsal:
    """A Mac whose second window ends after ``decodes`` decodes, as time does on a real one."""

    def __init__(self, *windows: str, decodes: int = 5) -> None:
        self.windows, self.wanted = iter(windows), decodes
        self.order: list[str] = []
        self.enough = threading.Event()

    def powermetrics(self, command: Sequence[str]) -> Answer | None:
        text = next(self.windows)
        self.order.append("record")
        if self.order.count("record") == 2:
            assert self.enough.wait(20)
        return Answer(0, text, "")

    def decode(self) -> None:
        self.order.append("decode")
        if self.order.count("decode") > self.wanted:
            self.enough.set()


def test_whole_path_from_windows_to_joules() -> None:
    window = Window(samples=4)
    idle = [sample(0.1, cpu=120, gpu=10) for _ in range(4)]
    busy = [sample(0.1, cpu=620, gpu=10, ane=900) for _ in range(4)]
    run = Rehearsal(printed(idle), printed(busy)[:-30])
    ticks = itertools.count(100.0, 2.0)
    found = measure_energy(mac(run.powermetrics), window, run.decode, clock=lambda: next(ticks))
    # One decode to warm up, the idle window with none, then decodes until the window ended.
    assert run.order[:2] == ["decode", "record"]
    assert run.order.count("record") == 2
    assert found.decodes == run.order.count("decode") - 1 >= 5
    each = 2.0 / found.decodes  # the clock moved by 2 s
    assert found.engines_mj == pytest.approx({"cpu": 500 * each, "gpu": 0, "ane": 900 * each})
    assert "the last sample was cut off" in found.note


@pytest.mark.parametrize(("patience", "slept"), [(60.0, [5.0, 5.0]), (7.0, [5.0, 5.0]), (0.0, [])])
def test_load_of_a_conversion_may_fade(patience: float, slept: list[float]) -> None:
    loads = ["{ 4.00 1 1 }", "{ 2.50 1 1 }", "{ 1.90 1 1 }"]
    now, rests = [0.0], []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        now[0] += seconds
        loads.pop(0)

    def answer(command: Sequence[str]) -> Answer | None:
        return Answer(0, loads[0], "") if command[-1] == "vm.loadavg" else mac().run(command)

    wait_for_quiet(replace(mac(), run=answer), patience, lambda: now[0], sleep)
    assert rests == slept


def test_only_load_is_waited_for() -> None:
    busy = {"sysctl -n vm.loadavg": "{ 4.00 1 1 }", "pmset -g": "lowpowermode 1"}
    wait_for_quiet(mac(**busy), 60.0, sleep=lambda seconds: pytest.fail("slept"))
    with pytest.raises(PowerError, match=r"low-power mode is on.*load average 4"):
        measure_energy(mac(**busy), Window(), lambda: None, patience_s=60.0)


def test_mac_that_got_hot_meanwhile_is_refused() -> None:
    window = Window(samples=2)
    run = Rehearsal(*[printed([sample(0.1)] * 2)] * 2)
    asked: list[str] = []
    quiet = mac(run.powermetrics)

    def answer(command: Sequence[str]) -> Answer | None:
        asked.append(" ".join(command))
        if asked.count("/usr/bin/pmset -g therm") == 2 and command[-1] == "therm":
            return Answer(0, "CPU_Speed_Limit = 70", "")
        return quiet.run(command)

    with pytest.raises(PowerError, match="throttled: CPU_Speed_Limit 70"):
        measure_energy(replace(quiet, run=answer), window, run.decode)


@pytest.mark.parametrize("trouble", [ValueError("of the decoder"), KeyboardInterrupt()])
def test_decoders_own_error_comes_through(trouble: BaseException) -> None:
    run = Rehearsal(*[printed([sample(0.1)] * 2)] * 2, decodes=1)

    def decode() -> None:
        run.decode()
        if run.enough.is_set():
            raise trouble

    with pytest.raises(type(trouble)):
        measure_energy(mac(run.powermetrics), Window(samples=2), decode)


def test_unfit_host_is_refused_before_anything_runs() -> None:
    def never(command: Sequence[str]) -> Answer | None:
        raise AssertionError(command)

    host: Host = mac(never, **{"pmset -g batt": "Now drawing from 'Battery Power'"})
    with pytest.raises(PowerError, match="plug the Mac in"):
        measure_energy(host, Window(), lambda: pytest.fail("decoded"))
    assert QUIET["pmset -g batt"].startswith("Now drawing from 'AC Power'")


def test_cell_has_the_energy_of_what_it_decodes() -> None:
    idle = [sample(0.1, cpu=120, gpu=10) for _ in range(40)]
    busy = [sample(0.1, cpu=620, gpu=10, ane=900) for _ in range(40)]
    run = Rehearsal(printed(idle), printed(busy))
    found = cell_energy(mac(run.powermetrics), lambda: run.decode, pytest.fail)
    assert found is not None
    assert found.engines_mj["cpu"] == pytest.approx(500 * found.seconds / found.decodes)
    assert found.engines_mj["ane"] == pytest.approx(900 * found.seconds / found.decodes)


def test_cell_goes_on_where_energy_cannot_be_measured() -> None:
    said: list[str] = []
    host = mac(**{"pmset -g batt": "Now drawing from 'Battery Power'"})
    assert cell_energy(host, lambda: lambda: None, said.append) is None
    assert "plug the Mac in" in said[0]


@pytest.mark.skipif(this_host().system == "Darwin", reason="on a Mac energy is measured")
def test_other_systems_are_passed_over() -> None:
    assert cell_energy(this_host(), lambda: pytest.fail("prepared"), pytest.fail) is None
