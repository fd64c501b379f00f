"""The harness of the proofs: what it computes is right, and what is wrong is caught."""

import importlib.util
import json
import math
import re
import shutil
import statistics as plain
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import numinit as ni

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks" / "__init__.py").is_file():
    pytest.skip("the tests run without the benchmarks", allow_module_level=True)
stats = pytest.importorskip("scipy.stats")
sys.path.insert(0, str(ROOT))

from benchmarks import cases, measure, peers, ratios  # noqa: E402
from benchmarks import statistics as battery  # noqa: E402

ASV = ["command_line", "dtypes", "layouts", "sizes", "startup"]
ALPHA = 1e-6


def p_of(results, part):
    found = [r.p for r in results if part in r.name]
    assert found, f"no {part} in {results}"
    return min(found)


# Computing, beside SciPy.


@pytest.mark.parametrize("seed", range(3))
def test_chi_squared(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(20))
    counts = rng.multinomial(10_000, p)
    statistic, found = battery.chi_squared(counts, p)
    expected = stats.chisquare(counts, p * 10_000)
    assert math.isclose(statistic, expected.statistic, rel_tol=1e-9)
    one = expected.pvalue
    assert math.isclose(found, 2 * min(one, 1 - one), rel_tol=1e-6)


def test_chi_squared_of_counts_that_are_too_even():
    assert battery.chi_squared(np.full(1000, 1000), np.full(1000, 1e-3))[1] < 1e-100


@pytest.mark.parametrize("count", [0, 3, 20, 50, 90])
def test_binomial(count):
    law = stats.binom(1000, 0.02)
    below = sum(law.pmf(k) for k in range(count + 1))
    above = 1 - sum(law.pmf(k) for k in range(count))
    found = battery.binomial(count, 1000, 0.02)
    assert math.isclose(found, min(1, 2 * min(below, above)), rel_tol=1e-6, abs_tol=1e-12)
    one_sided = stats.binomtest(count, 1000, 0.02, "greater" if count > 20 else "less").pvalue
    assert math.isclose(found, min(1, 2 * one_sided), rel_tol=1e-6)


@pytest.mark.parametrize("p", [1e-12, 1e-3, 0.5, 1.0])
def test_the_largest_of_many(p):
    assert math.isclose(battery.largest_of(p, 1), p)
    assert math.isclose(battery.largest_of(p, 50), 1 - (1 - p) ** 50, rel_tol=1e-3)


def test_the_verdict_is_of_bonferroni():
    results = [battery.Result(str(n), 1e-3) for n in range(99)]
    threshold, failed = battery.verdict([*results, battery.Result("bad", threshold_below(100))])
    assert threshold == battery.FAMILY_WISE / 100
    assert [r.name for r in failed] == ["bad"]
    assert not battery.verdict(results)[1]
    assert battery.verdict([battery.Result("not a number", math.nan)])[1]


def threshold_below(tests):
    return battery.FAMILY_WISE / tests * 0.99


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0, 2.0, 3.0]])
def test_spread(values):
    found = measure.spread(values)
    assert found.median == plain.median(values)
    assert np.allclose((found.low, found.high), np.quantile(values, [0.25, 0.75]))


def test_seconds_and_ratios_are_medians():
    assert measure.seconds(lambda: time.sleep(0.002), 0.02) >= 0.002
    ours, peer = ratios.measure(
        [lambda: sum(range(1000)), lambda: sum(range(100_000))], repeat=5, loops=3
    )
    assert peer > 20 * ours


def test_extra_memory():
    if not measure.can_measure_memory():
        pytest.skip("this system does not let a process reset its peak of memory")
    assert 63 << 20 < measure.extra_memory(lambda: np.ones(1 << 23)) < 80 << 20
    buffer = np.ones(1 << 23)
    assert measure.extra_memory(lambda: buffer.fill(2.0)) < 1 << 20


# Bins: exact, and a biased generator is caught.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(battery.laws()))
def test_bins_count_as_numpy_does(name, dtype):
    law = battery.laws()[name]
    bins = battery.Bins(law, dtype)
    values = law.init((200_003,), dtype, seed=1)
    edges = bins.edges[::97]
    values[: 3 * edges.size] = np.concatenate(
        [np.nextafter(edges, values.dtype.type(-np.inf)), edges, np.nextafter(edges, values.dtype.type(np.inf))]
    )  # fmt: skip
    count = bins.counter()
    count(values)
    bins.add(count)
    assert math.isclose(bins.probabilities.sum(), 1, abs_tol=1e-9)
    assert np.allclose(bins.probabilities, 1 / battery.BINS, atol=1e-5)
    found = np.searchsorted(bins.edges, values, "right")
    assert np.array_equal(bins.counts, np.bincount(found, minlength=battery.BINS))
    for t, (below, above) in zip(law.tails, bins.beyond.T, strict=False):
        assert (below, above) == ((values < -t).sum(), (values > t).sum())


