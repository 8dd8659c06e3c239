"""A recipe with `trainings: sft`: no preferences are made, and the SFT model is what is judged."""

from __future__ import annotations

import pytest

from moaa.errors import RecipeError
from moaa.plan import lines
from moaa.recipe.load import load_file
from moaa.registry import findings
from moaa.stages import gate
from moaa.stages.evaluate import part_of
from moaa.stages.table import PUBLISH, of_recipe
from tests.support.paths import DEMO, RECIPES

SFT = ["trainings=sft", "prompts.preference=[]", "gate={candidate: sft}", "publish={}"]


def test_nothing_is_sampled_labelled_or_tuned_on_preferences() -> None:
    recipe = load_file(DEMO, SFT).recipe
    stages = of_recipe(recipe)
    names = [stage.name for stage in stages]
    assert names[:5] == ["preflight", "prompts", "generate", "sft", "evaluate"]
    assert not {"sample", "label", "dpo"} & set(names)
    assert {line.stage for line in lines(recipe, stages)} <= set(names)
    assert "dpo" not in recipe.measured
    assert gate.part_of(recipe).preferences_judge == ""
    assert {role for use in findings(recipe).uses for role in use.roles} == {
        "target",
        "wrote data",
    }


def test_the_scores_of_other_runs_are_found_again() -> None:
    """The field is in no fingerprint of a run that trains both."""
    assert part_of(load_file(DEMO).recipe).contestants == ("base", "sft", "dpo")
    assert "trainings" not in part_of(load_file(DEMO).recipe).model_dump()


def test_the_papers_self_improvement_is_one_round_of_sft() -> None:
    recipe = load_file(RECIPES / "self-improve-paper.yaml").recipe
    names = [stage.name for stage in of_recipe(recipe)]
    assert names == ["preflight", "prompts", "generate", "sft", "evaluate"]
    assert (recipe.rounds.n, recipe.measured) == (1, ("base", "sft"))


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(RecipeError, match="'dpo' is not measured"):
        load_file(DEMO, ["trainings=sft", "gate={}"])
    with pytest.raises(RecipeError, match="DPO needs prompts: name a source"):
        load_file(DEMO, ["prompts.preference=[]"])


@pytest.mark.xdist_group("kfp")
def test_a_component_takes_what_the_run_may_lack_after_all_else() -> None:
    """A Python parameter with a default stands behind those without."""
    from moaa.components.declared import text  # loads kfp

    source = text(PUBLISH)
    assert "dpo: Input[Model] = None):" in source
    assert '**({"dpo": dpo.path} if dpo else {})' in source
    compile(source, "publish", "exec")
