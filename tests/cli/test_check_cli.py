"""`anatogen check` as a user types it: what it prints, what it writes, how it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from anatogen.check import check
from anatogen.check.page import overlays
from anatogen.check.samples import check_samples
from anatogen.generation.engine import Generator
from anatogen.generation.request import Request
from anatogen.generation.sample_set import write_sample_set
from anatogen.labels import ClassStates

Cli = Callable[..., tuple[int, str, str]]


def stretch(folder: Path) -> None:
    for path in (folder / "labelsTr").glob("*.nii.gz"):
        image = nibabel.load(path)
        labels = np.array([0, 128, 255], np.uint8)[np.asarray(image.dataobj)]
        nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)


def test_clean_data_is_fit(cli: Cli, nnunet: Path) -> None:
    code, out, err = cli("check", nnunet)
    assert code == 0 and "Fit for training: " in out.splitlines()[-1] and "error" not in out
    assert re.search(r"class   1 ball +\S+ % of voxels; in 8 of 8 patients", out) and "Traceback" not in err


def test_faults_are_told_written_and_mended(cli: Cli, nnunet: Path, tmp_path: Path) -> None:
    stretch(nnunet)
    page, data, out_folder = tmp_path / "p" / "check.html", tmp_path / "check.json", tmp_path / "fixed"
    code, out, _ = cli("check", nnunet, "--html", page, "--json", data, "--fix", out_folder)
    assert code == 1 and "labels-stretched (8)" in out and "and 5 more" in out
    assert f"{out_folder}: a copy with 8 label maps fixed (0 to 0, 128 to 1, 255 to 2)" in out
    found = json.loads(data.read_text())
    assert found["fit"] is False and found["counts"]["error"] == 8 and found["version"]
    first = next(f for f in found["findings"] if f["code"] == "labels-stretched")
    assert first["file"].startswith("labelsTr/ball_") and first["fixable"] and first["hint"]
    assert cli("check", out_folder)[0] == 0
    code, out, _ = cli("check", out_folder, "--fix", tmp_path / "again")
    assert code == 0 and "nothing can be fixed" in out and not (tmp_path / "again").exists()


class Page(HTMLParser):
    """Counts rows, and gathers what a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.pictures, self.outside, self.open = 0, 0, [], []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        for name, value in attrs:
            if name in ("src", "href"):
                self.pictures += str(value).startswith("data:image/png;base64,")
                self.outside += [value] if not str(value).startswith("data:") else []
        if tag not in ("meta", "img", "br", "link", "p", "li", "tr", "td", "th", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("p", "li", "tr", "td", "th", "html"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_alone(cli: Cli, nnunet: Path, tmp_path: Path) -> None:
    (nnunet / "imagesTr" / "<script>alert(1)</script>".replace("/", "_")).touch()
    (nnunet / "imagesTr" / "._<b>.nii.gz").touch()
    stretch(nnunet)
    cli("check", nnunet, "--html", tmp_path / "check.html")
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    report = check(str(nnunet))
    assert page.open == [] and page.outside == [] and page.pictures == 1
    assert not any(c.patients for c in report.classes) and page.rows == 1 + len(report.groups())
    assert "Undeclared values are magenta" in text
    assert "NOT fit for training" in text and "<b>" not in text.replace('<b style="left', "") and "&lt;b&gt;" in text


def test_the_overlays_show_the_labels(nnunet: Path, tmp_path: Path) -> None:
    """The picture holds the colours of both classes; magenta where a value is no class's."""
    import io

    def colours(folder: Path) -> set[tuple[int, ...]]:
        figure = overlays(check(str(folder)))
        assert figure is not None
        pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).reshape(-1, 3)
        there, counts = np.unique(pixels, axis=0, return_counts=True)
        return {tuple(int(v) for v in c) for c, n in zip(there, counts, strict=True) if n > 200}

    orange, blue, magenta = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9), (255, 0, 255)
    clean = colours(nnunet)
    assert {orange, blue} <= clean and magenta not in clean
    stretch(nnunet)
    assert magenta in colours(nnunet)


BAD = {
    "nothing there": (["nowhere"], "nowhere: does not exist"),
    "empty folder": (["{empty}"], "has no known layout"),
    "unknown layout": (["{raw}", "--layout", "nnnet"], "Did you mean 'nnunet'"),
    "fix is there": (["{raw}", "--fix", "{empty}"], "already exists"),
    "page cannot be written": (["{raw}", "--html", "/proc/nothing/x.html"], "cannot be written"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(cli: Cli, name: str, nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, message = BAD[name]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("check", *[w.format(raw=nnunet, empty=tmp_path / "empty") for w in words])
    assert code == 2 and message in err and "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


def test_a_prepared_data_set_is_fit(cli: Cli, dataset_folder: Path) -> None:
    code, out, _ = cli("check", dataset_folder)
    assert code == 0 and "prepared, 8 cases of 8 patients" in out


@pytest.fixture
def samples(run_folder: Path, tmp_path: Path) -> Path:
    generator = Generator.load(run_folder, device="cpu")
    states = ClassStates.all_given(generator.schema)
    labels = np.zeros((32, 32), np.int64)
    labels[8:20, 8:20] = 1
    labels[10:14, 10:14] = 2
    requests = [Request(labels, states, i, id=f"s{i}") for i in range(3)]
    write_sample_set(generator, requests, tmp_path / "samples")
    return tmp_path / "samples"


def test_a_sample_set_is_checked(cli: Cli, samples: Path) -> None:
    code, out, _ = cli("check", samples)
    assert code == 0 and "sample set, 3 cases" in out and "few-patients" not in out
    image, other = sorted((samples / "images").iterdir())[:2]
    other.write_bytes(image.read_bytes())
    assert [f.severity for f in check_samples(samples).of("duplicate-image")] == ["error"]
    image.unlink()
    (samples / "images" / "more.png").write_bytes(other.read_bytes())
    with (samples / "manifest.jsonl").open("a") as file:
        file.write('{"id": "torn\n')
    code, out, _ = cli("check", samples)
    assert code == 1
    report = check_samples(samples)
    assert [(f.code, f.file) for f in report.findings[:3]] == [
        ("file-missing", "images/s0.png"),
        ("damaged", "manifest.jsonl"),
        ("file-not-listed", "images/more.png"),
    ]
    (samples / "manifest.jsonl").write_text("")
    assert [f.severity for f in check_samples(samples).of("no-samples")] == ["error"]
    (samples / "samples.json").write_text("[]")
    assert [f.code for f in check_samples(samples).findings] == ["damaged"] and cli("check", samples)[0] == 1


def test_help_has_an_example(cli: Cli) -> None:
    code, out, _ = cli("check", "--help")
    assert code == 0 and "Example: anatogen check" in out and "--fix" in out


def test_help_of_all_names_the_command_without_heavy_imports() -> None:
    script = "import sys, anatogen.cli.app; print(sorted({'torch', 'PIL', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