def results_of(name, dtype="float32", elements=1 << 20, fill=None):
    law = battery.laws()[name]
    found = battery.histogram(law, dtype, elements, ni.Key(5), fill)
    return list(battery.law_results(name, law, dtype, found))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(battery.laws()))
def test_numinit_passes(name, dtype):
    assert p_of(results_of(name, dtype), "") > ALPHA


def test_the_histogram_has_each_element_once():
    law = battery.laws()["normal"]
    size = 3 * battery.CHUNK + 1001
    found = battery.histogram(law, "float32", size, ni.Key(3))
    bins = np.searchsorted(found.edges, law.init((size,), seed=ni.Key(3)), "right")
    assert np.array_equal(found.counts, np.bincount(bins, minlength=battery.BINS))


def numpy_normal(scale=1.0, shift=0.0, limit=math.inf):
    def fill(buffer, start, seed):
        rng = np.random.default_rng([start, seed.seed])
        values = rng.standard_normal(buffer.size)
        while (beyond := np.abs(values) > limit).any():
            values[beyond] = rng.standard_normal(np.count_nonzero(beyond))
        buffer[...] = values * scale + shift

    return fill


def test_an_unbiased_generator_that_is_not_ours_passes():
    assert p_of(results_of("normal", fill=numpy_normal()), "") > ALPHA


@pytest.mark.parametrize(
    ("fill", "where"),
    [
        (numpy_normal(scale=1.01), "bins"),
        (numpy_normal(shift=0.01), "bins"),
        (numpy_normal(limit=4.0), "beyond 4 sigma"),
        (numpy_normal(limit=4.0), "above 4 sigma"),
    ],
    ids=["too wide", "not around 0", "no tail", "no upper tail"],
)
def test_a_biased_generator_is_caught(fill, where):
    results = results_of("normal", fill=fill, elements=1 << 22)
    assert p_of(results, where) < ALPHA
    assert battery.verdict(results)[1]
    assert battery.report(results) == 1


def test_the_tail_of_float32_is_that_of_a_normal():
    for t in (4.0, 5.0, 6.0):
        found, exact = battery.tail_resolution(t)
        assert math.isclose(found, exact, rel_tol=0.01)
    assert battery.tail_resolution(6.8)[0] == 0


# Streams.


def test_correlations_beside_numpy():
    rows = battery.named_streams(40, 1000, 7)
    r = np.corrcoef(rows)[np.triu_indices(40, 1)]
    largest, mean = battery.check_correlations(rows, block=16)
    assert f"{np.abs(r).max():.5f}" in largest.note
    z = (np.square(r).mean() - 1 / 999) / math.sqrt(2 * 998 / (999**2 * 1001) / r.size)
    assert f"z = {z:.2f}" == mean.note
    assert min(largest.p, mean.p) > ALPHA


def test_the_named_streams_are_those_of_the_names():
    rows = battery.named_streams(3, 64, 7)
    key = ni.Key(7).fold_in("layers.2.weight")
    assert np.array_equal(rows[2], ni.Normal()((64,), seed=key))


def test_two_streams_that_share_values_are_caught():
    rows = battery.named_streams(300, 1024, 7)
    rows[250, :400] = rows[3, :400]
    assert p_of(battery.check_correlations(rows), "largest") < ALPHA


def test_streams_that_all_lean_alike_are_caught():
    rows = battery.named_streams(300, 1024, 7)
    rows += 0.2 * np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    assert p_of(battery.check_correlations(rows), "mean") < ALPHA


# Words.


def test_the_words_are_those_of_the_stream():
    import oracle

    words = next(battery.one_stream(3, 12345))
    for i in (0, 1, 2, 3, 1000):
        assert words[i] == oracle.word((3 << 34) + i, 0, 12345, 0)
    names = next(battery.names_in_turn(0, 5)).reshape(-1, battery.TOGETHER)
    b = ni.Key(5).fold_in("b")
    assert names[9, 1] == oracle.word(9, 0, b.seed, b.stream)
    assert names[9, 26] == oracle.word(9, 0, *key_words(ni.Key(5).fold_in("aa")))
    seeds = next(battery.seeds_in_turn(0, 5)).reshape(-1, battery.TOGETHER)
    assert seeds[7, 3] == oracle.word(7, 0, 8, 0)


def key_words(key):
    return key.seed, key.stream


