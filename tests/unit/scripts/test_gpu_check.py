"""The check of a GPU box: its plan where there is no GPU, and what goes into its report."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def test_without_a_gpu_it_says_what_it_would_do(monkeypatch, tmp_path, capsys):
    import gpu_check

    monkeypatch.setattr(gpu_check.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path / "out")])
    assert gpu_check.main() == 0
    said = capsys.readouterr().out
    assert "There is no CUDA device" in said
    for command in ("pytest -q -m gpu", "bench_dyhead.py", "--amp bf16", "dyhead_det train"):
        assert command in said
    assert not (tmp_path / "out").exists()


def test_a_relative_folder_is_that_of_the_caller_and_a_second_training_has_its_own(
    monkeypatch, tmp_path
):
    import gpu_check

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", "out"])
    out = gpu_check.parse_options().out
    assert out == tmp_path / "out"
    for name in ("run", "run-2", "run-3"):
        training = gpu_check.planned_parts(out, quick=True)[-1]
        assert training.results == (out / name / "metrics.csv",)
        assert str(out / name) in training.command
        (out / name).mkdir(parents=True)


def test_every_planned_script_and_configuration_is_there():
    import gpu_check

    for part in gpu_check.planned_parts(Path("out"), quick=True):
        for argument in part.command:
            if argument.endswith((".py", ".yaml")):
                assert (gpu_check.ROOT / argument).is_file()


@pytest.mark.parametrize(("code", "ended"), [(0, "done"), (3, "FAILED with exit code 3")])
def test_the_report_has_results_of_what_was_done_and_the_output_of_what_failed(
    tmp_path, code, ended
):
    import gpu_check

    table = tmp_path / "table.md"
    table_is_written = f"open({str(table)!r}, 'w').write('a table')"
    program = f"import sys; {table_is_written}; print('said'); sys.exit({code})"
    part = gpu_check.Part("Bench", (sys.executable, "-c", program), (table,))
    section = "\n".join(gpu_check.section_of(part, gpu_check.run_part(part)))
    assert section.startswith(f"## Bench: {ended}\n")
    assert "a table" in section
    assert ("```\nsaid\n```" in section) == (code != 0)
