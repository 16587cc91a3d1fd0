from open_crema import progress


def test_without_a_terminal_a_line_is_printed_every_so_often(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.bar() as bar:
        task = bar.add_task("features", total=3000000, note="")
        bar.advance(task)
        bar.update(task, advance=1, note="loss [1]")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("features 1/3000000, ")
    assert lines[1].startswith("features 2/3000000, ")
    assert lines[1].endswith(" left, loss [1]")


def test_not_at_every_step(capsys):
    with progress.bar() as bar:
        task = bar.add_task("features", total=100, note="")
        for _ in range(100):
            bar.advance(task)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "100/100" in lines[0]