def test_scattered_rows_meet_none_twice():
    rows, _ = battery.TABLE
    step = 0x9E3779B1 % rows | 1
    assert math.gcd(step, rows) == 1
    words = next(battery.scattered_rows(0, 5)).reshape(-1, battery.TABLE[1])
    key = ni.Key(5).fold_in("tables.0")
    row = ni.Uniform().rows(battery.TABLE, [2 * step % rows], "float64", seed=key)
    assert np.array_equal(words[2], battery.words_of(row)[0])


@pytest.mark.parametrize("name", battery.SOURCES)
def test_words_pass_our_own_tests(name):
    assert p_of(battery.check_words(name, battery.SOURCES[name](0, 1), 1 << 20), "") > ALPHA


def rarely_set(words):
    return words & np.uint32(0xFFFFFFFF ^ 1 << 17)


def even_bytes(words):
    return words & np.uint32(0xFEFEFEFE)


def a_bit_that_follows_its_neighbour(words):
    return words & np.uint32(0xFFFFFFFF ^ 1 << 9) | (words >> np.uint32(1)) & np.uint32(1 << 9)


def a_bit_of_the_word_before(words):
    keep = np.uint32(0xFFFFFFFF ^ 1 << 4)
    return words & keep | np.roll(words, 1) & ~keep


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        (rarely_set, "every bit a coin"),
        (even_bytes, "values of bytes"),
        (a_bit_that_follows_its_neighbour, "neighbour in the word"),
        (a_bit_of_the_word_before, "next word"),
    ],
)
def test_faulty_words_are_caught(fault, test):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 32, 1 << 20, np.uint32)
    assert p_of(battery.check_words("x", [words], words.size), "") > ALPHA
    some = rng.random(words.size) < 0.02
    words = np.where(some, fault(words), words)
    assert p_of(battery.check_words("x", [words], words.size), test) < ALPHA


DIEHARDER = """
#=============================================================================#
        test_name   |ntup| tsamples |psamples|  p-value |Assessment
#=============================================================================#
   diehard_birthdays|   0|       100|     100|0.53698190|  PASSED
          sts_serial|   3|    100000|     100|0.99902439|   WEAK
          sts_serial|   4|    100000|     100|0.00000000|  FAILED
          sts_serial|   5|    100000|     100|1.00000000|  FAILED
"""


def test_dieharders_table_is_read():
    found = battery.parse_dieharder(DIEHARDER)
    assert [name for name, _, _ in found] == [
        "diehard_birthdays 0", "sts_serial 3", "sts_serial 4", "sts_serial 5",
    ]  # fmt: skip
    assert np.allclose([p for _, p, _ in found], [0.9260362, 0.00195122, 0, 0])
    assert [a for *_, a in found] == ["PASSED", "WEAK", "FAILED", "FAILED"]


@pytest.mark.skipif(shutil.which("dieharder") is None, reason="dieharder is not installed")
def test_dieharder_catches_a_counter():
    counter = (np.arange(n << 16, n + 1 << 16, dtype=np.uint32) for n in range(1 << 16))
    [(_, p, _)] = battery.parse_dieharder(battery.run_dieharder(100, counter))
    assert p < ALPHA


def test_dieharder_is_skipped_where_it_is_not(monkeypatch):
    monkeypatch.setattr(battery.shutil, "which", lambda name: None)
    [result] = battery.check_dieharder("x", battery.one_stream, 1, 0, (), 0)
    assert math.isnan(result.p) and "not installed" in result.note


def test_the_control_is_reported_and_not_judged(capsys):
    bad = battery.Result(f"{battery.CONTROL}: dieharder -d 0, x", 0.0, "FAILED")
    assert battery.report([bad, battery.Result("numinit", 0.5)]) == 0
    assert "1 of 1 not passed" in capsys.readouterr().out


def test_the_record_is_read_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(battery, "RECORD", tmp_path / "record.json")
    ran = []

    def units(quick, seed):
        def unit(p):
            ran.append(p)
            return [battery.Result(f"a test, {p}", p, 'x, "y"')]

        return {"laws": {"good": lambda: unit(0.5), "bad": lambda: unit(0.0)}}

    monkeypatch.setattr(battery, "parts", units)
    assert battery.main([]) == 1
    text = battery.RECORD.read_text()
    assert re.search(r'^ *\["a test, 0.5", 0.5, "x, \\"y\\""\]$', text, re.M), text
    assert battery.main([]) == 1 and len(ran) == 2  # nothing ran again
    assert battery.main(["--recorded", "--seed", "1"]) == 1
    assert "incomplete: 2 units have not run" in capsys.readouterr().out
    assert battery.main(["--again"]) == 1 and len(ran) == 4


