"""Exported models against `transformers`, `peft` and `sentence-transformers`, and against the model they came from."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minbert.encoder.base import Base, BaseEncoderError, find_base
from minbert.fields import ConfigError
from minbert.tasks import choose_tasks
from minbert.training import exported
from minbert.training.exported import FORMS, ExportError, Origin, check_form, read, write
from minbert.training.model import MultitaskModel
from minbert.training.predict import Predictor, open_predictor
from tests.minbert.configs import configure
from tests.minbert.encoder.test_bert import SENTENCES, by_sequence, packed
from tests.minbert.techniques.test_adapters import stir

TOLERANCE = 1e-5
"""Largest difference in float32, of states of size 1 to 3."""

ORIGIN = Origin({"name": "tiny", "sha256": "s"}, "f", 7, {"sst": 64})

LOW_RANK = {
    "lora": ["adapter/kind=lora", "adapter/rank=3"],
    "dora": ["adapter/kind=dora", "adapter/rank=3"],
    "lora of everything": [
        "adapter/kind=lora", "adapter/bias=all", "adapter/rest=trained", "adapter/heads=lora", "adapter/alpha=1.5"
    ],
    "dora in the top layer": [
        "adapter/kind=dora", "adapter/layers/kind=top", 'adapter/targets=["up","value"]', "adapter/bias=adapted"
    ],
}  # fmt: skip
PLAIN = {
    "none": ["adapter/kind=none", "encoding/sst/pooling=pooler"],
    "frozen": ["adapter/kind=frozen", "encoding/qqp/kind=bi", "encoding/sts/kind=bi", "shared_head/kind=linear"],
}
PAL = ["adapter/kind=pal", "encoding/sts/kind=bi", "encoding/sts/head/kind=cosine"]
CASES = [
    *((name, exported.MERGED) for name in PLAIN | LOW_RANK),
    *((name, exported.PEFT) for name in LOW_RANK),
    ("lora of everything", exported.OWN),
]


def trained(pairs: list[str], base: Base) -> MultitaskModel:
    """A model whose trained tensors have moved."""
    tasks = choose_tasks()
    model = MultitaskModel(configure(*pairs), base, tasks, 0)
    stir(model, 0.05)
    return model


def loaded(directory: Path, form: str) -> Any:
    """The encoder as `transformers`, and for its adapter `peft`, load it."""
    import peft
    import transformers

    encoder, info = transformers.AutoModel.from_pretrained(directory, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert {name.partition(".")[0] for name in info["missing_keys"]} <= {"pooler"}  # the tiny base has none
    if form == exported.PEFT:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # peft warns of tensors that it does not find
            warnings.filterwarnings("ignore", category=FutureWarning)
            encoder = peft.PeftModel.from_pretrained(encoder, directory / "adapter")
    return encoder.eval()


@pytest.mark.parametrize(("name", "form"), CASES)
def test_transformers_and_peft_compute_the_same_states(name: str, form: str, tiny: Base, tmp_path: Path) -> None:
    import transformers

    model = trained((PLAIN | LOW_RANK)[name], tiny)
    write(model, tiny, ORIGIN, tmp_path / "e", form=form)
    if form != exported.OWN:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "e")
        inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
        batch = packed(tiny)
        with torch.no_grad():
            states = loaded(tmp_path / "e", form)(**inputs).last_hidden_state[inputs["attention_mask"].bool()]
            expected = torch.cat(by_sequence(model.encoder(batch), batch))
        assert (states - expected).abs().max() < TOLERANCE
        assert expected.abs().max() > 1
    assert_same_predictions(Predictor.of(model, tiny), open_predictor(tmp_path / "e"))


def assert_same_predictions(ours: Predictor, theirs: Predictor) -> None:
    pairs = [(text, SENTENCES[-1]) for text in [*SENTENCES, ""]]
    for task, declared in ours.model.tasks.items():
        texts = pairs if declared.is_pair else [pair[:1] for pair in pairs]
        first, second = ours(task, texts), theirs(task, texts)
        np.testing.assert_allclose(first.values, second.values, atol=TOLERANCE)
        if first.probabilities is not None and second.probabilities is not None:
            np.testing.assert_allclose(first.probabilities, second.probabilities, atol=TOLERANCE)
            assert first.probabilities.std() > 1e-3  # the rows differ


def test_a_per_task_adapter_is_kept_in_our_own_form_alone(tiny: Base, tmp_path: Path) -> None:
    model = trained(PAL, tiny)
    for form, reason in ((exported.MERGED, "no weights of a plain BERT"), (exported.PEFT, "`peft` does not have")):
        with pytest.raises(ExportError, match=f"{reason}.*Accepted for pal: own"):
            write(model, tiny, ORIGIN, tmp_path / "e", form=form)
    assert not list(tmp_path.iterdir())
    write(model, tiny, ORIGIN, tmp_path / "e", form=exported.OWN)
    assert_same_predictions(Predictor.of(model, tiny), open_predictor(tmp_path / "e"))


def test_a_form_that_does_not_fit_names_one_that_does() -> None:
    with pytest.raises(ExportError, match="found frozen.*Accepted for frozen: merged"):
        check_form(configure("adapter/kind=frozen"), exported.PEFT)
    with pytest.raises(ConfigError, match="Unknown adapter form `merge`. Did you mean `merged`"):
        check_form(configure(), "merge")


@pytest.mark.parametrize("text", [*SENTENCES, "", "日本語 and [MASK] ##s", "a" * 300])
def test_the_tokeniser_gives_our_word_pieces(text: str, tiny: Base, tmp_path_factory: pytest.TempPathFactory) -> None:
    import transformers

    from minbert.data.tokens import word_piece

    directory = tmp_path_factory.getbasetemp() / "tokeniser"
    if not directory.exists():
        write(trained([], tiny), tiny, ORIGIN, directory)
    tokenizer, cls, sep = word_piece(tiny.vocabulary, tiny.lowercase), *map(tiny.vocabulary.index, ("[CLS]", "[SEP]"))
    first, second = (tokenizer.encode(part, add_special_tokens=False).ids for part in (text, "a good film"))
    pair = transformers.AutoTokenizer.from_pretrained(directory)(text, "a good film")
    if "[MASK]" not in text:  # there a special token, here a text like any other
        assert pair["input_ids"] == [cls, *first, sep, *second, sep]
    assert pair["token_type_ids"] == [0] * (len(pair["input_ids"]) - len(second) - 1) + [1] * (len(second) + 1)


def test_a_sentence_encoder_keeps_its_pooling(tiny: Base, tmp_path: Path) -> None:
    from dataclasses import replace

    from sentence_transformers import SentenceTransformer

    base = replace(tiny, pooling="mean")
    model = trained([], base)
    write(model, base, ORIGIN, tmp_path / "e")
    batch = packed(tiny)
    with torch.no_grad():
        expected = torch.stack([states.mean(0) for states in by_sequence(model.encoder(batch), batch)])
    actual = SentenceTransformer(str(tmp_path / "e"), device="cpu").encode(SENTENCES, convert_to_tensor=True)
    assert (actual - expected).abs().max() < TOLERANCE
    again = find_base(str(tmp_path / "e"))  # an exported model is a base for further training
    assert (again.pooling, again.config, again.vocabulary) == ("mean", base.config, base.vocabulary)
    assert torch.equal(again.load().layers[1].up.weight, model.encoder.layers[1].up.weight)


def test_a_base_pooler_comes_along(tiny: Base, tmp_path: Path) -> None:
    write(trained([], tiny), tiny, ORIGIN, tmp_path / "first")
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "first" / "model.safetensors")
    width = tiny.config.hidden_size
    tensors |= {"pooler.dense.weight": torch.eye(width) / 2, "pooler.dense.bias": torch.ones(width)}
    save_file(tensors, tmp_path / "first" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "first" / "model.safetensors.sha256").unlink()
    base = find_base(str(tmp_path / "first"))
    write(trained([], base), base, ORIGIN, tmp_path / "second")
    encoder = loaded(tmp_path / "second", exported.MERGED)
    states = torch.randn(1, 2, width)
    assert torch.allclose(encoder.pooler(states), torch.tanh(F.linear(states[:, 0], torch.eye(width) / 2) + 1))


def test_nothing_is_pickled_and_everybody_may_read(tiny: Base, tmp_path: Path) -> None:
    write(trained(LOW_RANK["lora"], tiny), tiny, ORIGIN, tmp_path / "e", form=exported.PEFT, card="# card\n")
    files = [path for path in (tmp_path / "e").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".sha256", ".txt", ".md"}
    assert len({path.stat().st_mode for path in files}) == 1
    record = json.loads((tmp_path / "e" / exported.RECORD).read_text())
    assert record["origin"] == {"base": ORIGIN.base, "data": "f", "seed": 7, "examples": {"sst": 64}}
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_directory_is_replaced_only_if_it_is_an_export_and_on_request(tiny: Base, tmp_path: Path) -> None:
    model, target = trained([], tiny), tmp_path / "new" / "e"
    write(model, tiny, ORIGIN, target, card="first")
    with pytest.raises(ExportError, match="holds files.*add --overwrite to replace it"):
        write(model, tiny, ORIGIN, target)
    (target / "extra.txt").write_text("")
    write(model, tiny, ORIGIN, target, card="second", overwrite=True)
    assert (target / "README.md").read_text() == "second" and not (target / "extra.txt").exists()
    others = tmp_path / "others"
    others.mkdir()
    write(model, tiny, ORIGIN, others)  # an empty directory is as good as none
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="only an exported model can be replaced"):
        write(model, tiny, ORIGIN, tmp_path / "notes", overwrite=True)
    for below in ("mine.txt", "mine.txt/e"):
        with pytest.raises(ExportError, match=r"mine\.txt is a file"):
            write(model, tiny, ORIGIN, tmp_path / "notes" / below, overwrite=True)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


def test_an_export_that_fails_leaves_what_was_there(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained([], tiny)
    write(model, tiny, ORIGIN, tmp_path / "e", card="first")

    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exported, "write_json", full)
    for name, overwrite in (("e", True), ("other", False)):
        with pytest.raises(OSError, match="No space"):
            write(model, tiny, ORIGIN, tmp_path / name, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    assert (tmp_path / "e" / "README.md").read_text() == "first"
    read(tmp_path / "e")


def test_a_damaged_export_is_refused(tiny: Base, tmp_path: Path) -> None:
    path = tmp_path / "e"
    write(trained(LOW_RANK["dora"], tiny), tiny, ORIGIN, path, form=exported.PEFT)

    def damaged(name: str, change: bytes | None, error: type[ValueError], words: str) -> None:
        whole = (path / name).read_bytes()
        (path / name).write_bytes(change) if change is not None else (path / name).unlink()
        with pytest.raises(error, match=words):
            read(path)
        (path / name).write_bytes(whole)

    record = json.loads((path / exported.RECORD).read_text())
    weights = (path / "model.safetensors").read_bytes()
    damaged("model.safetensors", weights[:-1] + b"x", BaseEncoderError, "different weights")
    damaged("minbert.safetensors", b"x", ExportError, "missing or damaged")
    damaged("adapter/adapter_model.safetensors", None, ExportError, "missing or damaged")
    damaged(exported.RECORD, b"{}", ExportError, "cannot be read")
    damaged(exported.RECORD, json.dumps({**record, "format": 2}).encode(), ExportError, "reads format 1")
    damaged(exported.RECORD, json.dumps({**record, "tasks": {"sst": {}}}).encode(), ExportError, "is damaged")
    damaged(exported.RECORD, json.dumps({**record, "adapter_form": "own"}).encode(), ExportError, "does not hold")
    read(path)


def test_every_form_is_written_by_a_case() -> None:
    assert {form for _, form in CASES} == set(FORMS)
