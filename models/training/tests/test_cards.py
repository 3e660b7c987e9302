"""What the shipped cards take from those of the weights that were judged."""

import json

from voxmask_training import cards
from voxmask_training.folds import NO_FOLD


def card(digest: str, held_out: list[str], value: float) -> dict[str, object]:
    training = {"subjects": 2, "held_out_subjects": held_out, "steps": 10}
    blocks = {"boundary": None, "area": {"altered_threshold": value}, "evaluation": [value]}
    return {"weights": {"sha256": digest}, "training": training, **blocks}


def test_shipped_cards_take_parameters_and_figures_and_say_whose_they_are(tmp_path, monkeypatch):
    for folder, content in (("judged", card("1", ["a"], 0.5)), ("shipped", card("2", [], 2.0))):
        for task in cards.TASKS:
            (tmp_path / folder / task).mkdir(parents=True)
            (tmp_path / folder / task / "card.json").write_text(json.dumps(content))
    arguments = ["--judged", str(tmp_path / "judged"), "--shipped", str(tmp_path / "shipped")]
    monkeypatch.setattr("sys.argv", ["cards", *arguments])
    cards.main()
    for task in cards.TASKS:
        found = json.loads((tmp_path / "shipped" / task / "card.json").read_text())
        assert (found["area"], found["evaluation"]) == ({"altered_threshold": 0.5}, [0.5])
        assert found["weights"]["sha256"] == "2" and found["training"]["held_out_subjects"] == []
        figures_of = {"weights": "1", "held_out_subjects": ["a"], "steps": 10}
        assert found["training"]["figures_of"] == figures_of


def test_the_refining_network_goes_along_with_its_part_of_the_card(tmp_path):
    judged, shipped = tmp_path / "judged", tmp_path / "shipped"
    for folder, content in ((judged, card("1", ["a"], 0.5)), (shipped, card("2", [], 2.0))):
        folder.mkdir()
        if folder == judged:
            refinement = {"weights": {"file": "refinement.onnx", "sha256": "3"}, "share": 0.5}
            content["refinement"] = refinement | {"training": {"held_out_fold": "0"}}
            (folder / "refinement.onnx").write_bytes(b"weights")
        (folder / "card.json").write_text(json.dumps(content))
    cards.share(judged, shipped)
    found = json.loads((shipped / "card.json").read_text())
    assert list(found)[list(found).index("area") + 1] == "refinement"
    assert (shipped / "refinement.onnx").read_bytes() == b"weights"
    assert found["training"]["figures_of"]["refinement_weights"] == "3"
    (judged / "card.json").write_text(json.dumps(card("1", ["a"], 0.5)))
    cards.share(judged, shipped)
    assert "refinement" not in json.loads((shipped / "card.json").read_text())
    assert not (shipped / "refinement.onnx").exists()


def test_a_refining_network_that_saw_every_subject_stays_and_takes_parameters_alone(tmp_path):
    judged, shipped = tmp_path / "judged", tmp_path / "shipped"
    for folder, fold, share in ((judged, "0", 0.5), (shipped, NO_FOLD, 1.0)):
        folder.mkdir()
        weights = {"file": "refinement.onnx", "sha256": fold}
        shown = {"input": {"cell_mm": 2.0}, "logit_most": 8.0, "logit_unit": 4.0}
        about = {"weights": weights, "share": share, "training": {"held_out_fold": fold}} | shown
        content = card(fold, [], 0.5) | {"refinement": about}
        (folder / "card.json").write_text(json.dumps(content))
        (folder / "refinement.onnx").write_text(fold)
    cards.share(judged, shipped)
    whole = json.loads((shipped / "card.json").read_text())
    assert whole["training"]["figures_of"]["refinement_weights"] == "0"
    found = whole["refinement"]
    assert found["share"] == 0.5 and found["weights"]["sha256"] == NO_FOLD
    assert found["training"] == {"held_out_fold": NO_FOLD}
    assert (shipped / "refinement.onnx").read_text() == NO_FOLD
    # One that was shown something else could not take the other's parameters.
    content = json.loads((judged / "card.json").read_text())
    content["refinement"]["logit_unit"] = 2.0
    (judged / "card.json").write_text(json.dumps(content))
    cards.share(judged, shipped)
    assert (shipped / "refinement.onnx").read_text() == "0"
