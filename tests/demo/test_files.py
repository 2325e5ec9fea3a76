"""A package's files, compared with RECORD; what cannot be read is counted."""

import os
from pathlib import Path

import pytest

from continuum.demo import files
from continuum.demo.files import Tally, examine, files_of
from continuum.demo.packages import Package
from tests.demo.harness import fill, installed, sha256


def check(package: Package) -> Tally:
    listing = files_of(package, "")
    return examine(package, listing.files)


def test_a_distribution_as_installed_has_no_mismatch(tmp_path: Path) -> None:
    tally = check(installed(tmp_path, {"nice/a.py": b"a = 1\n", "nice/b.py": b""}))
    assert (tally.files, tally.compared, tally.mismatches, tally.unread) == (3, 2, 0, 0)  # RECORD is the third


def test_a_changed_file_is_a_mismatch(tmp_path: Path) -> None:
    package = installed(tmp_path, {"nice/a.py": b"a = 1\n", "nice/b.py": b"b"})
    (tmp_path / "nice/a.py").write_bytes(b"a = 2\n")
    tally = check(package)
    assert tally.mismatches == 1
    assert tally.examples == ["Nice.Things: nice/a.py has another sha256 than RECORD says"]


def test_a_file_of_another_size_is_a_mismatch(tmp_path: Path) -> None:
    package = installed(tmp_path, {"nice/a.py": b"a = 1\n"})
    (tmp_path / "nice/a.py").write_bytes(b"")
    assert check(package).examples == ["Nice.Things: nice/a.py has 0 bytes, RECORD says 6"]


def test_a_missing_file_is_a_mismatch(tmp_path: Path) -> None:
    package = installed(tmp_path, {"nice/a.py": b"a = 1\n"})
    (tmp_path / "nice/a.py").unlink()
    tally = check(package)
    assert (tally.mismatches, tally.examples) == (1, ["Nice.Things: nice/a.py is missing"])


def test_every_mismatch_is_counted_and_some_are_told(tmp_path: Path) -> None:
    package = installed(tmp_path, {}, more="".join(f"gone-{n:02},{sha256(b'')},0\n" for n in range(40)))
    tally = check(package)
    assert (tally.mismatches, len(tally.examples)) == (40, files.MAX_EXAMPLES)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_other_digests_that_a_record_may_have_are_compared(tmp_path: Path, algorithm: str) -> None:
    import hashlib
    from base64 import urlsafe_b64encode

    digest = urlsafe_b64encode(hashlib.new(algorithm, b"x").digest()).decode().rstrip("=")
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "y").write_bytes(b"y")
    tally = check(installed(tmp_path, {}, more=f"x,{algorithm}={digest},1\ny,{algorithm}={digest},1\n"))
    assert (tally.compared, tally.examples) == (2, [f"Nice.Things: y has another {algorithm} than RECORD says"])


def test_a_digest_that_a_record_may_not_have_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    tally = check(installed(tmp_path, {}, more="x,md5=AAAA,1\n"))
    assert (tally.compared, tally.mismatches) == (0, 0)


def test_what_is_no_file_is_counted_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    package = Package("tmp", "entry", tmp_path.name, str(tmp_path.parent))
    tally = check(package)
    assert (tally.files, tally.unread, tally.mismatches) == (3, 3, 0)


def test_a_folder_where_a_file_should_be_cannot_be_read(tmp_path: Path) -> None:
    package = installed(tmp_path, {"nice": b"a"})
    (tmp_path / "nice").unlink()
    (tmp_path / "nice").mkdir()
    tally = check(package)
    assert (tally.unread, tally.compared, tally.mismatches) == (1, 0, 0)


def test_a_file_over_the_limit_is_counted_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 3)
    fill(tmp_path, {"all/small": b"abc", "all/large": b"abcd"})
    tally = check(Package("all", "entry", "all", str(tmp_path)))
    assert (tally.files, tally.unread, tally.bytes) == (2, 1, 7)


def test_a_distribution_without_record_is_counted_as_such(tmp_path: Path) -> None:
    package = installed(tmp_path, {})
    next(tmp_path.glob("*.dist-info/RECORD")).unlink()
    assert files_of(package, "").unlisted
    assert files_of(Package("gone", "distribution", "gone", str(tmp_path)), "").unlisted


def test_a_record_that_is_not_text_is_no_record(tmp_path: Path) -> None:
    package = installed(tmp_path, {})
    next(tmp_path.glob("*.dist-info/RECORD")).write_bytes(b"\xff\xfe")
    assert files_of(package, "").unlisted


def test_rows_that_are_damaged_are_passed_over(tmp_path: Path) -> None:
    package = installed(tmp_path, {"a": b"a"}, more="\n,,\na\nb,,many\n")
    assert [file.path for file in files_of(package, "").files] == ["a", "b", "nice_things-1.0.dist-info/RECORD"]


def test_compiled_files_are_passed_over_everywhere(tmp_path: Path) -> None:
    fill(tmp_path, {"p/a.py": b"", "p/a.pyc": b"", "p/__pycache__/a.pyc": b"", "p/q/__pycache__/b.pyc": b""})
    listed = files_of(Package("p", "entry", "p", str(tmp_path)), "")
    assert [file.path for file in listed.files] == ["p/a.py"]
    assert not any("pycache" in file.path for file in files_of(installed(tmp_path, {}), "").files)


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path, {"p/a": b"a"})
    (tmp_path / "p" / "again").symlink_to(tmp_path)
    (tmp_path / "q").symlink_to("p")
    assert [file.path for file in files_of(Package("p", "entry", "p", str(tmp_path)), "").files] == ["p/a"]
    assert files_of(Package("q", "entry", "q", str(tmp_path)), "").files == []


def test_our_home_folder_is_passed_over_wherever_it_lies(tmp_path: Path) -> None:
    fill(tmp_path, {"p/a": b"", "p/.continuum/log": b"", "p/home/log": b""})
    listed = files_of(Package("p", "entry", "p", str(tmp_path)), str(tmp_path / "p" / "home"))
    assert [file.path for file in listed.files] == ["p/a"]


def test_a_package_of_too_many_files_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILES", 2)
    fill(tmp_path, {f"p/{name}": b"" for name in "dcba"})
    listing = files_of(Package("p", "entry", "p", str(tmp_path)), "")
    assert ([file.path for file in listing.files], listing.left_out > 0) == (["p/a", "p/b"], True)


def test_the_digest_tells_another_name_and_another_byte(tmp_path: Path) -> None:
    digests: set[str] = set()
    for number, tree in enumerate([{"p/a": b"a"}, {"p/b": b"a"}, {"p/a": b"b"}, {"p/a": b"a"}]):
        fill(tmp_path / str(number), tree)
        digests.add(check(Package("p", "entry", "p", str(tmp_path / str(number)))).digest)
    assert len(digests) == 3


def test_a_message_cannot_move_the_cursor(tmp_path: Path) -> None:
    package = installed(tmp_path, {}, more=f'"a\x1b[2Jb",{sha256(b"")},0\n')
    assert check(package).examples == ["Nice.Things: a?[2Jb is missing"]