# asv, the peers and the promises.


def benchmarks():
    for module in ASV:
        loaded = importlib.import_module(f"benchmarks.{module}")
        for kind in vars(loaded).values():
            if isinstance(kind, type) and kind.__module__ == loaded.__name__ and hasattr(kind, "params"):  # fmt: skip
                yield kind


def test_asv_names_its_parameters():
    found = list(benchmarks())
    assert len(found) >= 7
    for kind in found:
        nested = isinstance(kind.params, tuple)
        assert len(kind.param_names) == (len(kind.params) if nested else 1)
        for name in vars(kind):
            if name.startswith("track_"):
                assert getattr(kind, name).unit != "unit"


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_every_family_is_filled_or_skipped_with_a_reason(family):
    try:
        cell = cases.cell(family, "float32", 40_000)
    except NotImplementedError as reason:
        assert str(reason)
    else:
        assert 20_000 <= cell.buffer.nbytes <= 40_000
        assert cell.fill() is cell.buffer


def test_a_buffer_is_made_once():
    assert cases.cell("normal", "float32", 4096) is cases.cell("normal", "float32", 4096)


def test_what_there_is_not_is_skipped():
    with pytest.raises(NotImplementedError, match="complex64"):
        cases.cell("truncated normal, 2 sigma", "complex64", 4096)


def test_what_takes_too_long_is_skipped(monkeypatch):
    monkeypatch.setitem(cases.FAMILIES, "tiny", cases.FAMILIES["normal"]._replace(largest=10))
    with pytest.raises(NotImplementedError, match="too long"):
        cases.cell("tiny", "float32", 4096)


def test_peers_in_processes(tmp_path, capsys):
    arguments = ["--mib", "0.25", "--rounds", "2", "--peers", "numinit", "NumPy", "--out", str(tmp_path)]  # fmt: skip
    assert peers.main([*arguments, "--dtypes", "float32"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\| uniform \| float32 \| numinit \| [\d.]+ \(", out, re.M)
    assert re.search(r"^\| normal \| float32 \| NumPy \| [\d.]+ \(.* x \|", out, re.M)
    assert "| truncated normal | float32 | NumPy | no truncated normal |" in out
    if importlib.util.find_spec("matplotlib") is None:
        assert "no chart" in out
    else:
        assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "peers.md").read_text("utf-8").endswith(out[: out.rindex("|\n") + 2])


def test_a_peer_that_is_not_there_says_so(monkeypatch):
    def missing(case):
        import surely_not_installed  # noqa: F401

    monkeypatch.setitem(peers.PEERS, "NumPy", missing)
    worker = peers.Worker("NumPy")
    with pytest.raises(ImportError):
        worker.answer(peers.Case("uniform", "float32", 10), "warm")


def test_neighbours_are_noticed():
    quiet = measure.Quiet()
    if quiet.cores() is None:
        pytest.skip("this system does not say")
    spin = "import time; end = time.time() + 1\nwhile time.time() < end: pass"
    child = subprocess.Popen([sys.executable, "-c", spin])
    time.sleep(0.7)
    assert quiet.cores() > 0.4  # the child's, which has not ended
    assert "quiet machine" in str(quiet)
    child.wait()


def test_the_machine_is_named_without_the_host():
    import platform

    assert "logical cores" in measure.machine()
    assert not platform.node() or platform.node() not in measure.machine()


README = ROOT / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="no README here")
def test_the_readme_has_the_table_of_recorded_ratios():
    records = json.loads(ratios.RECORD.read_text(encoding="utf-8"))
    assert ratios.table(records) in README.read_text(encoding="utf-8")
    promises = {promise.what: promise for promise in ratios.PROMISES}
    for kind, record in records.items():
        assert record["rows"].keys() == promises.keys()
        assert record["machine"] in README.read_text(encoding="utf-8")
        assert all(kind in promise.ratios for promise in promises.values())


def test_the_class_of_a_machine(monkeypatch):
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    assert measure.machine_class() in {*measure.CLASSES, ""}
    monkeypatch.setenv("NUMBA_CPU_NAME", "znver3")
    assert measure.machine_class() == "AVX2"


def test_a_row_is_compared_with_the_promise_of_its_class():
    slow, fast = (lambda: sum(range(100_000))), (lambda: sum(range(1000)))
    promise = ratios.Promise("", "", ratios.both(10, 1e9), lambda: (fast, slow), "µs", (0, 0))
    found = ratios.row(promise, 5)
    assert ratios.held(promise, found, "AVX-512")
    assert not ratios.held(promise, found, "AVX2")
    assert ratios.held(promise, found, "")
