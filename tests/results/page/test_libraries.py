from hashlib import sha256
from importlib.metadata import version

import pytest
import vl_convert

from xlora_bench.results.page.write import BUNDLES, VEGA_LITE, vega_bundle

pytestmark = pytest.mark.slow


def test_the_bundle_is_built_once_and_a_file_with_another_hash_is_not_used(tmp_path, monkeypatch):
    build, built = vl_convert.javascript_bundle, []
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda *a, **k: built.append(k) or build(*a, **k))
    folder = tmp_path / "page"
    first = vega_bundle(folder)
    assert built == [{"vl_version": VEGA_LITE}]
    assert sha256(first.encode()).hexdigest() == BUNDLES[version("vl-convert-python")]
    assert vega_bundle(folder) == first
    assert len(built) == 1
    (file,) = folder.iterdir()
    file.write_text(first.replace("vegaEmbed", "otherEmbed"))
    assert vega_bundle(folder) == first
    assert len(built) == 2
    assert file.read_text() == first


def test_a_cache_that_cannot_be_written_and_another_version_are_fine(tmp_path, monkeypatch):
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda *_, **__: "code")
    (tmp_path / "file").touch()
    assert vega_bundle(tmp_path / "file" / "page") == "code"
    monkeypatch.setattr("xlora_bench.results.page.write.BUNDLES", {})
    assert vega_bundle(tmp_path / "page") == "code"
    assert not (tmp_path / "page").exists()
