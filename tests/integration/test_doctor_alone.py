"""`pose doctor` on this machine alone, with a run whose shards are missing: all else is well."""

import pytest

import pose

pytestmark = pytest.mark.integration


def test_everything_but_the_missing_shards_is_well(tmp_path, monkeypatch, capsys):
    for name in ("SLURM_JOB_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run.yaml"
    run.write_text(f"name: x\nruns_dir: {tmp_path / 'runs'}\ndata: {{h36m: {tmp_path / 'nowhere'}}}\n")
    assert pose.main(["doctor", "--run", str(run)]) == 1
    shown = capsys.readouterr()
    rows = {line.split("  ")[0].strip(): line for line in shown.out.splitlines()}
    for check in ("Python", "versions", "torch", "DALI", "DeepSpeed", "ports"):
        assert " ok " in rows[check], shown.out
    assert f"{tmp_path} can be written" in shown.out
    assert f"fail  shards {tmp_path / 'nowhere'} on " in shown.out
    assert "1 of " in shown.err
    assert list(tmp_path.iterdir()) == [run], "looking has left something behind"
